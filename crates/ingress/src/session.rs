//! A TCP connection or a UDP flow of a visitor: known by the port it came to, for it names no host.

use std::{net::SocketAddr, time::Instant};

use adit_codec::{Open, ProtocolType, Side};
use adit_link::{Failure, Reason};
use uuid::Uuid;

use crate::{
    director::Destination,
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
    pub(crate) fn new(protocol: ProtocolType, peer: SocketAddr, local: SocketAddr) -> Self {
        Self {
            uuid: new_uuid(),
            protocol,
            visitor: Visitor::new(peer),
            local,
            started: Instant::now(),
        }
    }

    /// What its opening message carries.
    pub(crate) fn open<'a>(&'a self, destination: &'a Destination) -> Open<&'a str> {
        Open {
            request_uuid: *self.uuid.as_bytes(),
            tunnel: &destination.tunnel,
            revision: destination.revision,
            visitor: self.visitor.as_str(),
            ..Open::default()
        }
    }
}

/// Accounts for one session, from its first byte to its end: whoever holds it last drops it, and then its line is
/// written. Until something else is said, the visitor left.
pub(crate) struct SessionAccess {
    pub(crate) session: Session,
    route: Option<(adit_auth::Grant, Side)>,
    reason: Option<Reason>,
    /// From the visitor.
    pub(crate) received_bytes: u64,
    /// To the visitor.
    pub(crate) sent_bytes: u64,
}

impl SessionAccess {
    pub(crate) const fn new(session: Session) -> Self {
        Self {
            session,
            route: None,
            reason: Some(Reason::Cancelled),
            received_bytes: 0,
            sent_bytes: 0,
        }
    }

    pub(crate) fn on_route(&mut self, grant: adit_auth::Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// Both directions have come to their ends.
    pub(crate) fn on_end(&mut self) {
        self.reason = None;
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
    }

    /// Why it failed, as it stands.
    pub(crate) const fn reason(&self) -> Option<Reason> {
        self.reason
    }
}

impl Drop for SessionAccess {
    fn drop(&mut self) {
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
            request_id = %self.session.uuid,
            protocol = self.session.protocol.as_str(),
            opener,
            user = grant.map_or("", |g| g.user().as_str()),
            client = grant.map_or("", |g| g.client().as_str()),
            tunnel = grant.and_then(|g| g.tunnel()).map_or("", |t| t.as_str()),
            revision = grant.map_or(0, adit_auth::Grant::revision),
            visitor = %self.session.visitor.as_str(),
            port = self.session.local.port(),
            reason = self.reason.map_or("", Reason::as_str),
            bytes_in = self.received_bytes,
            bytes_out = self.sent_bytes,
            duration = ?self.session.started.elapsed(),
        );
    }
}
