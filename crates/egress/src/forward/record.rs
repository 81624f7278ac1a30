//! The record of one request: its properties and its outcome, which are reported to the observer.

use std::sync::{Arc, atomic::Ordering};

use adit_codec::ResetCode;
use adit_link::{Failure, Reason, SendHalf};
use adit_trace::{Edge, Observer, Record, TraceContext};

use super::{
    payload_counts::PayloadCounts,
    request_info::{RequestInfo, RequestSummary},
    reset::reset,
    service::Service,
    timeline::RequestTimeline,
};

/// The name of the header line with a trace's context.
pub(crate) const TRACEPARENT: &[u8] = b"traceparent";

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The response was forwarded to its end.
    Completed,
    Failed(Reason),
}

impl Outcome {
    /// The visitor left, or the link was lost.
    pub(crate) const CANCELLED: Self = Self::Failed(Reason::Cancelled);

    /// The outcome when this side resets the request: its meaning at the other end.
    pub(crate) fn of_reset(code: ResetCode) -> Self {
        Self::of_failure(&Failure::of_reset(code, b""))
    }

    pub(crate) const fn of_failure(failure: &Failure) -> Self {
        Self::Failed(failure.reason)
    }

    /// The outcome when the opener has stopped waiting, for the reason that the exchange has recorded.
    pub(crate) fn of_abandoned(send: &SendHalf) -> Self {
        let failure = send.failure();
        failure.map_or(Self::CANCELLED, |failure| Self::of_failure(&failure))
    }
}

/// The values that are recorded of one request while it is forwarded. [`RequestRecord::finish`] reports them; a record
/// that is dropped before that (its task was cancelled with the runtime) is reported as cancelled.
pub(crate) struct RequestRecord<H: RequestInfo> {
    pub(crate) head: H,
    pub(crate) service: Arc<Service>,
    pub(crate) timeline: RequestTimeline,
    pub(crate) payload: PayloadCounts,
}

impl<H: RequestInfo> RequestRecord<H> {
    pub(crate) fn new(head: H, service: Arc<Service>, timeline: RequestTimeline) -> Self {
        service.running.fetch_add(1, Ordering::Relaxed);
        Self {
            head,
            service,
            timeline,
            payload: PayloadCounts::default(),
        }
    }

    /// The `traceparent` that the service receives instead of the visitor's: the context of this hop, or that of the
    /// opening message if the request is not traced here. `None` without a context, or if the tunnel's settings add a
    /// header of this name.
    pub(crate) fn traceparent(&self) -> Option<String> {
        if self.service.replaces(TRACEPARENT) {
            return None;
        }
        match self.timeline.context() {
            Some(context) => Some(context.to_string()),
            None => {
                let sent: &str = &self.head.summary().open.traceparent;
                let is_valid = !sent.is_empty() && sent.parse::<TraceContext>().is_ok();
                is_valid.then(|| sent.to_owned())
            }
        }
    }

    /// Resets the request with a reason, and reports it. If the exchange has failed before, the first failure is
    /// reported.
    pub(crate) fn reset(self, send: SendHalf, code: ResetCode, reason: &str) {
        let earlier = send.failure();
        let outcome = earlier.map_or_else(
            || Outcome::of_reset(code),
            |failure| Outcome::of_failure(&failure),
        );
        reset(send, self.head.summary().open, code, reason);
        self.finish(outcome);
    }

    /// Called when the request has ended: reports it to the observer.
    pub(crate) fn finish(mut self, outcome: Outcome) {
        self.report(outcome);
    }

    fn report(&mut self, outcome: Outcome) {
        let Self {
            head,
            service,
            timeline,
            payload,
        } = self;
        let observer = &*service.observer;
        let summary = head.summary();
        report(
            observer,
            &summary,
            &service.endpoint,
            timeline,
            payload,
            outcome,
        );
    }
}

impl<H: RequestInfo> Drop for RequestRecord<H> {
    fn drop(&mut self) {
        self.service.running.fetch_sub(1, Ordering::Relaxed);
        // The request was not finished: its task was dropped.
        if self.timeline.is_running() {
            self.report(Outcome::CANCELLED);
        }
    }
}

/// Reports a request that has ended. `service` is the address that served it; empty if it was refused before.
pub(crate) fn report(
    observer: &dyn Observer,
    request: &RequestSummary<'_>,
    service: &str,
    timeline: &mut RequestTimeline,
    payload: &PayloadCounts,
    outcome: Outcome,
) {
    let Some(timeline) = timeline.end_now() else {
        return;
    };
    let needs_details = timeline.phases.is_some() || observer.needs_details();
    let (host, port) = if needs_details {
        request.host_and_port()
    } else {
        ("", 0)
    };
    observer.on_end(&Record {
        edge: Edge::Egress,
        protocol: request.protocol.as_str(),
        opener: timeline.opener,
        request_uuid: request.open.request_uuid,
        user: &timeline.owner.user,
        group: &timeline.owner.group,
        client: &timeline.owner.client,
        tunnel: &request.open.tunnel,
        revision: request.open.revision,
        visitor: &request.open.visitor,
        scheme: request.scheme(),
        method: request.method(),
        host,
        port,
        path: if needs_details { request.path() } else { "" },
        version: "",
        status: timeline.status,
        grpc_status: timeline.grpc_status,
        service,
        reason: match outcome {
            Outcome::Completed => None,
            Outcome::Failed(reason) => Some(reason.as_str()),
        },
        received_bytes: payload.visitor_sent(),
        sent_bytes: payload.visitor_received(),
        retries: 0,
        started: timeline.started,
        responded: timeline.responded,
        ended: timeline.ended,
        timeline: timeline.phases,
    });
}
