//! Why a layer does not admit a visitor, and what the visitor receives.

use std::{borrow::Cow, time::Duration};

use adit_link::{Failure, Reason};
use http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};

use crate::forward::local_response::LocalResponse;

/// Why a layer does not admit a visitor (P-15.2). The visitor receives the error response of the failure, with the changes here.
/// A session of TCP or UDP receives nothing.
#[derive(Debug, Clone)]
pub struct Denial {
    failure: Failure,
    status: Option<StatusCode>,
    headers: Vec<(HeaderName, HeaderValue)>,
    response: Option<Box<LocalResponse>>,
    counts_for_bans: bool,
}

impl Denial {
    /// A denial with this reason. The detail is shown to the visitor.
    pub fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            failure: Failure::new(reason, detail),
            status: None,
            headers: Vec::new(),
            response: None,
            counts_for_bans: true,
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

    /// The visitor receives this response instead of an error response. A call of gRPC receives the status of the
    /// failure.
    #[must_use]
    pub fn with_response(mut self, response: LocalResponse) -> Self {
        self.response = Some(Box::new(response));
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

    /// The error response with the header lines of the denial.
    pub(super) fn change(&self, mut response: LocalResponse) -> LocalResponse {
        for (name, value) in &self.headers {
            response = response.with_only_header(name.clone(), value.clone());
        }
        response
    }

    /// The status, if it is not that of the reason.
    pub(super) const fn status(&self) -> Option<StatusCode> {
        self.status
    }

    /// The response of [`Denial::with_response`].
    pub(super) fn response(&self) -> Option<&LocalResponse> {
        self.response.as_deref()
    }

    /// The failure, for a session.
    pub(crate) fn into_failure(self) -> Failure {
        self.failure
    }
}
