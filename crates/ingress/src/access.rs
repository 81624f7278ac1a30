//! One line for each request.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::Side;
use adit_link::{Failure, Reason};
use http::{StatusCode, Version};

use crate::{
    connection::Connection,
    http::Http,
    parked::{Held, Parked},
    visit::Visit,
};

/// Accounts for one request, from its head to the end of its answer or to where it broke off: whoever holds it last
/// drops it, and then its line is written. Until something else is said, the visitor left.
pub(crate) struct Access {
    http: Arc<Http>,
    connection: Arc<Connection>,
    pub(crate) visit: Visit,
    route: Option<(adit_auth::Grant, Side)>,
    status: Option<StatusCode>,
    reason: Option<Reason>,
    pub(crate) sent_bytes: u64,
    /// The answer in hyper's hands, over HTTP/2.
    pub(crate) parked: Option<Arc<Parked>>,
}

impl Access {
    pub(crate) fn new(http: Arc<Http>, connection: Arc<Connection>, visit: Visit) -> Self {
        http.counters.requests_open.fetch_add(1, Ordering::Relaxed);
        connection.open.fetch_add(1, Ordering::Relaxed);
        Self {
            http,
            connection,
            visit,
            route: None,
            status: None,
            reason: Some(Reason::Cancelled),
            sent_bytes: 0,
            parked: None,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Where it goes, and which side opened it: that stands in the logs of both (P-12.3).
    pub(crate) fn on_route(&mut self, grant: adit_auth::Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// What the exchange of a try is to hold. The try before is forgotten.
    pub(crate) fn park(&mut self) -> Option<Held> {
        // An HTTP/1 connection has one answer at a time, and a timer on its writes.
        self.parked =
            (self.visit.version == Version::HTTP_2).then(|| Parked::new(self.connection.clone()));
        self.parked.as_ref().map(Parked::held)
    }

    /// The head of the answer goes out.
    pub(crate) fn on_answer(&mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// All of the answer has gone out.
    pub(crate) fn on_end(&mut self) {
        self.reason = None;
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let counters = &self.http.counters;
        counters.requests_open.fetch_sub(1, Ordering::Relaxed);
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
        if self.reason == Some(Reason::Cancelled) && self.connection.is_stalled() {
            self.reason = Some(Reason::Stalled);
        }
        if let Some(reason) = self.reason {
            counters.count_failure(reason);
        }
        if !tracing::enabled!(target: "adit::access", tracing::Level::DEBUG) {
            return;
        }
        let grant = self.route.as_ref().map(|(grant, _)| grant);
        let opener = match self.route {
            Some((_, Side::Server)) => "server",
            Some((_, Side::Client)) => "client",
            None => "",
        };
        tracing::debug!(
            target: "adit::access",
            request_id = %self.visit.uuid,
            opener,
            user = grant.map_or("", |g| g.user().as_str()),
            client = grant.map_or("", |g| g.client().as_str()),
            tunnel = grant.and_then(|g| g.tunnel()).map_or("", |t| t.as_str()),
            revision = grant.map_or(0, adit_auth::Grant::revision),
            visitor = %self.visit.visitor.as_str(),
            method = %self.visit.method,
            host = self.visit.host(),
            path = self.visit.path.path(),
            status = self.status.map_or(0, |status| status.as_u16()),
            reason = self.reason.map_or("", Reason::as_str),
            bytes = self.sent_bytes,
            duration = ?self.visit.started.elapsed(),
        );
    }
}
