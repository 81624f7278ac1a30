//! Joins a server: exchanges an enrolment key for a credential.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_link::{
    control::{CallError, Channel as _, ConnectError, Transport as _},
    grpc::{GrpcTransport, Proxy},
};
use adit_proto::{
    ClientCertificate, EnrolRequest, EnrolResponse, PROTOCOL_VERSION, enrol_response::Credential,
};
use adit_tls::{AuthorityError, ClientKey, ClientTls, Connector, SetupError, Trust};
use adit_trace::Printable;
use bytes::Bytes;
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    join_line::{JoinLine, JoinTrust},
    joined::{Joined, JoinedCertificate, JoinedCredential, JoinedTrust},
};

/// A client that joins.
#[derive(Debug)]
pub struct Join {
    /// The line of the server.
    pub line: JoinLine,
    /// The name of the client, for the list of the server's administrator.
    pub client_id: String,
    /// The proxy on the way to the server; `None`: directly.
    pub proxy: Option<Proxy>,
    /// The longest time of all of it.
    pub within: Duration,
}

/// The result.
#[derive(Debug)]
pub struct JoinOutcome {
    /// What the client keeps.
    pub joined: Joined,
    /// The id of the credential, with which an administrator approves or revokes it.
    pub credential_id: String,
    /// The server accepts the client once an administrator has approved it.
    pub awaits_approval: bool,
}

/// Why the client has not joined. No text contains the key.
#[derive(Debug, Error)]
pub enum JoinError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] AuthorityError),
    /// The server cannot be reached.
    #[error("{server}: {cause}")]
    Connect {
        /// The address.
        server: String,
        /// The cause.
        cause: ConnectError,
    },
    /// The server does not accept the key, or the call failed.
    #[error("{server}: {}", Printable(cause))]
    Call {
        /// The address.
        server: String,
        /// The cause.
        cause: String,
    },
    /// There was no response in time.
    #[error("{server}: no response within {within:?}")]
    TimedOut {
        /// The address.
        server: String,
        /// The time.
        within: Duration,
    },
    /// The response has no credential.
    #[error(
        "{server}: the response has no credential; install the same version of adit on both sides"
    )]
    NoCredential {
        /// The address.
        server: String,
    },
}

impl Join {
    /// Joins the server. The key is used up when this succeeds.
    ///
    /// # Errors
    /// [`JoinError`]. The key may have been used up if the response was lost.
    ///
    /// # Cancel safety
    /// The key may have been used up.
    pub async fn run(self) -> Result<JoinOutcome, JoinError> {
        let (server, within) = (self.line.server.to_string(), self.within);
        match timeout(within, self.run_unbounded()).await {
            Ok(joined) => joined,
            Err(_) => Err(JoinError::TimedOut { server, within }),
        }
    }

    async fn run_unbounded(self) -> Result<JoinOutcome, JoinError> {
        let server = self.line.server.clone();
        let tls = match self.line.trust {
            JoinTrust::Clear => None,
            JoinTrust::Public => Some(ClientTls::new(Trust::System, None, None)?),
            JoinTrust::OwnCa(fingerprint) => {
                Some(ClientTls::new(Trust::Pinned(fingerprint), None, None)?)
            }
        };
        let key = ClientKey::generate()?;
        let transport = GrpcTransport {
            host: server.host().to_owned(),
            port: server.port(),
            proxy: self.proxy,
            tls: Connector::new(tls, self.within),
        };
        let connected = transport.connect().await;
        let (channel, driver) = connected.map_err(|cause| JoinError::Connect {
            server: server.to_string(),
            cause,
        })?;
        let request = EnrolRequest {
            protocol_version: PROTOCOL_VERSION,
            key: self.line.key.to_text().expose_secret().to_owned(),
            client_id: self.client_id,
            public_key: Bytes::copy_from_slice(key.public()),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let driving = tokio::spawn(driver);
        let enrolled = channel.enrol(request).await;
        driving.abort();
        let response = enrolled.map_err(|error| JoinError::Call {
            server: server.to_string(),
            cause: text_of(&error),
        })?;
        outcome(&server.to_string(), self.line.trust, response, &key)
    }
}

/// The error of the call. For the key of a join, the common text of wrong credentials would send a person to the wrong place.
fn text_of(error: &CallError) -> String {
    use adit_link::control::RefusalReason::Unauthenticated;

    if error.reason() == Some(Unauthenticated) {
        return "the server did not accept the key: it can be used once, within 15 minutes unless the server's \
                administrator has chosen otherwise; ask for another line of `adit-server join`"
            .to_owned();
    }
    error.to_string()
}

fn outcome(
    server: &str,
    trust: JoinTrust,
    response: EnrolResponse,
    key: &ClientKey,
) -> Result<JoinOutcome, JoinError> {
    let credential = match response.credential {
        Some(Credential::ApiKey(key)) => JoinedCredential::Key(key.into()),
        Some(Credential::Certificate(certificate)) => {
            JoinedCredential::Certificate(kept(certificate, key.to_pem()))
        }
        None => {
            return Err(JoinError::NoCredential {
                server: server.to_owned(),
            });
        }
    };
    let trust = match trust {
        JoinTrust::Clear => JoinedTrust::Clear,
        JoinTrust::Public => JoinedTrust::Public,
        JoinTrust::OwnCa(_) => JoinedTrust::OwnCa(response.roots),
    };
    Ok(JoinOutcome {
        joined: Joined {
            server: server.to_owned(),
            user: response.user,
            client_id: None,
            trust,
            credential,
        },
        credential_id: response.credential_id,
        awaits_approval: response.awaits_approval,
    })
}

/// A certificate that was received now.
pub(crate) fn kept(certificate: ClientCertificate, private_key: SecretString) -> JoinedCertificate {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    JoinedCertificate {
        certificate: certificate.certificate,
        private_key,
        issued_at: now.map_or(0, |now| now.as_secs()),
        expires_at: certificate.expires_at,
    }
}
