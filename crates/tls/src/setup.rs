//! Why TLS cannot be set up.

use rustls::Error as RustlsError;
use thiserror::Error;

/// Why no handshake can succeed with a configuration.
#[derive(Debug, Clone, Error)]
pub enum SetupError {
    /// The name of the peer is no name for TLS.
    #[error("{0:?} is not a name that a certificate can be valid for; set `server_name`")]
    Name(String),
    /// The library does not accept the configuration, or the system has no CA certificates.
    #[error("TLS cannot be set up: {0}; are the system's CA certificates installed?")]
    Config(#[from] RustlsError),
    /// The certificates of the clients' CAs cannot be used.
    #[error("the CA certificates for clients cannot be used: {0}")]
    ClientCa(String),
}
