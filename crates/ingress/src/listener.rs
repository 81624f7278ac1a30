//! Public ports.

use std::{
    io,
    net::{SocketAddr, TcpListener},
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// What may wait unsent in the kernel before a socket is writable again: heads and other streams must not queue behind
/// bulk there.
const NOT_SENT_LOW_WATER_BYTES: u32 = 64 * 1024;

/// Why an address could not be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Somebody is there already.
    #[error(
        "{addr} is in use: end the program that listens there (`ss -ltnp` shows it), or choose another port"
    )]
    InUse {
        /// The address.
        addr: SocketAddr,
    },
    /// The port is reserved.
    #[error(
        "no permission to listen on {addr}: choose a port from 1024 on, or grant the program CAP_NET_BIND_SERVICE"
    )]
    Forbidden {
        /// The address.
        addr: SocketAddr,
    },
    /// This machine does not have the address.
    #[error("{addr} is no address of this machine: use one of its own, or 0.0.0.0 for all of them")]
    NotOurs {
        /// The address.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {addr}: {error}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// Listens on `addr`, not blocking: ready for `tokio::net::TcpListener::from_std`. Accepted sockets inherit the options
/// set here. One program per port: a second one fails.
///
/// # Errors
/// [`BindError`].
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    open(addr).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse { addr },
        io::ErrorKind::PermissionDenied => BindError::Forbidden { addr },
        io::ErrorKind::AddrNotAvailable => BindError::NotOurs { addr },
        _ => BindError::Other { addr, error },
    })
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a former run that linger do not keep the port; a listener does.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
