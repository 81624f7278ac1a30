//! Listening sockets: their options, and errors with advice.

use std::{
    io,
    net::{SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// Unsent bytes that the kernel may hold before a socket is writable again: heads and other streams must not wait
/// behind much data there.
const NOT_SENT_LOW_WATER_BYTES: u32 = 64 * 1024;

/// Datagrams that the kernel may buffer in each direction: a burst must not be lost while the thread does other work.
/// The system may allow less (`net.core.rmem_max`).
const DATAGRAM_BUFFER_BYTES: usize = 4 << 20;

/// Why listening on an address failed.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another socket is bound to the address.
    #[error(
        "{addr} is in use: end the program that listens there (`ss -ltunp` shows it), or choose another port"
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
    #[error(
        "this machine does not have the address of {addr}: use one of its own, or 0.0.0.0 for all of them"
    )]
    NotOurs {
        /// The address.
        addr: SocketAddr,
    },
    /// Anything else.
    #[error("cannot listen on {addr}: {error}")]
    Other {
        /// The address.
        addr: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
}

/// Listens on `addr`, not blocking: ready for `tokio::net::TcpListener::from_std`. Accepted sockets inherit the options
/// set here. One program per port: a second one fails.
///
/// # Errors
/// [`BindError`].
pub fn bind(addr: SocketAddr) -> Result<TcpListener, BindError> {
    open(addr).map_err(|error| BindError::new(addr, error))
}

/// Receives datagrams at `addr`, not blocking: ready for `tokio::net::UdpSocket::from_std`. One program per port: a second
/// one fails.
///
/// # Errors
/// [`BindError`].
pub fn bind_udp(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    open_udp(addr).map_err(|error| BindError::new(addr, error))
}

impl BindError {
    fn new(addr: SocketAddr, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { addr },
            io::ErrorKind::PermissionDenied => Self::Forbidden { addr },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { addr },
            _ => Self::Other { addr, error },
        }
    }
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // Lingering connections of an earlier process do not block the port; a listener does.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER_BYTES)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn open_udp(addr: SocketAddr) -> io::Result<UdpSocket> {
    // The address is not reused: a UDP port has no lingering connections, and two programs could share it unnoticed.
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less, which is not an error.
    let _ = socket.set_recv_buffer_size(DATAGRAM_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}
