//! The record of a TCP connection or a UDP flow.

use std::{sync::Arc, time::Instant};

use adit_auth::Grant;
use adit_codec::Side;
use adit_link::Reason;
use adit_trace::{Observer, Record, TraceContext};

use crate::forward::{
    failure_log::log_failure,
    phases::Phases,
    record::{Outcome, base_record},
    session::Session,
};

/// The record of one session, from its first byte to its end: [`SessionRecord::finish`] emits it.
pub(crate) struct SessionRecord {
    pub(crate) session: Session,
    pub(crate) phases: Phases,
    observer: Arc<dyn Observer>,
    route: Option<(Grant, Side)>,
    is_finished: bool,
    /// Attempts on other clients after the first.
    pub(crate) retries: u32,
    responded: Option<Instant>,
    /// Bytes from the visitor.
    pub(crate) received_bytes: u64,
    /// Bytes to the visitor.
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
            is_finished: false,
            retries: 0,
            responded: None,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// Starts an attempt. Returns the trace context for its opening message.
    pub(crate) fn begin_attempt(&mut self) -> Option<TraceContext> {
        self.phases.transit(&*self.observer)
    }

    pub(crate) fn on_route(&mut self, grant: Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// Whether the last attempt was on the client of this grant.
    pub(crate) fn last_attempt_was_on(&self, grant: &Grant) -> bool {
        let route = self.route.as_ref();
        route.is_some_and(|(before, _)| before.client() == grant.client())
    }

    /// Called when the other end has connected to the service.
    pub(crate) fn on_accepted(&mut self) {
        if self.phases.timeline().is_some() {
            self.phases.respond(Instant::now());
        }
    }

    /// Adds bytes that have been sent to the visitor.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.responded.get_or_insert_with(Instant::now);
        self.sent_bytes += bytes;
    }

    /// Called when the session is over: logs a failure, and passes the record to the observer. Only the first call has
    /// an effect.
    ///
    /// Returns the reason of a failure, on the first call.
    pub(crate) fn finish(&mut self, outcome: Outcome<'_>) -> Option<Reason> {
        if std::mem::replace(&mut self.is_finished, true) {
            return None;
        }
        let reason = match outcome {
            Outcome::Completed => None,
            Outcome::Failed(failure) => {
                let (uuid, visitor) = (&self.session.uuid, self.session.visitor.as_str());
                log_failure(failure, uuid, visitor, self.route.as_ref());
                Some(failure.reason)
            }
            Outcome::Cancelled => Some(Reason::Cancelled),
        };
        if self.observer.is_enabled() {
            let ended = Instant::now();
            self.phases.finish(ended);
            self.emit(reason, ended);
        }
        reason
    }

    fn emit(&self, reason: Option<Reason>, ended: Instant) {
        let session = &self.session;
        let (visitor, port) = (session.visitor.as_str(), session.local.port());
        let route = self.route.as_ref();
        self.observer.on_end(&Record {
            protocol: session.protocol.as_str(),
            request_uuid: session.uuid.into_bytes(),
            reason: reason.map(Reason::as_str),
            received_bytes: self.received_bytes,
            sent_bytes: self.sent_bytes,
            retries: self.retries,
            responded: self.responded,
            timeline: self.phases.timeline(),
            ..base_record(route, visitor, port, session.started, ended)
        });
    }
}

impl Drop for SessionRecord {
    fn drop(&mut self) {
        // This has an effect only for a session whose future was dropped early. Every other path has finished the
        // record.
        self.finish(Outcome::Cancelled);
    }
}
