//! The server's end of tunnel connections.

use std::{fmt, sync::Arc, time::Duration};

use adit_net::{Stream, TlsAcceptor};
use arc_swap::ArcSwapOption;

use crate::{
    client_certificate::ProvedCertificate, error::TlsError, peer::Peer, server_tls::ServerTls,
};

/// Handshakes with clients, by a configuration that can be replaced. Clones share the configuration.
#[derive(Clone)]
pub struct Acceptor(Arc<ArcSwapOption<ServerTls>>);

impl Acceptor {
    /// With this configuration; `None` is clear text.
    #[must_use]
    pub fn new(tls: Option<ServerTls>) -> Self {
        Self(Arc::new(ArcSwapOption::new(tls.map(Arc::new))))
    }

    /// Uses another configuration for connections from now on. Running connections and handshakes keep theirs.
    pub fn replace(&self, tls: Option<ServerTls>) {
        self.0.store(tls.map(Arc::new));
    }

    /// Whether connections are in clear text.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.load().is_none()
    }

    /// Handshakes within this time; in clear text the stream is returned as it is. With the certificate of the client, if it has
    /// one.
    ///
    /// The number of handshakes at a time is the caller's to bound. Run it in the task of the connection, never in the
    /// accept loop.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then; a client that speaks TLS has received an alert.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn accept(
        &self,
        stream: Stream,
        within: Duration,
    ) -> Result<(Stream, Option<ProvedCertificate>), TlsError> {
        let Some(tls) = self.0.load_full() else {
            return Ok((stream, None));
        };
        // The last segment of the server's first messages would otherwise wait for an acknowledgement. A connection on which
        // this fails has ended, which the handshake reports.
        let _ = stream.set_nodelay();
        let acceptor = TlsAcceptor::new(tls.config(), within, usize::MAX);
        let accepted = acceptor.accept(stream).await;
        let stream = accepted.map_err(|error| TlsError::of_server(Peer::Client, error))?;
        let proved = tls.proved(&stream);
        Ok((stream, proved))
    }
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Acceptor").field(&self.0.load()).finish()
    }
}
