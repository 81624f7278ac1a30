//! TLS of accepted connections: a handshake above a listener.

use std::{io, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{sync::Semaphore, time::timeout};
use tokio_rustls::rustls::ServerConfig;

use crate::stream::Stream;

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
    /// [`HandshakeError`]. The connection is closed then; a peer that failed the handshake has received an alert.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn accept(&self, stream: Stream) -> Result<Stream, HandshakeError> {
        let handshake = async {
            // The semaphore is never closed.
            let _turn = self.handshakes.acquire().await;
            self.acceptor.accept(stream).await
        };
        match timeout(self.within, handshake).await {
            Ok(accepted) => Ok(accepted?.into()),
            Err(_) => Err(HandshakeError::TimedOut(self.within)),
        }
    }
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsAcceptor")
            .field("within", &self.within)
            .field("free_handshakes", &self.handshakes.available_permits())
            .finish_non_exhaustive()
    }
}
