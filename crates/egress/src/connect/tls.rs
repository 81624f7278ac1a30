//! TLS towards services: trusted roots, server names, and the errors of a handshake.

use std::{fmt, io, sync::Arc, time::Duration};

use adit_net::{HostPort, Stream};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError,
    RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::dial::{DialError, dial};

/// The protocol that the service must select in the handshake: ALPN is the only way to negotiate HTTP/2 over TLS (RFC
/// 9113, 3.2).
const ALPN: &[u8] = b"h2";

/// How a service is reached over TLS (1.2 or 1.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// How the service's certificate is verified.
    pub trust: Trust,
    /// The name that is sent as SNI and that the certificate must be valid for; by default the service's host.
    pub server_name: Option<TlsName>,
}

/// How a service's certificate is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The certificate is verified against the trust store of the system.
    #[default]
    System,
    /// The certificate is verified against these certificates alone.
    Roots(Roots),
    /// The certificate is not verified (insecure): an attacker between the two ends can read and change everything.
    Anyone,
}

/// Trusted root certificates, at least one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Roots(Arc<[Box<[u8]>]>);

/// A host name or an IP address that a certificate can be valid for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsName(Box<str>);

/// A text that is neither a host name nor an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a host name or an address, found {0:?}")]
pub struct NameError(String);

/// Why trusted roots cannot be read from a PEM file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// The file contains no certificate.
    #[error("no certificate in PEM found (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// The file is not valid PEM.
    #[error("invalid PEM: {0}")]
    Pem(String),
    /// A certificate is invalid.
    #[error("invalid certificate number {number}: {problem}")]
    Certificate {
        /// The number of the certificate in the file, from 1.
        number: usize,
        /// What is wrong with the certificate.
        problem: String,
    },
}

impl Roots {
    /// Reads the certificates of a PEM file; other sections are skipped.
    ///
    /// # Errors
    /// [`RootsError`]: the file has no certificate, or an invalid one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        let mut roots = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| RootsError::Pem(error.to_string()))?;
            roots.push(certificate.as_ref().into());
            store
                .add(certificate)
                .map_err(|error| RootsError::Certificate {
                    number: roots.len(),
                    problem: error.to_string(),
                })?;
        }
        if roots.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self(roots.into()))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}

impl TlsName {
    /// Parses a name.
    ///
    /// # Errors
    /// [`NameError`]: the text is neither a host name nor an IP address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(NameError(text.to_owned())),
        }
    }

    /// The name as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Opens connections of HTTP/2 to one service.
pub(crate) struct Dialer {
    address: HostPort,
    /// The TLS settings; `None` for clear text. An error fails every dial.
    tls: Option<Result<Handshake, SetupError>>,
}

struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    pub(crate) fn new(address: HostPort, tls: Option<&Tls>) -> Self {
        let tls = tls.map(|tls| Handshake::new(&address, tls));
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
            Some(Err(error)) => return Err(self.failed(error.clone().into())),
        };
        let stream = dial(address, timeout).await?;
        let connecting = handshake.connector.connect(handshake.name.clone(), stream);
        let stream: Stream = match timeout_at(due, connecting).await {
            Ok(Ok(stream)) => stream.into(),
            Ok(Err(error)) => return Err(self.failed(HandshakeError::of(error, &handshake.name))),
            Err(_) => return Err(self.failed(HandshakeError::TimedOut(timeout))),
        };
        if stream.alpn() != Some(ALPN) {
            return Err(self.failed(HandshakeError::NoHttp2));
        }
        Ok(stream)
    }

    fn failed(&self, error: HandshakeError) -> ConnectError {
        ConnectError::Tls {
            address: self.address.clone(),
            error,
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
        error: HandshakeError,
    },
}

