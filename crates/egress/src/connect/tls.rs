//! TLS towards a service: whom to believe, and what to say when a handshake fails.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

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
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::connect::dial::{Address, dial};

/// What the service has to choose in the handshake (RFC 9113, 3.2): there is no other way to ask for HTTP/2 over TLS.
const ALPN: &[u8] = b"h2";

/// How a service is reached over TLS (1.2 or 1.3).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Whose certificates are believed.
    pub trust: Trust,
    /// The name that the certificate must have, and the one that is asked for; by default the service's host.
    pub server_name: Option<TlsName>,
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Those whom the system believes.
    #[default]
    System,
    /// These certificates alone, and what they have signed.
    Roots(Roots),
    /// Everybody's: whoever gets in between can read and change everything.
    Anyone,
}

/// Certificates to believe; at least one. A clone is cheap.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Roots(Arc<[Box<[u8]>]>);

/// A host name or an address, as a certificate has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TlsName(Box<str>);

/// Why a text is no name that a certificate could have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("expected a host name or an address, found {0:?}")]
pub struct NameError(String);

/// Why a file holds no certificates to believe.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// There is none in it.
    #[error("it holds no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// It is not PEM as it should be.
    #[error("its PEM cannot be read: {0}")]
    Pem(String),
    /// One of them is none.
    #[error("its certificate number {number} cannot be read: {problem}")]
    Certificate {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        problem: String,
    },
}

impl Roots {
    /// Reads the certificates of a file in PEM. Whatever else it holds is passed over.
    ///
    /// # Errors
    /// None in it, or one that cannot be read.
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
    /// Checks a name.
    ///
    /// # Errors
    /// It is neither a host name nor an address.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        match ServerName::try_from(text) {
            Ok(_) => Ok(Self(text.into())),
            Err(_) => Err(NameError(text.to_owned())),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Opens sockets to one service.
pub(crate) struct Dialer {
    address: Address,
    /// None: in clear text. An error is a text for people: there is no handshake that could succeed.
    tls: Option<Result<Handshake, String>>,
}

struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Dialer {
    pub(crate) fn new(address: Address, tls: Option<&Tls>) -> Self {
        let tls = tls.map(|tls| Handshake::new(&address, tls));
        Self { address, tls }
    }

    pub(crate) const fn address(&self) -> &Address {
        &self.address
    }

    /// What should have been spoken here, for people who wonder why nothing was understood.
    pub(crate) const fn hint(&self) -> &'static str {
        match self.tls {
            None => "does the service speak HTTP/2 without TLS?",
            Some(_) => "does the service speak HTTP/2?",
        }
    }

    /// Connects, handshake included, within `timeout`. The error is a text for people.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn dial(&self, timeout: std::time::Duration) -> Result<Socket, String> {
        let address = &self.address;
        let due = Instant::now() + timeout;
        let handshake = match &self.tls {
            None => return Ok(Socket::Plain(dial(address, timeout).await?)),
            Some(handshake) => handshake.as_ref(),
        };
        let failed = |why: String| format!("connect {address}: {why}");
        let handshake = handshake.map_err(|why| failed(why.clone()))?;
        let socket = dial(address, timeout).await?;
        let connecting = handshake.connector.connect(handshake.name.clone(), socket);
        let socket = match timeout_at(due, connecting).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return Err(failed(explain(&error, &handshake.name))),
            Err(_) => {
                let why = format!(
                    "no end of the TLS handshake within {timeout:?}; does the service speak TLS?"
                );
                return Err(failed(why));
            }
        };
        if socket.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(failed(NO_H2.to_owned()));
        }
        Ok(Socket::Tls(Box::new(socket)))
    }
}

const NO_H2: &str = "the service does not offer HTTP/2 over TLS (ALPN `h2`); turn HTTP/2 on in it";

impl Handshake {
    fn new(address: &Address, tls: &Tls) -> Result<Self, String> {
        let name = match &tls.server_name {
            Some(name) => name.as_str(),
            None => address.host.trim_start_matches('[').trim_end_matches(']'),
        };
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            format!("no certificate can be for {name:?}; say its name with `server_name`")
        })?;
        let config = config(&tls.trust).map_err(|error| {
            format!("TLS cannot be set up: {error}; are the system's CA certificates installed?")
        })?;
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

/// Believes every certificate. Neither are signatures looked at: they would prove that a service has the key of a
/// certificate that anybody can make.
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

/// What happened in a handshake, and what to do.
fn explain(error: &io::Error, name: &ServerName<'_>) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    let Some(inner) = inner else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => {
                "the service left during the TLS handshake; does it speak TLS?".to_owned()
            }
            _ => format!("TLS handshake: {error}"),
        };
    };
    let name = name.to_str();
    match inner {
        TlsError::InvalidCertificate(problem) => match problem {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the service's certificate has expired; renew it".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the service's certificate is not valid yet; is the clock right?".to_owned()
            }
            // The second: a CA of the same name, with another key.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the issuer of the service's certificate is unknown; give the file with the \
                 certificate of its CA as `ca_file`"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the service's certificate is not for {name}; give the name that it is for as \
                     `server_name`"
                )
            }
            problem => format!("the service's certificate is refused: {problem}"),
        },
        TlsError::AlertReceived(AlertDescription::NoApplicationProtocol) => NO_H2.to_owned(),
        TlsError::AlertReceived(AlertDescription::UnrecognisedName) => format!(
            "the service does not know the name {name}; give the one that it knows as `server_name`"
        ),
        TlsError::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::HandshakeFailure,
        ) => format!(
            "the service refused the TLS handshake: {inner}; does it ask for a client's certificate?"
        ),
        TlsError::InvalidMessage(_) => {
            "the service does not speak TLS; is the port right, or does it speak clear text?"
                .to_owned()
        }
        error => format!("TLS handshake: {error}"),
    }
}

/// A connection to a service, in clear text or not.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Tls(socket) => Pin::new(socket).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Tls(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Tls(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(socket) => socket.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(socket) => Pin::new(socket).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(socket) => Pin::new(socket).poll_shutdown(cx),
        }
    }
}
