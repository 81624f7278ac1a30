//! The client's end of tunnel connections.

use std::{fmt, sync::Arc, time::Duration};

use adit_net::Stream;
use arc_swap::ArcSwapOption;
use tokio::time::timeout;

use crate::{
    client_tls::ClientTls,
    error::{Cause, TlsError},
    handshake::ClientHandshake,
    peer::Peer,
    setup::SetupError,
};

/// Handshakes with the server, by a configuration that can be replaced. Clones share the configuration.
#[derive(Clone)]
pub struct Connector {
    tls: Arc<ArcSwapOption<ClientTls>>,
    within: Duration,
}

impl Connector {
    /// With this configuration; `None` is clear text. A handshake ends `within` this time.
    #[must_use]
    pub fn new(tls: Option<ClientTls>, within: Duration) -> Self {
        Self {
            tls: Arc::new(ArcSwapOption::new(tls.map(Arc::new))),
            within,
        }
    }

    /// Clear text.
    #[must_use]
    pub fn off() -> Self {
        Self::new(None, Duration::ZERO)
    }

    /// Uses another configuration for connections from now on. Running connections and handshakes keep theirs.
    pub fn replace(&self, tls: Option<ClientTls>) {
        self.tls.store(tls.map(Arc::new));
    }

    /// Handshakes with the server at `host`, and waits until the server has accepted this end (P-1.17); in clear text the stream is
    /// returned as it is.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    ///
    /// # Cost
    /// Two round trips: the second one is for the server's verdict on this end, in which it sends its settings of HTTP/2.
    pub async fn connect(&self, stream: Stream, host: &str) -> Result<Stream, TlsError> {
        let Some(tls) = self.tls.load_full() else {
            return Ok(stream);
        };
        let name = tls.server_name().map_or(host, |name| name.as_str());
        let failed = |cause| TlsError::new(Peer::Server, cause);
        let handshake = ClientHandshake::new(tls.config(), name, Peer::Server);
        let handshake = handshake.map_err(|error: SetupError| failed(Cause::Setup(error)))?;
        let connecting = async {
            let stream = handshake.run_http2(stream).await?;
            handshake.confirmed(stream).await
        };
        match timeout(self.within, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(failed(Cause::TimedOut(self.within))),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("tls", &self.tls.load())
            .field("within", &self.within)
            .finish()
    }
}
