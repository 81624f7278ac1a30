//! Why a server cannot start.

use std::{io, net::SocketAddr};

use adit_tls::SetupError;
use thiserror::Error;

use crate::{
    clients_tls::TlsSetupError, directory::RuleError, forward_auth::ForwardAuthError,
    upstream::UpstreamError,
};

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is in use, or not one of this machine.
    #[error("cannot listen for {what} on {addr}: {error}")]
    Bind {
        /// `clients`, `visitors` or `HTTPS visitors`.
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
    /// The port for HTTPS visitors has no TLS.
    #[error("HTTPS for visitors: {0}")]
    Https(SetupError),
    /// Certificates cannot be obtained from a CA.
    #[error("certificates over ACME (`server.https.acme`): {0}")]
    Acme(String),
    /// What has been used of quotas cannot be read.
    #[error("{0}")]
    Usage(String),
    /// A rule is invalid.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// An upstream is invalid.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A provider of forward auth cannot be used.
    #[error(transparent)]
    ForwardAuth(#[from] ForwardAuthError),
    /// The system could not start a thread.
    #[error("cannot start a data thread: {0}")]
    Thread(io::Error),
}
