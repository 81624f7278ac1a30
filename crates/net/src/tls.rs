//! TLS of accepted connections: a handshake above a listener.

use std::{sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::rustls::ServerConfig;

use crate::stream::Stream;

/// Bytes of a peer that are read after a failed handshake.
const LINGER_BYTES: u64 = 64 * 1024;

/// Why a TLS connection was not established.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer, or the queue of handshakes before it, was too slow.
    #[error("the TLS handshake did not end within {0:?}")]
    TimedOut(Duration),
    /// The handshake failed.
    #[error("TLS handshake: {0}")]
    Failed(#[from] io::Error),
}

/// Makes TLS of accepted connections. A clone shares the bound on handshakes.
///
/// A handshake costs a signature and a key exchange, a thousand times the cost of a request: the bound keeps the thread
/// free for requests, and waiting for a turn counts against the handshake's own time limit. Run it in the task of the
/// connection, never in the accept loop.
#[derive(Clone)]
pub struct TlsAcceptor {
    acceptor: tokio_rustls::TlsAcceptor,
    within: Duration,
    handshakes: Arc<Semaphore>,
}

impl TlsAcceptor {
    /// With the certificates and protocols (ALPN) of `config`: a handshake ends `within` this time, and at most
    /// `max_handshakes` run at a time.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, within: Duration, max_handshakes: usize) -> Self {
        let most = max_handshakes.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            acceptor: config.into(),
            within,
            handshakes: Arc::new(Semaphore::new(most)),
        }
    }

    /// Handshakes as the server.
    ///
    /// # Errors
    /// [`HandshakeError`]. The connection is closed then; a peer that failed the handshake receives an alert, which it has
    /// the rest of the time to read.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, HandshakeError> {
        let deadline = Instant::now() + self.within;
        let handshake = async {
            // The semaphore is never closed.
            let _turn = self.handshakes.acquire().await;
            self.acceptor.accept(stream).into_fallible().await
        };
        match timeout_at(deadline, handshake).await {
            Ok(Ok(accepted)) => Ok(accepted.into()),
            Ok(Err((error, stream))) => {
                // How it ends is of no interest.
                let _ = timeout_at(deadline, linger(stream)).await;
                Err(error.into())
            }
            Err(_) => Err(HandshakeError::TimedOut(self.within)),
        }
    }
}

/// Ends a connection before its handshake, or after it: sends these bytes, such as an alert, and gives the peer until `due` to
/// read them.
pub async fn reject(mut stream: Stream, last: &[u8], due: Instant) {
    // How it ends is of no interest.
    let _ = timeout_at(due, async {
        stream.write_all(last).await?;
        linger(stream).await
    })
    .await;
}

/// Waits until the peer has closed its end, or has sent too much. A close with unread bytes is a reset, which discards the
/// alert that the peer has not read yet.
async fn linger(mut stream: Stream) -> io::Result<()> {
    stream.shutdown().await?;
    io::copy(&mut stream.take(LINGER_BYTES), &mut io::sink()).await?;
    Ok(())
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("within", &self.within)
            .field("free_handshakes", &self.handshakes.available_permits())
            .finish_non_exhaustive()
    }
}
