//! Why an exchange over HTTP/2 ends early.

use adit_link::Failure;
use h2::Reason;

use crate::forward::error::ForwardError;

/// Why an exchange ends before its response is complete.
pub(super) enum ExchangeError {
    Forward(ForwardError),
    /// The service has not processed the request.
    NotProcessed(String),
    /// The service has reset the stream.
    StreamReset(Reason, String),
    /// The header lines of the response, or its trailers, exceed the bounds of P-2.10.
    HeadersTooLarge(String),
}

impl ExchangeError {
    /// The meaning of an error of h2. `what` is the failure that it caused.
    pub(super) fn of(error: &h2::Error, what: &str) -> Self {
        let reason = describe(what, error);
        match error.reason() {
            // Only the streams after the last one that the service has processed fail with GOAWAY (RFC 9113, 6.8).
            Some(_) if error.is_go_away() && error.is_remote() => Self::NotProcessed(reason),
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Self::NotProcessed(reason),
            Some(code) if error.is_reset() && error.is_remote() => Self::StreamReset(code, reason),
            _ => ForwardError::service_aborted(reason).into(),
        }
    }
}

impl From<ForwardError> for ExchangeError {
    fn from(error: ForwardError) -> Self {
        Self::Forward(error)
    }
}

impl From<Failure> for ExchangeError {
    fn from(failure: Failure) -> Self {
        Self::Forward(failure.into())
    }
}

pub(super) fn describe(what: &str, error: &h2::Error) -> String {
    format!("{what}: {error}")
}
