//! Why a layer does not admit a visitor, and what the visitor receives.

use std::{borrow::Cow, time::Duration};

use adit_link::{Failure, Reason};
use http::{
    HeaderName, HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};

use crate::forward::local_response::LocalResponse;

/// Why a layer does not admit a visitor (P-15.2). The visitor receives the error response of the failure, with the changes here.
/// A session of TCP or UDP receives nothing.
#[derive(Debug, Clone)]
pub struct Denial {
    failure: Failure,
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// What the visitor can log in with (RFC 9110, 11.6.1).
    challenges: Vec<HeaderValue>,
    response: Option<Box<LocalResponse>>,
    counts_for_bans: bool,
    missing: Missing,
    closes: bool,
}

/// What a visitor lacks that is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Missing {
    /// Nothing that it could prove changes the verdict.
    Nothing,
    /// Something that a visitor has or has not, such as an address.
    Property,
    /// Credentials, which it can send.
    Credentials,
    /// It is not known whether it lacks anything: its credentials could not be checked.
    Check,
}

impl Denial {
    /// A denial with this reason. The detail is shown to the visitor.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure: Failure::new(reason, detail),
            status: None,
            headers: Vec::new(),
            challenges: Vec::new(),
            response: None,
            counts_for_bans: true,
            missing: Missing::Nothing,
            closes: false,
        }
    }

    /// A visitor above a rate: status 429, and the time after which the next request is admitted.
    pub fn above_rate(detail: impl Into<Cow<'static, str>>, retry_after: Duration) -> Self {
        let denial = Self::new(Reason::Limit, detail).with_status(StatusCode::TOO_MANY_REQUESTS);
        denial.retry_after(retry_after)
    }

    /// Another status than that of the reason.
    #[must_use]
    pub const fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// Sets `retry-after`, in whole seconds, at least one.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let whole = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, whole.max(1).into())
    }

    /// Sets a header line of the response.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The visitor lacks something that it may prove to another layer instead.
    #[must_use]
    pub(crate) fn unproven(mut self) -> Self {
        self.missing = self.missing.max(Missing::Property);
        self
    }

    /// The visitor can log in with these credentials.
    #[must_use]
    pub(crate) fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenges.push(challenge);
        self.missing = Missing::Credentials;
        self
    }

    /// The credentials of the visitor could not be checked.
    #[must_use]
    pub(crate) const fn unchecked(mut self) -> Self {
        self.missing = Missing::Check;
        self
    }

    /// The connection is closed after the response, if it is HTTP/1.
    #[must_use]
    pub(crate) const fn with_close(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The denial of a visitor that has not met `earlier` layers either, any of which could have admitted it (P-15.3). It
    /// receives the response of the layer that it can do most about, with the challenges of all.
    #[must_use]
    pub(crate) fn after(self, earlier: Self) -> Self {
        let mut challenges = earlier.challenges.clone();
        for challenge in &self.challenges {
            if !challenges.contains(challenge) {
                challenges.push(challenge.clone());
            }
        }
        let is_earlier = self.missing != Missing::Nothing && earlier.missing > self.missing;
        let (mut denial, other) = if is_earlier {
            (earlier, self)
        } else {
            (self, earlier)
        };
        denial.challenges = match denial.missing {
            Missing::Nothing | Missing::Check => Vec::new(),
            Missing::Property | Missing::Credentials => challenges,
        };
        // A visitor that is asked to log in instead has not failed to be at the right address.
        let is_failure = other.missing != Missing::Property || denial.missing == Missing::Property;
        denial.counts_for_bans |= other.counts_for_bans && is_failure;
        denial
    }

    /// The visitor receives this response instead of an error response. A call of gRPC receives the status of the
    /// failure.
    #[must_use]
    pub fn with_response(mut self, response: LocalResponse) -> Self {
        self.response = Some(Box::new(response));
        self.missing = Missing::Credentials;
        self
    }

    /// The visitor has done nothing that counts for a ban: it has not tried to log in yet, for example.
    #[must_use]
    pub const fn without_ban(mut self) -> Self {
        self.counts_for_bans = false;
        self
    }

    /// The failure as which the request is recorded.
    pub const fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether the denial counts for a ban of the visitor's address.
    pub const fn counts_for_bans(&self) -> bool {
        self.counts_for_bans
    }

    /// The response to the visitor: that of [`Denial::with_response`], which calls of gRPC do not receive, or `error` with the
    /// changes of the denial.
    pub(super) fn response(
        &self,
        is_call: bool,
        error: impl FnOnce() -> LocalResponse,
    ) -> LocalResponse {
        let mut response = match &self.response {
            Some(response) if !is_call => LocalResponse::clone(response),
            _ => {
                let mut response = error();
                for (name, value) in &self.headers {
                    response = response.with_only_header(name.clone(), value.clone());
                }
                response
            }
        };
        // A response to log in by other means is not one to a challenge.
        if is_call || !response.status().is_redirection() {
            for challenge in &self.challenges {
                response = response.with_header(WWW_AUTHENTICATE, challenge.clone());
            }
        }
        response.with_close(self.closes)
    }

    /// The status, if it is not that of the reason.
    pub(super) const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The failure, for a session.
    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }
}