/// Why no handshake can succeed with these settings.
#[derive(Debug, Clone, Error)]
pub(crate) enum SetupError {
    #[error("{0:?} is not a name that a certificate can be valid for; set `server_name`")]
    Name(String),
    #[error("TLS cannot be set up: {0}; are the system's CA certificates installed?")]
    Config(#[source] TlsError),
}

/// Why a TLS handshake failed, and what to change.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("the TLS handshake did not finish within {0:?}; does the service speak TLS?")]
    TimedOut(Duration),
    #[error("the service does not offer HTTP/2 over TLS (ALPN `h2`); enable HTTP/2 in the service")]
    NoHttp2,
    #[error("the service closed the connection during the TLS handshake; does it speak TLS?")]
    Closed(#[source] io::Error),
    #[error("TLS handshake: {0}")]
    Io(#[source] io::Error),
    #[error("the service's certificate has expired; renew it")]
    Expired(#[source] TlsError),
    #[error("the service's certificate is not valid yet; is the clock right?")]
    NotValidYet(#[source] TlsError),
    #[error(
        "the issuer of the service's certificate is unknown; give the file with the certificate of \
         its CA as `ca_file`"
    )]
    UnknownIssuer(#[source] TlsError),
    #[error(
        "the service's certificate is not valid for {name}; give a name that it is valid for as \
         `server_name`"
    )]
    NameMismatch {
        name: String,
        #[source]
        error: TlsError,
    },
    #[error("invalid certificate of the service: {0}")]
    InvalidCertificate(#[source] TlsError),
    #[error(
        "the service does not accept the name {0}; give a name that it accepts as `server_name`"
    )]
    UnknownName(String),
    #[error("the service rejected the TLS handshake: {0}; does it require a client certificate?")]
    Rejected(#[source] TlsError),
    #[error("the service does not speak TLS; is the port right, or is it clear text?")]
    NotTls(#[source] TlsError),
    #[error("TLS handshake: {0}")]
    Other(#[source] TlsError),
}

impl Handshake {
    fn new(address: &HostPort, tls: &Tls) -> Result<Self, SetupError> {
        let name = match &tls.server_name {
            Some(name) => name.as_str(),
            None => address.host(),
        };
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| SetupError::Name(name.to_owned()))?;
        let config = config(&tls.trust).map_err(SetupError::Config)?;
        Ok(Self {
            connector: Arc::new(config).into(),
            name,
        })
    }
}

fn config(trust: &Trust) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::System => Arc::new(Verifier::new(provider.clone())?),
        Trust::Roots(Roots(roots)) => {
            let mut store = RootCertStore::empty();
            for root in roots.iter() {
                store.add(CertificateDer::from(&root[..]))?;
            }
            let builder =
                WebPkiServerVerifier::builder_with_provider(store.into(), provider.clone());
            let built = builder.build();
            built.map_err(|error| TlsError::General(error.to_string()))?
        }
        Trust::Anyone => Arc::new(Anyone(provider.clone())),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

/// Accepts every certificate. Signatures are not verified either: they would prove possession of the key of a certificate
/// that anyone can make.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl HandshakeError {
    fn of(error: io::Error, name: &ServerName<'_>) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(inner) = inner.cloned() else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Closed(error),
                _ => Self::Io(error),
            };
        };
        let name = || name.to_str().into_owned();
        match inner {
            TlsError::InvalidCertificate(problem) => match problem {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired(problem.into())
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Self::NotValidYet(problem.into())
                }
                // A bad signature is one by a CA of the same name with another key.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Self::UnknownIssuer(problem.into())
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::NameMismatch {
                    name: name(),
                    error: problem.into(),
                },
                problem => Self::InvalidCertificate(problem.into()),
            },
            TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::NoHttp2,
            TlsError::AlertReceived(AlertDescription::UnrecognisedName) => {
                Self::UnknownName(name())
            }
            TlsError::AlertReceived(
                AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
            ) => Self::Rejected(inner),
            TlsError::InvalidMessage(_) => Self::NotTls(inner),
            error => Self::Other(error),
        }
    }
}
