//! Why a request ends before its response is complete.

use std::borrow::Cow;

use adit_codec::ResetCode;
use adit_link::Failure;

/// Why a request ends before its response is complete.
#[derive(Debug)]
pub(crate) enum ForwardError {
    /// The opener does not wait for the response any more: the visitor left, or the link was lost.
    Abandoned,
    /// The request is reset with this code and reason.
    Reset(ResetCode, Cow<'static, str>),
    /// The connection ended before the first byte of a response.
    ConnectionLost(String),
}

impl ForwardError {
    /// The service closed early, or sent something that is not a valid response.
    pub(crate) fn service_aborted(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::Reset(ResetCode::ServiceAborted, reason.into())
    }
}

impl From<Failure> for ForwardError {
    fn from(_: Failure) -> Self {
        Self::Abandoned
    }
}
