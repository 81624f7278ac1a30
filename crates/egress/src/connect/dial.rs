//! Opens TCP connections to services.

use std::{io, time::Duration};

use adit_net::{HostPort, Stream, connect};
use thiserror::Error;

/// Why no connection to a service was made. Its text is reported to the opener of the request, and logged.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// No process listens at the address.
    #[error("nothing listens on {address} (connection refused)")]
    Refused {
        address: HostPort,
        #[source]
        error: io::Error,
    },
    /// The name cannot be resolved, or the system reports another failure.
    #[error("cannot connect to {address}: {error}")]
    Failed {
        address: HostPort,
        #[source]
        error: io::Error,
    },
    /// There was neither a connection nor a refusal within the timeout.
    #[error("no connection to {address} within {timeout:?}")]
    TimedOut {
        address: HostPort,
        timeout: Duration,
    },
}

/// Connects within `timeout`.
///
/// # Errors
/// [`DialError`].
///
/// # Cancel safety
/// If it is dropped, it closes the connection that it was opening.
pub(crate) async fn dial(address: &HostPort, timeout: Duration) -> Result<Stream, DialError> {
    match tokio::time::timeout(timeout, connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(DialError::new(address.clone(), error)),
        Err(_) => Err(DialError::TimedOut {
            address: address.clone(),
            timeout,
        }),
    }
}

impl DialError {
    fn new(address: HostPort, error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused { address, error },
            _ => Self::Failed { address, error },
        }
    }
}
