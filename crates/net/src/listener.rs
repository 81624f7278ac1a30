//! One listener for all kinds of streams.

use std::{
    future::pending,
    io,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::{Mutex, mpsc},
};

use crate::{addr::canonical_addr, memory::MemoryStream, stream::Stream};

/// Connections in memory that wait to be accepted.
const MEMORY_BACKLOG: usize = 128;

/// Accepts connections of one address.
#[derive(Debug)]
pub struct Listener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener),
    Memory {
        addr: SocketAddr,
        incoming: Mutex<mpsc::Receiver<MemoryStream>>,
    },
}

/// Connects to a listener in memory. Clones connect to the same one.
#[derive(Debug, Clone)]
pub struct MemoryConnector {
    addr: SocketAddr,
    capacity: usize,
    outgoing: mpsc::Sender<MemoryStream>,
}

impl Listener {
    /// Listens on a socket of [`bind`](crate::bind).
    ///
    /// # Errors
    /// Returns the errors of the system.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        TcpListener::from_std(listener).map(Into::into)
    }

    /// A listener in memory at `addr`, and a connector to it. Each direction of a connection holds `capacity` bytes.
    #[must_use]
    pub fn in_memory(addr: SocketAddr, capacity: usize) -> (Self, MemoryConnector) {
        let (outgoing, incoming) = mpsc::channel(MEMORY_BACKLOG);
        let listener = Self(Kind::Memory {
            addr,
            incoming: Mutex::new(incoming),
        });
        let connector = MemoryConnector {
            addr,
            capacity,
            outgoing,
        };
        (listener, connector)
    }

    /// Waits for the next connection. Returns it with the address of its peer ([`Stream::peer_addr`]).
    ///
    /// # Errors
    /// Returns the errors of `accept`: see [`AcceptLoop`](crate::AcceptLoop), which continues.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match &self.0 {
            Kind::Tcp(tcp) => {
                let (stream, peer) = tcp.accept().await?;
                Ok((stream.into(), canonical_addr(peer)))
            }
            Kind::Unix(unix) => {
                let (stream, _) = unix.accept().await?;
                let stream = Stream::from(stream);
                let peer = stream.peer_addr()?;
                Ok((stream, peer))
            }
            Kind::Memory { incoming, .. } => match incoming.lock().await.recv().await {
                Some(stream) => {
                    let peer = stream.peer_addr();
                    Ok((stream.into(), peer))
                }
                // All connectors have been dropped.
                None => pending().await,
            },
        }
    }

    /// The address that the listener is bound to. That of a Unix socket is 127.0.0.1, port 0.
    ///
    /// # Errors
    /// Returns the errors of `getsockname`.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(tcp) => tcp.local_addr(),
            Kind::Unix(_) => Ok((Ipv4Addr::LOCALHOST, 0).into()),
            Kind::Memory { addr, .. } => Ok(*addr),
        }
    }
}

impl MemoryConnector {
    /// Connects from `visitor`; waits while the backlog is full.
    ///
    /// # Errors
    /// `ConnectionRefused` when the listener is gone.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn connect(&self, visitor: SocketAddr) -> io::Result<Stream> {
        let (near, far) = MemoryStream::pair(self.capacity, visitor, self.addr);
        match self.outgoing.send(far).await {
            Ok(()) => Ok(near.into()),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self(Kind::Tcp(tcp))
    }
}

impl From<UnixListener> for Listener {
    fn from(unix: UnixListener) -> Self {
        Self(Kind::Unix(unix))
    }
}
