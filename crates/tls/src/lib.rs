//! TLS of the tunnel and towards services: certificates, trust, handshakes, and what went wrong with them.
//!
//! - [`Identity`], [`Roots`], [`Fingerprint`], [`TlsName`]: the parts of a configuration. Each is checked when it is made, so
//!   that an invalid file is an error of the configuration and not of a connection.
//! - [`ServerTls`] and [`ClientTls`]: the two ends of the tunnel. TLS 1.3 only, the key exchange that resists quantum
//!   computers first, ALPN `h2`, no resumption: every connection proves its certificates.
//! - [`Acceptor`] and [`Connector`]: the same in a running program. [`Acceptor::replace`] and [`Connector::replace`] apply to
//!   the next connection; running connections do not change. Without TLS they pass a connection on as it is.
//! - [`Authority`]: a server's own CA, which issues its certificates and is replaced before it expires.
//! - [`VisitorAcceptor`] and [`Certificates`]: the port of visitors, TLS 1.2 and 1.3 with the certificate of the host that a visitor
//!   asks for. [`Opening`] reads what it asks for and leaves it unread, so that a connection can also be passed on unopened.
//! - [`ClientHandshake`] and [`client_config`]: the handshake of a client alone, for other peers than the server of a tunnel.
//! - [`TlsError`]: one error for all handshakes, with a [`Cause`] for each reason. Its text states what happened and what to
//!   change.
//!
//! Promises:
//! - a private key is part of no `Debug`, error or log;
//! - a handshake ends within the time that its caller gives, and holds no more than rustls buffers of it: 64 KiB;
//! - a certificate is verified by rustls' own verifiers; a fingerprint decides only which certificate is the trusted one.
//!
//! Leaves to the caller: reading and writing files, the time at which a certificate is replaced, the number of handshakes at a time, and which thread serves a connection.
//!
//! Cost: a handshake costs each end a key exchange and a signature or its verification, far more than a request.
//!
//! Proof: `tests/it` makes certificates and connects both ends in memory, with one test for each cause.

mod acceptor;
mod authority;
mod certificates;
mod client_certificate;
mod client_hello;
mod client_key;
mod client_tls;
mod connector;
mod error;
mod fingerprint;
mod handshake;
mod host_certificate;
mod identity;
mod name;
mod own_ca;
mod peer;
mod pinned;
mod roots;
mod server_tls;
mod setup;
mod trust;
mod visitor_tls;

pub use acceptor::Acceptor;
pub use authority::{Authority, AuthorityError, Issued, MAX_AUTHORITY_BYTES, SERVER_NAME};
pub use certificates::Certificates;
pub use client_certificate::{ClientCertificate, ProvedCertificate};
pub use client_hello::{ClientHello, InvalidHello, Opening, OpeningError};
pub use client_key::ClientKey;
pub use client_tls::ClientTls;
pub use connector::Connector;
pub use error::{Cause, TlsError};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use handshake::ClientHandshake;
pub use host_certificate::{HostCertificate, HostCertificateError};
pub use identity::{Identity, IdentityError};
pub use name::{NameError, TlsName};
pub use own_ca::OwnCa;
pub use peer::Peer;
pub use pinned::WrongFingerprint;
pub use roots::{Roots, RootsError};
pub use server_tls::{ClientCertificates, ServerTls};
pub use setup::SetupError;
pub use trust::{Trust, client_config};
pub use visitor_tls::{Secured, TimeLimit, VisitorAcceptor};
