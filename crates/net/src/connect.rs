//! Connections to services and servers.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use tokio::net::{TcpStream, UnixStream};

use crate::{host_port::HostPort, stream::Stream};

/// Connects over TCP, with small writes sent at once. The caller bounds the wait.
///
/// # Errors
/// Returns the errors of the resolver and of `connect`.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub async fn connect(to: &HostPort) -> io::Result<Stream> {
    let port = to.port();
    let stream = if let Some(ip) = to.ip() {
        TcpStream::connect((ip, port)).await?
    } else if to.is_localhost() {
        // The address is always loopback (RFC 6761, 6.3). The resolver would take a thread for each connection.
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => stream,
            Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .map_err(|_| error)?,
        }
    } else {
        TcpStream::connect((to.host(), port)).await?
    };
    stream.set_nodelay(true)?;
    Ok(stream.into())
}

/// Connects to a Unix socket.
///
/// # Errors
/// Returns the errors of `connect`.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub async fn connect_unix(path: &Path) -> io::Result<Stream> {
    UnixStream::connect(path).await.map(Into::into)
}
