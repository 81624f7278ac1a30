//! Why an exchange over HTTP/2 ended early.

use adit_link::Failure;
use h2::Reason;

use crate::request::broken::Broken;

/// Why an exchange ended before its answer was whole.
pub(super) enum Lost {
    Broken(Broken),
    /// The service has not looked at the request.
    Unseen(String),
    /// The service has reset the stream.
    Reset(Reason, String),
    /// The header lines of the answer, or its trailers, are more than cross (P-2.10).
    TooLarge(String),
}

impl Lost {
    /// What an error of h2 means. `what` has happened, in words.
    pub(super) fn of(error: &h2::Error, what: &str) -> Self {
        let why = explain(what, error);
        match error.reason() {
            // Only those streams fail with it that are behind the last one the service has taken (RFC 9113, 6.8).
            Some(_) if error.is_go_away() && error.is_remote() => Self::Unseen(why),
            Some(Reason::REFUSED_STREAM) if error.is_remote() => Self::Unseen(why),
            Some(reason) if error.is_reset() && error.is_remote() => Self::Reset(reason, why),
            _ => Broken::aborted(why).into(),
        }
    }
}

impl From<Broken> for Lost {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self::Broken(failure.into())
    }
}

pub(super) fn explain(what: &str, error: &h2::Error) -> String {
    format!("{what}: {error}")
}
