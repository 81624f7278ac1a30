//! Why a handshake failed, and what to change.

use std::{error::Error, fmt, io, time::Duration};

use adit_net::HandshakeError;
use rustls::{
    AlertDescription as Alert, CertificateError, Error as RustlsError, OtherError,
    PeerIncompatible, pki_types::ServerName,
};

use crate::{
    authority::SERVER_NAME, own_ca::OwnCa, peer::Peer, pinned::WrongFingerprint, setup::SetupError,
};

/// Why a TLS handshake failed. Its text states what happened and what to change; it contains no secret.
#[derive(Debug)]
pub struct TlsError {
    peer: Peer,
    cause: Cause,
}

/// The cause of a failed handshake.
#[derive(Debug)]
pub enum Cause {
    /// No handshake can succeed with the configuration of this end.
    Setup(SetupError),
    /// The handshake took longer than this.
    TimedOut(Duration),
    /// The peer has closed the connection.
    Closed(io::Error),
    /// The connection has failed.
    Io(io::Error),
    /// The peer does not speak TLS: its first bytes are those of another protocol.
    NotTls(RustlsError),
    /// The peer's first byte is not one of TLS.
    ClearText,
    /// The peer supports none of the versions of TLS that this end does.
    Version(RustlsError),
    /// The peer supports no HTTP/2 over TLS.
    NoHttp2,
    /// The peer supports no HTTP/1.1 over TLS.
    NoHttp1,
    /// The peer's certificate has expired.
    Expired(RustlsError),
    /// The peer's certificate is not valid yet.
    NotValidYet(RustlsError),
    /// The peer's certificate is signed by a CA that this end does not trust.
    UnknownIssuer(RustlsError),
    /// The server's certificate is signed by the server's own CA, which this client does not trust.
    OwnCa(OwnCa),
    /// The peer's certificate is valid for other names.
    WrongName {
        /// The name that this end has expected.
        name: String,
        /// The error of the library.
        error: RustlsError,
    },
    /// The peer sends no certificate with the expected fingerprint.
    WrongFingerprint(WrongFingerprint),
    /// The peer's certificate is invalid for another reason.
    InvalidCertificate(RustlsError),
    /// The client has sent no certificate to a server that requires one.
    NoClientCertificate(RustlsError),
    /// The peer requires a client certificate.
    CertificateRequired(RustlsError),
    /// The peer has rejected the certificate of this end.
    CertificateRejected(RustlsError),
    /// The peer does not know the name that this end has asked for.
    UnknownName(String),
    /// This end has no certificate for the name that the peer asks for; `None` if it names none.
    NoCertificate(Option<String>),
    /// The peer has rejected the handshake.
    Rejected(RustlsError),
    /// Another error of the handshake.
    Other(RustlsError),
}

impl TlsError {
    /// A handshake with this peer that failed for this cause.
    #[must_use]
    pub const fn new(peer: Peer, cause: Cause) -> Self {
        Self { peer, cause }
    }

    /// The cause.
    #[must_use]
    pub const fn cause(&self) -> &Cause {
        &self.cause
    }

    /// The failure of a client's handshake, in which it has asked for `name`.
    pub(crate) fn of_client(peer: Peer, error: io::Error, name: &ServerName<'_>) -> Self {
        Self::new(peer, Cause::of(error, &name.to_str()))
    }

    /// The failure of a server's handshake with this peer.
    pub(crate) fn of_server(peer: Peer, error: HandshakeError) -> Self {
        let cause = match error {
            HandshakeError::TimedOut(within) => Cause::TimedOut(within),
            HandshakeError::Failed(error) => Cause::of(error, ""),
        };
        Self::new(peer, cause)
    }
}

