//! A TCP connection or a UDP flow of a visitor: known by the port it came to, for it names no host.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use adit_codec::{Open, ProtocolType, Side};
use adit_link::{Failure, Reason};
use adit_trace::{Observer, Record, TraceContext};
use uuid::Uuid;

use crate::{
    access::blank,
    director::Destination,
    failure_log::log_failure,
    phases::Phases,
    visit::{Visitor, new_uuid},
};

/// A TCP connection or a UDP flow while it is being admitted.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its name on both sides: a UUIDv7.
    pub uuid: Uuid,
    /// TCP or UDP.
    pub protocol: ProtocolType,
    /// Who came.
    pub visitor: Visitor,
    /// The address that the visitor came to. Its port is what a tunnel holds.
    pub local: SocketAddr,
    /// When it began.
    pub started: Instant,
}

impl Session {
    pub(crate) fn new(
        protocol: ProtocolType,
        peer: SocketAddr,
        local: SocketAddr,
        started: Instant,
    ) -> Self {
        Self {
            uuid: new_uuid(),
            protocol,
            visitor: Visitor::new(peer),
            local,
            started,
        }
    }

    /// What its opening message carries; `traceparent` is empty where it is not traced.
    pub(crate) fn open<'a>(
        &'a self,
        destination: &'a Destination,
        traceparent: &'a str,
    ) -> Open<&'a str> {
        Open {
            request_uuid: *self.uuid.as_bytes(),
            tunnel: &destination.tunnel,
            revision: destination.revision,
            visitor: self.visitor.as_str(),
            traceparent,
            ..Open::default()
        }
    }
}

/// Accounts for one session, from its first byte to its end: whoever holds it last drops it, and then the observer is
/// told. Until something else is said, the visitor left.
pub(crate) struct SessionAccess {
    pub(crate) session: Session,
    pub(crate) phases: Phases,
    observer: Arc<dyn Observer>,
    route: Option<(adit_auth::Grant, Side)>,
    reason: Option<Reason>,
    /// Tries on other clients after the first.
    pub(crate) retries: u32,
    answered: Option<Instant>,
    /// From the visitor.
    pub(crate) received_bytes: u64,
    /// To the visitor.
    pub(crate) sent_bytes: u64,
}

impl SessionAccess {
    pub(crate) fn new(session: Session, observer: &Arc<dyn Observer>) -> Self {
        // Neither TCP nor UDP has a place for a context.
        Self {
            phases: Phases::of(&**observer, ""),
            observer: observer.clone(),
            session,
            route: None,
            reason: Some(Reason::Cancelled),
            retries: 0,
            answered: None,
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    /// The context of a try that begins, for its opening message.
    pub(crate) fn transit(&mut self) -> Option<TraceContext> {
        self.phases.transit(&*self.observer)
    }

    pub(crate) fn on_route(&mut self, grant: adit_auth::Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// The other end has said that the service is there.
    pub(crate) fn on_accepted(&mut self) {
        if self.phases.timeline().is_some() {
            self.phases.answer(Instant::now());
        }
    }

    /// These many bytes have gone to the visitor.
    pub(crate) fn on_sent(&mut self, bytes: u64) {
        self.answered.get_or_insert_with(Instant::now);
        self.sent_bytes += bytes;
    }

    /// Both directions have come to their ends.
    pub(crate) fn on_end(&mut self) {
        self.reason = None;
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
        let (uuid, visitor) = (&self.session.uuid, self.session.visitor.as_str());
        log_failure(failure, uuid, visitor, self.route.as_ref());
    }

    /// Why it failed, as it stands.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl Drop for SessionAccess {
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
            answered: self.answered,
            timeline: self.phases.timeline(),
            ..blank(route, visitor, port, session.started, ended)
        });
    }
}
