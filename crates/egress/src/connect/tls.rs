//! Opens connections of HTTP/2 to services, over TLS or in clear text.

use std::{sync::Arc, time::Duration};

use adit_net::{HostPort, Stream};
use adit_tls::{Cause, ClientHandshake, Peer, SetupError, TlsError, TlsName, Trust, client_config};
use rustls::version::{TLS12, TLS13};
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

/// Opens connections of HTTP/2 to one service.
pub(crate) struct Dialer {
    address: HostPort,
    /// The TLS settings; `None` for clear text. An error fails every dial.
    tls: Option<Result<ClientHandshake, SetupError>>,
}

impl Dialer {
    pub(crate) fn new(address: HostPort, tls: Option<&Tls>) -> Self {
        let tls = tls.map(|tls| handshake(&address, tls));
        Self { address, tls }
    }

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
            Some(Err(error)) => return Err(self.failed(Cause::Setup(error.clone()))),
        };
        let stream = dial(address, timeout).await?;
        match timeout_at(due, handshake.run(stream)).await {
            Ok(connected) => connected.map_err(|error| ConnectError::Tls {
                address: address.clone(),
                error,
            }),
            Err(_) => Err(self.failed(Cause::TimedOut(timeout))),
        }
    }

    fn failed(&self, cause: Cause) -> ConnectError {
        ConnectError::Tls {
            address: self.address.clone(),
            error: TlsError::new(Peer::Service, cause),
        }
    }
}

fn handshake(address: &HostPort, tls: &Tls) -> Result<ClientHandshake, SetupError> {
    let name = match &tls.server_name {
        Some(name) => name.as_str(),
        None => address.host(),
    };
    let config = client_config(&tls.trust, None, &[&TLS13, &TLS12])?;
    ClientHandshake::new(Arc::new(config), name, Peer::Service)
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
