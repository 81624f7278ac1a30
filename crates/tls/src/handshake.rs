//! The handshake of a client.

use std::{future::poll_fn, io, sync::Arc};

use adit_net::Stream;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use crate::{
    error::{Cause, TlsError},
    peer::Peer,
    setup::SetupError,
    trust::ALPN,
};

/// The handshakes of a client with one peer.
pub struct ClientHandshake {
    connector: TlsConnector,
    name: ServerName<'static>,
    peer: Peer,
}

impl ClientHandshake {
    /// Handshakes by `config` with a peer whose certificate is valid for `name`, which is sent as SNI.
    ///
    /// # Errors
    /// [`SetupError::Name`].
    pub fn new(config: Arc<ClientConfig>, name: &str, peer: Peer) -> Result<Self, SetupError> {
        let parsed = ServerName::try_from(name.to_owned());
        Ok(Self {
            connector: config.into(),
            name: parsed.map_err(|_| SetupError::Name(name.to_owned()))?,
            peer,
        })
    }

    /// Handshakes. Which protocol the peer has chosen is in [`Stream::alpn`]. Has no time limit of its own.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn run(&self, stream: Stream) -> Result<Stream, TlsError> {
        let connected = self.connector.connect(self.name.clone(), stream).await;
        connected
            .map(Stream::from)
            .map_err(|error| self.failed(error))
    }

    /// Handshakes as [`ClientHandshake::run`] with a peer that must choose HTTP/2.
    ///
    /// # Errors
    /// [`TlsError`]. The connection is closed then.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn run_http2(&self, stream: Stream) -> Result<Stream, TlsError> {
        let stream = self.run(stream).await?;
        if stream.alpn() != Some(ALPN) {
            return Err(TlsError::new(self.peer, Cause::NoHttp2));
        }
        Ok(stream)
    }

    /// Waits for the first bytes of the peer, and leaves them unread.
    ///
    /// The handshake of TLS 1.3 ends at the client before the server has verified the certificate of the client: the
    /// server's verdict is either its first bytes or an alert. An HTTP/2 server sends its settings at once.
    ///
    /// # Errors
    /// [`TlsError`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(crate) async fn confirmed(&self, mut stream: Stream) -> Result<Stream, TlsError> {
        let mut first = [0];
        match poll_fn(|cx| stream.poll_peek(cx, &mut first)).await {
            Ok(0) => Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => Ok(stream),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: io::Error) -> TlsError {
        TlsError::of_client(self.peer, error, &self.name)
    }
}
