//! Why an exchange ended early.

use std::borrow::Cow;

use adit_codec::ResetCode;
use adit_link::Failure;

/// Why an exchange ended before its answer was whole.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Nobody waits for it any more: the visitor left, the link was lost.
    Gone,
    /// The peer is to be told.
    Reset(ResetCode, Cow<'static, str>),
    /// The connection ended before a single byte of the answer.
    Died(String),
}

impl Broken {
    pub(crate) fn aborted(why: impl Into<Cow<'static, str>>) -> Self {
        Self::Reset(ResetCode::ServiceAborted, why.into())
    }
}

impl From<Failure> for Broken {
    fn from(_: Failure) -> Self {
        Self::Gone
    }
}
