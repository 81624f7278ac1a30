//! Why a server cannot start.

use std::{io, net::SocketAddr};

use thiserror::Error;

use crate::{clients_tls::TlsSetupError, directory::RuleError, upstream::UpstreamError};

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is in use, or not one of this machine.
    #[error("cannot listen for {what} on {addr}: {error}")]
    Bind {
        /// `clients` or `visitors`.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
    /// The tokens of the settings are invalid, or the store of credentials cannot be read.
    #[error("the credentials of clients cannot be used: {0}")]
    Identities(String),
    /// The clients' port has no TLS.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// A rule is invalid.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An upstream is invalid.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The system could not start a thread.
    #[error("cannot start a data thread: {0}")]
    Thread(io::Error),
}
