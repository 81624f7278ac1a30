//! Listening sockets: one program for each port, and the options that accepted sockets inherit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_net::{BindError, bind};
use socket2::SockRef;

#[test]
fn a_port_in_use_is_an_error() {
    let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind(addr).unwrap_err();
    assert!(matches!(error, BindError::InUse { addr: a } if a == addr));
    drop(first);
    bind(addr).expect("free again at once");
}

#[test]
fn a_port_is_free_again_although_its_last_connection_lingers() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = listener.local_addr().unwrap();
    listener.set_nonblocking(false).unwrap();
    let visitor = std::net::TcpStream::connect(addr).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    // The side that closes first keeps the port in TIME-WAIT.
    drop(accepted);
    drop(visitor);
    drop(listener);
    bind(addr).unwrap();
}

#[test]
fn an_address_of_another_machine_is_refused() {
    let addr = "192.0.2.1:0".parse().unwrap();
    let error = bind(addr).unwrap_err();
    assert!(
        matches!(error, BindError::NotOurs { addr: a } if a == addr),
        "{error}"
    );
}

#[test]
fn accepted_sockets_inherit_the_options() {
    let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let socket = SockRef::from(&listener);
    assert!(socket.reuse_address().unwrap());
    assert!(socket.nonblocking().unwrap());
    #[cfg(target_os = "linux")]
    assert!(!socket.reuse_port().unwrap());
    listener.set_nonblocking(false).unwrap();
    let _visitor = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    let accepted = SockRef::from(&accepted);
    assert!(accepted.tcp_nodelay().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(accepted.tcp_notsent_lowat().unwrap(), 64 * 1024);
}