impl Cause {
    pub(crate) fn of(error: io::Error, name: &str) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        let Some(inner): Option<RustlsError> = inner.cloned() else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => Self::Closed(error),
                _ => Self::Io(error),
            };
        };
        match inner {
            RustlsError::InvalidCertificate(problem) => Self::of_certificate(problem, name),
            RustlsError::InvalidMessage(_) => Self::NotTls(inner),
            RustlsError::NoApplicationProtocol => Self::NoHttp2,
            RustlsError::NoCertificatesPresented => Self::NoClientCertificate(inner),
            RustlsError::AlertReceived(alert) => Self::of_alert(alert, name),
            RustlsError::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic,
            ) => Self::Version(inner),
            error => Self::Other(error),
        }
    }

    fn of_certificate(problem: CertificateError, name: &str) -> Self {
        match problem {
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
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName {
                    name: name.to_owned(),
                    error: problem.into(),
                }
            }
            CertificateError::Other(OtherError(ref other)) => {
                if let Some(wrong) = other.downcast_ref::<WrongFingerprint>() {
                    Self::WrongFingerprint(*wrong)
                } else if let Some(own_ca) = other.downcast_ref::<OwnCa>() {
                    Self::OwnCa(*own_ca)
                } else {
                    Self::InvalidCertificate(problem.into())
                }
            }
            problem => Self::InvalidCertificate(problem.into()),
        }
    }

    fn of_alert(alert: Alert, name: &str) -> Self {
        let error = RustlsError::AlertReceived(alert);
        match alert {
            Alert::NoApplicationProtocol => Self::NoHttp2,
            Alert::UnrecognisedName => Self::UnknownName(name.to_owned()),
            Alert::ProtocolVersion => Self::Version(error),
            Alert::CertificateRequired => Self::CertificateRequired(error),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::DecryptError
            | Alert::AccessDenied => Self::CertificateRejected(error),
            Alert::HandshakeFailure => Self::Rejected(error),
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer;
        match &self.cause {
            Cause::Setup(error) => write!(f, "{error}"),
            Cause::TimedOut(within) => write!(
                f,
                "the TLS handshake did not finish within {within:?}; does the {peer} speak TLS?"
            ),
            Cause::Closed(_) => write!(
                f,
                "the {peer} closed the connection during the TLS handshake; does it speak TLS?"
            ),
            Cause::Io(error) => write!(f, "TLS handshake: {error}"),
            Cause::NotTls(_) => {
                write!(f, "the {peer} does not speak TLS; ")?;
                f.write_str(match peer {
                    Peer::Service => "is the port right, or is it clear text?",
                    Peer::Server => {
                        "is the port right? Set `server.tls` on the server, or `client.tls: off` for clear text"
                    }
                    Peer::Client => "set `client.tls` on the client",
                    Peer::Visitor => "is its URL `https://`?",
                })
            }
            Cause::ClearText => write!(f, "the {peer} does not speak TLS; the port is for TLS only"),
            Cause::Version(_) => match peer {
                Peer::Service | Peer::Visitor => {
                    write!(f, "the {peer} supports neither TLS 1.3 nor TLS 1.2")
                }
                Peer::Server => f.write_str(
                    "the server does not support TLS 1.3, which the tunnel needs; is it the port for clients of an \
                     adit-server?",
                ),
                Peer::Client => {
                    f.write_str("the client does not support TLS 1.3, which the tunnel needs")
                }
            },
            Cause::NoHttp2 => match peer {
                Peer::Service => f.write_str(
                    "the service does not offer HTTP/2 over TLS (ALPN `h2`); enable HTTP/2 in the service",
                ),
                Peer::Server => f.write_str(
                    "the server does not offer HTTP/2 over TLS (ALPN `h2`); is it the port for clients of an \
                     adit-server?",
                ),
                Peer::Client => f.write_str(
                    "the client does not offer HTTP/2 over TLS (ALPN `h2`); is it an adit client?",
                ),
                Peer::Visitor => {
                    f.write_str("the visitor offers neither HTTP/2 nor HTTP/1.1 over TLS (ALPN)")
                }
            },
            Cause::NoHttp1 => write!(
                f,
                "the {peer} does not offer HTTP/1.1 over TLS (ALPN `http/1.1`); enable it there"
            ),
            Cause::Expired(_) => write!(f, "the {peer}'s certificate has expired; renew it"),
            Cause::NotValidYet(_) => write!(
                f,
                "the {peer}'s certificate is not valid yet; is the clock right?"
            ),
            Cause::UnknownIssuer(_) => {
                write!(f, "the {peer}'s certificate is not signed by a trusted CA; ")?;
                f.write_str(match peer {
                    Peer::Service => "set `ca_file` to the file with the certificate of its CA",
                    Peer::Server => {
                        "set `client.tls.ca_file` to the file with the certificate of its CA, or run `adit join` again if \
                         this client has joined"
                    }
                    Peer::Client | Peer::Visitor => {
                        "add the certificate of its CA to `server.tls.client_ca_file`"
                    }
                })
            }
            Cause::OwnCa(OwnCa { fingerprint }) => match peer {
                Peer::Server => write!(
                    f,
                    "the server's certificate is issued by the server's own CA, which this client does not trust yet. If \
                     the server shows the fingerprint {fingerprint} at its start, set `client.tls.ca_fingerprint` to it, \
                     or run `adit-server join` there and `adit join` here; otherwise another machine responds"
                ),
                Peer::Service | Peer::Client | Peer::Visitor => write!(
                    f,
                    "the issuer of the {peer}'s certificate is unknown: an adit-server responds, with its own CA \
                     (fingerprint {fingerprint})"
                ),
            },
            Cause::WrongName { name, .. } => {
                write!(
                    f,
                    "the {peer}'s certificate is not valid for {name}; give a name that it is valid for as `server_name`"
                )?;
                match peer {
                    Peer::Server => write!(f, ": {SERVER_NAME}, if the server has its own CA"),
                    Peer::Service | Peer::Client | Peer::Visitor => Ok(()),
                }
            }
            Cause::WrongFingerprint(WrongFingerprint { expected, found }) => write!(
                f,
                "fingerprint mismatch: expected {expected}, the {peer}'s CA has {found}. If the administrator confirms {found}, \
                 set `ca_fingerprint` to it, or join again; otherwise this may be another server. With a certificate file, \
                 `cert_file` must contain that of the CA"
            ),
            Cause::InvalidCertificate(RustlsError::InvalidCertificate(
                CertificateError::Other(OtherError(other)),
            )) => match &*other.to_string() {
                "UnsupportedCertVersion" => write!(
                    f,
                    "invalid certificate of the {peer}: expected X.509 version 3, found an older version; make one with \
                     extensions (subjectAltName)"
                ),
                other => write!(f, "invalid certificate of the {peer}: {other}"),
            },
            Cause::InvalidCertificate(error) => {
                write!(f, "invalid certificate of the {peer}: {error}")
            }
            Cause::NoClientCertificate(_) => f.write_str(
                "the client sent no certificate, and `server.tls.client_ca_file` requires one; set `cert_file` and \
                 `key_file` of `client.tls`",
            ),
            Cause::CertificateRequired(error) => match peer {
                Peer::Service => write!(
                    f,
                    "the service rejected the TLS handshake: {error}; does it require a client certificate?"
                ),
                Peer::Server | Peer::Client | Peer::Visitor => write!(
                    f,
                    "the {peer} requires a client certificate; set `cert_file` and `key_file` of `client.tls`"
                ),
            },
            Cause::CertificateRejected(error) => match peer {
                Peer::Server => write!(
                    f,
                    "the server rejected the client's certificate: {}; a client that has joined gets another one with \
                     `adit join`",
                    match error {
                        RustlsError::AlertReceived(Alert::CertificateExpired) =>
                            "it has expired, or a clock is wrong: set `cert_file` and `key_file` of `client.tls` to a new one",
                        RustlsError::AlertReceived(Alert::UnknownCA) =>
                            "its CA is not one of `server.tls.client_ca_file`: set `cert_file` and `key_file` of \
                             `client.tls` to one of such a CA, with the certificates between in `cert_file`",
                        _ => "set `cert_file` and `key_file` of `client.tls` to a valid one for clients, of a CA that the \
                              server trusts",
                    }
                ),
                Peer::Service => write!(
                    f,
                    "the service rejected the client's certificate: {error}; is it valid, and signed by a CA that the \
                     service trusts?"
                ),
                Peer::Client => write!(
                    f,
                    "the client rejected the server's certificate: {error}; the log of the client has the reason"
                ),
                Peer::Visitor => {
                    write!(f, "the visitor rejected the server's certificate: {error}")
                }
            },
            Cause::UnknownName(name) => write!(
                f,
                "the {peer} does not accept the name {name}; give a name that it accepts as `server_name`"
            ),
            Cause::NoCertificate(Some(name)) => write!(
                f,
                "no certificate is for {name}; add one to `server.https.certificates`"
            ),
            Cause::NoCertificate(None) => f.write_str(
                "the visitor names no host, and no certificate of `server.https.certificates` is the default",
            ),
            Cause::Rejected(error) => write!(
                f,
                "the {peer} rejected the TLS handshake: {error}; does it require a client certificate?"
            ),
            Cause::Other(error) => write!(f, "TLS handshake: {error}"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.cause {
            Cause::Setup(error) => Some(error),
            Cause::Closed(error) | Cause::Io(error) => Some(error),
            Cause::WrongFingerprint(error) => Some(error),
            Cause::OwnCa(error) => Some(error),
            Cause::NotTls(error)
            | Cause::Version(error)
            | Cause::Expired(error)
            | Cause::NotValidYet(error)
            | Cause::UnknownIssuer(error)
            | Cause::WrongName { error, .. }
            | Cause::InvalidCertificate(error)
            | Cause::NoClientCertificate(error)
            | Cause::CertificateRequired(error)
            | Cause::CertificateRejected(error)
            | Cause::Rejected(error)
            | Cause::Other(error) => Some(error),
            Cause::TimedOut(_)
            | Cause::ClearText
            | Cause::NoHttp2
            | Cause::NoHttp1
            | Cause::UnknownName(_)
            | Cause::NoCertificate(_) => None,
        }
    }
}
