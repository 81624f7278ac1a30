//! The record of a TCP connection or a UDP flow.

use std::{sync::Arc, time::Instant};

use adit_auth::Grant;
use adit_codec::Side;
use adit_link::{Failure, Reason};
use adit_trace::{Observer, Record, TraceContext};

use crate::forward::{
    failure_log::log_failure, phases::Phases, record::base_record, session::Session,
};

/// The record of one session, from its first byte to its end. The default outcome is `Cancelled`: the visitor left.
pub(crate) struct SessionRecord {
    pub(crate) session: Session,
    pub(crate) phases: Phases,
    observer: Arc<dyn Observer>,
    route: Option<(Grant, Side)>,
    reason: Option<Reason>,
    /// Attempts on other clients after the first.
    pub(crate) retries: u32,
    responded: Option<Instant>,
    /// From the visitor.
    pub(crate) received_bytes: u64,
    /// To the visitor.
    pub(crate) sent_bytes: u64,
}

impl SessionRecord {
    pub(crate) fn new(session: Session, observer: &Arc<dyn Observer>) -> Self {
        // Neither TCP nor UDP carries a trace context.
        Self {
            phases: Phases::of(&**observer, ""),
            observer: observer.clone(),
            session,
            route: None,
            reason: Some(Reason::Cancelled),
            retries: 0,
            responded: None,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// Starts an attempt: the trace context for its opening message.
    pub(crate) fn begin_attempt(&mut self) -> Option<TraceContext> {
        self.phases.transit(&*self.observer)
    }

    pub(crate) fn on_route(&mut self, grant: Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// The other end has connected to the service.
    pub(crate) fn on_accepted(&mut self) {
        if self.phases.timeline().is_some() {
            self.phases.respond(Instant::now());
        }
    }

    /// So many bytes have been sent to the visitor.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.responded.get_or_insert_with(Instant::now);
        self.sent_bytes += bytes;
    }

    /// Both directions have ended.
    pub(crate) fn on_end(&mut self) {
        self.reason = None;
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
        let (uuid, visitor) = (&self.session.uuid, self.session.visitor.as_str());
        log_failure(failure, uuid, visitor, self.route.as_ref());
    }

    /// The reason of a failure so far.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl Drop for SessionRecord {
    fn drop(&mut self) {
        if !self.observer.is_enabled() {
            return;
        }
        let ended = Instant::now();
        self.phases.finish(ended);
        let session = &self.session;
        let (visitor, port) = (session.visitor.as_str(), session.local.port());
        let route = self.route.as_ref();
        self.observer.on_end(&Record {
            protocol: session.protocol.as_str(),
            request_uuid: session.uuid.into_bytes(),
            reason: self.reason.map(Reason::as_str),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            retries: self.retries,
            answered: self.responded,
            timeline: self.phases.timeline(),
            ..base_record(route, visitor, port, session.started, ended)
        });
    }
}
