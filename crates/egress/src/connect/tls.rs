//! Opens connections of HTTP to services, over TLS or in clear text.

use std::{sync::Arc, time::Duration};

use adit_link::BoxFuture;
use adit_net::{HostPort, Stream};
use adit_tls::{Cause, ClientHandshake, Peer, SetupError, TlsError, TlsName, Trust, client_config};
use rustls::{
    ClientConfig,
    version::{TLS12, TLS13},
};
use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use super::dial::{DialError, dial};

/// How a service is reached over TLS (1.2 or 1.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// How the service's certificate is verified.
    pub trust: Trust,
    /// The name that is sent as SNI and that the certificate must be valid for; by default the service's host.
    pub server_name: Option<TlsName>,
}

/// The protocols that are offered to a service over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    Http1,
    Http2,
    /// Both: the service chooses.
    Either,
}

/// How connections to one service are opened. In clear text nothing is offered.
pub(crate) struct Access {
    address: HostPort,
    /// `None` for clear text. An error fails every dial.
    tls: Option<Result<(ClientConfig, String), SetupError>>,
}

/// Opens connections to one service.
pub(crate) struct Dialer {
    address: HostPort,
    offer: Offer,
    /// `None` for clear text.
    tls: Option<Result<ClientHandshake, SetupError>>,
}

impl Access {
    pub(crate) fn new(address: HostPort, tls: Option<&Tls>) -> Self {
        let tls = tls.map(|tls| {
            let name = match &tls.server_name {
                Some(name) => name.as_str(),
                None => address.host(),
            };
            let config = client_config(&tls.trust, None, &[&TLS13, &TLS12])?;
            Ok((config, name.to_owned()))
        });
        Self { address, tls }
    }

    /// A dialer that offers these protocols.
    pub(crate) fn offering(&self, offer: Offer) -> Arc<Dialer> {
        let tls = self.tls.as_ref().map(|tls| {
            let (config, name) = tls.as_ref().map_err(Clone::clone)?;
            let mut config = config.clone();
            config.alpn_protocols = offer.alpn();
            ClientHandshake::new(Arc::new(config), name, Peer::Service)
        });
        Arc::new(Dialer {
            address: self.address.clone(),
            offer,
            tls,
        })
    }
}

impl Offer {
    fn alpn(self) -> Vec<Vec<u8>> {
        let protocols: &[&[u8]] = match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[b"h2"],
            Self::Either => &[b"h2", b"http/1.1"],
        };
        protocols.iter().map(|one| one.to_vec()).collect()
    }
}

impl Dialer {
    pub(crate) const fn address(&self) -> &HostPort {
        &self.address
    }

    /// A question about the usual cause, for the error when the service does not complete the handshake of HTTP/2.
    pub(crate) const fn hint(&self) -> &'static str {
        match self.tls {
            None => "does the service speak HTTP/2 without TLS?",
            Some(_) => "does the service speak HTTP/2?",
        }
    }

    /// Connects within `timeout`, which includes the handshake.
    ///
    /// # Errors
    /// [`ConnectError`].
    ///
    /// # Cancel safety
    /// If it is dropped, it closes the connection that it was opening.
    pub(crate) async fn dial(&self, timeout: Duration) -> Result<Stream, ConnectError> {
        let address = &self.address;
        let due = Instant::now() + timeout;
        let handshake = match &self.tls {
            None => return Ok(dial(address, timeout).await?),
            Some(Ok(handshake)) => handshake,
            Some(Err(error)) => {
                let cause = Cause::Setup(error.clone());
                return Err(self.failed(TlsError::new(Peer::Service, cause)));
            }
        };
        let stream = dial(address, timeout).await?;
        // Boxed: dialling is rare, and the state of a handshake would enlarge the future of every connection.
        let connecting: BoxFuture<'_, _> = match self.offer {
            Offer::Http2 => Box::pin(handshake.run_http2(stream)),
            Offer::Http1 | Offer::Either => Box::pin(handshake.run(stream)),
        };
        match timeout_at(due, connecting).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.failed(match (self.offer, error.cause()) {
                // The library's alert does not contain what was offered.
                (Offer::Http1, Cause::NoHttp2) => TlsError::new(Peer::Service, Cause::NoHttp1),
                _ => error,
            })),
            Err(_) => Err(self.failed(TlsError::new(Peer::Service, Cause::TimedOut(timeout)))),
        }
    }

    fn failed(&self, error: TlsError) -> ConnectError {
        ConnectError::Tls {
            address: self.address.clone(),
            error,
        }
    }
}

impl ConnectError {
    /// Whether the service does not speak the protocol that it was offered.
    pub(crate) const fn is_other_protocol(&self) -> bool {
        match self {
            Self::Dial(_) => false,
            Self::Tls { error, .. } => matches!(error.cause(), Cause::NoHttp1 | Cause::NoHttp2),
        }
    }
}

/// Why no connection to a service was made. Its text is reported to the opener of the request, and logged.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("connect {address}: {error}")]
    Tls {
        address: HostPort,
        #[source]
        error: TlsError,
    },
}
