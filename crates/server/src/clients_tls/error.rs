//! Why the clients' port has no TLS.

use std::{io, path::PathBuf};

use adit_tls::{AuthorityError, SetupError};
use thiserror::Error;

/// Why the clients' port has no TLS.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsSetupError {
    /// There is no directory for the server's own CA.
    #[error(
        "no state directory for the certificates of clients' connections: start the server with its own --state-dir, or set \
         `server.tls` to a certificate, or to `off` for clear text"
    )]
    NoStateDir,
    /// The file of the CA cannot be read or written.
    #[error(
        "the server's own CA in {path}: {error}; point --state-dir at a directory that this user can write, or set \
         `server.tls` to a certificate, or to `off` for clear text"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// Other users can write the file of the CA.
    #[error("other users can write the server's own CA in {path}: run chmod 600 {path}")]
    Shared {
        /// The file.
        path: PathBuf,
    },
    /// The file of the CA is missing, but clients have been given its certificate.
    #[error(
        "the key of the server's own CA is missing: restore {path} from a copy, or remove {public} for a new CA, which no \
         client trusts yet"
    )]
    Lost {
        /// The missing file.
        path: PathBuf,
        /// The file with the certificate.
        public: PathBuf,
    },
    /// The file of the CA is not one that adit has written.
    #[error(
        "the server's own CA in {path}: {error}; restore the file from a copy, or remove it and ca.crt for a new CA, which \
         no client trusts yet"
    )]
    Authority {
        /// The file.
        path: PathBuf,
        /// The error.
        error: AuthorityError,
    },
    /// The library does not accept the certificate.
    #[error(transparent)]
    Setup(#[from] SetupError),
}
