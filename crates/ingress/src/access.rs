//! The account of one request.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use adit_auth::Grant;
use adit_codec::{ProtocolType, Side};
use adit_link::{Failure, Reason};
use adit_trace::{Edge, Observer, Phase, Record};
use http::{HeaderMap, StatusCode, Version, request::Parts};
use uuid::Uuid;

use crate::{
    connection::Connection,
    failure_log::log_failure,
    grpc,
    http::Http,
    parked::{Held, Parked},
    phases::Phases,
    pump::Progress,
    target::{Target, path_of},
    visit::{Visit, protocol, traceparent},
};

/// Accounts for one request, from its head to the end of its answer or to where it broke off: whoever holds it last
/// drops it, and then the observer is told. Until something else is said, the visitor left.
pub(crate) struct Access {
    http: Arc<Http>,
    connection: Arc<Connection>,
    pub(crate) visit: Visit,
    pub(crate) phases: Phases,
    route: Option<(Grant, Side)>,
    status: Option<StatusCode>,
    grpc_status: Option<u16>,
    reason: Option<Reason>,
    /// Tries on other clients after the first.
    pub(crate) retries: u8,
    /// The service may change to another protocol, of those that the visitor offers.
    pub(crate) may_switch: bool,
    answered: Option<Instant>,
    /// What has been read of the visitor's body before it was pumped.
    pub(crate) received_bytes: u64,
    /// How far its pump is, where it has one.
    pub(crate) pumped: Option<Arc<Progress>>,
    pub(crate) sent_bytes: u64,
    /// The answer in h2's hands, over HTTP/2.
    pub(crate) parked: Option<Arc<Parked>>,
}

impl Access {
    pub(crate) fn new(http: Arc<Http>, connection: Arc<Connection>, visit: Visit) -> Self {
        let open = http.counters.requests_open(visit.protocol);
        open.fetch_add(1, Ordering::Relaxed);
        connection.open.fetch_add(1, Ordering::Relaxed);
        let observer = http.admission.observer();
        let mut phases = Phases::of(&**observer, traceparent(&visit.headers));
        phases.add(Phase::Accept, visit.started);
        Self {
            http,
            connection,
            visit,
            phases,
            route: None,
            status: None,
            grpc_status: None,
            reason: Some(Reason::Cancelled),
            retries: 0,
            may_switch: false,
            answered: None,
            received_bytes: 0,
            pumped: None,
            sent_bytes: 0,
            parked: None,
        }
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Where it goes, and which side opened it: that stands in the logs of both (P-12.3).
    pub(crate) fn on_route(&mut self, grant: Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// Whether the try before went to the client of this grant.
    pub(crate) fn was_led_to(&self, grant: &Grant) -> bool {
        let route = self.route.as_ref();
        route.is_some_and(|(before, _)| before.client() == grant.client())
    }

    /// What the exchange of a try is to hold. The try before is forgotten.
    pub(crate) fn park(&mut self) -> Option<Held> {
        // An HTTP/1 connection has one answer at a time, and a timer on its writes.
        self.parked =
            (self.visit.version == Version::HTTP_2).then(|| Parked::new(self.connection.clone()));
        self.parked.as_ref().map(Parked::held)
    }

    /// The head of the answer goes out.
    pub(crate) fn on_answer(&mut self, status: StatusCode, headers: &HeaderMap) {
        let now = Instant::now();
        self.status = Some(status);
        self.answered = Some(now);
        self.phases.answer(now);
        self.on_trailers(headers);
    }

    /// The trailers of the answer go out, or its head, in which they may stand.
    pub(crate) fn on_trailers(&mut self, trailers: &HeaderMap) {
        if self.visit.protocol == ProtocolType::Grpc {
            self.grpc_status = grpc::status_of(trailers).or(self.grpc_status);
        }
    }

    /// All of the answer has gone out.
    pub(crate) fn on_end(&mut self) {
        self.reason = None;
    }

    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        self.reason = Some(failure.reason);
        let (uuid, visitor) = (&self.visit.uuid, self.visit.visitor.as_str());
        log_failure(failure, uuid, visitor, self.route.as_ref());
    }

    fn tell(&self, observer: &dyn Observer, ended: Instant) {
        let pumped = self.pumped.as_ref().map_or(0, |pump| pump.received_bytes());
        let (visit, visitor) = (&self.visit, &self.visit.visitor);
        let (came_to, started) = (visitor.local_port(), visit.started);
        let route = self.route.as_ref();
        let timeline = self.phases.timeline();
        let needs_details = timeline.is_some() || observer.needs_details();
        observer.on_end(&Record {
            protocol: visit.protocol.as_str(),
            request_uuid: visit.uuid.into_bytes(),
            scheme: visit.scheme.as_str(),
            method: visit.method.as_str(),
            host: if needs_details { visit.host() } else { "" },
            path: if needs_details { visit.path.path() } else { "" },
            version: version(visit.version),
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc_status: self.grpc_status,
            reason: self.reason.map(Reason::as_str),
            received_bytes: self.received_bytes + pumped,
            sent_bytes: self.sent_bytes,
            retries: self.retries.into(),
            answered: self.answered,
            timeline,
            ..blank(route, visitor.as_str(), came_to, started, ended)
        });
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        if self.reason == Some(Reason::Cancelled) && self.connection.is_stalled() {
            self.reason = Some(Reason::Stalled);
        }
        let counters = &self.http.counters;
        if let Some(reason) = self.reason {
            counters.count_failure(reason);
        }
        let observer = self.http.admission.observer();
        if observer.is_enabled() {
            let ended = Instant::now();
            self.phases.finish(ended);
            self.tell(&**observer, ended);
        }
        let open = counters.requests_open(self.visit.protocol);
        open.fetch_sub(1, Ordering::Relaxed);
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells of a request that could be read in two ways and was carried nowhere, and of the answer to it.
pub(crate) fn tell_refused(
    observer: &dyn Observer,
    connection: &Connection,
    (parts, target): (&Parts, Option<&Target>),
    uuid: Uuid,
    reason: Reason,
    answer: &http::Response<bytes::Bytes>,
) {
    if !observer.is_enabled() {
        return;
    }
    let now = Instant::now();
    let protocol = protocol(parts);
    let grpc_status = (protocol == ProtocolType::Grpc).then(|| grpc::status_of(answer.headers()));
    let visitor = &connection.visitor;
    let path = path_of(target, &parts.uri);
    observer.on_end(&Record {
        protocol: protocol.as_str(),
        request_uuid: uuid.into_bytes(),
        scheme: connection.scheme.as_str(),
        method: parts.method.as_str(),
        host: parts.uri.host().unwrap_or_default(),
        path: &path,
        version: version(parts.version),
        status: answer.status().as_u16(),
        grpc_status: grpc_status.flatten(),
        reason: Some(reason.as_str()),
        sent_bytes: answer.body().len() as u64,
        answered: Some(now),
        ..blank(None, visitor.as_str(), visitor.local_port(), now, now)
    });
}

/// Records a request whose head could not be read, with status and length of the answer to it. A request of HTTP/2 has
/// none.
pub(crate) fn tell_unreadable(
    observer: &dyn Observer,
    connection: &Connection,
    uuid: Uuid,
    reason: Reason,
    answer: Option<(u16, u64)>,
) {
    if !observer.is_enabled() {
        return;
    }
    let protocol_version = match answer {
        Some(_) => Version::HTTP_11,
        None => Version::HTTP_2,
    };
    let (started, now) = (connection.take_head_began(), Instant::now());
    let visitor = &connection.visitor;
    observer.on_end(&Record {
        protocol: ProtocolType::Http.as_str(),
        request_uuid: uuid.into_bytes(),
        scheme: connection.scheme.as_str(),
        version: version(protocol_version),
        status: answer.map_or(0, |(status, _)| status),
        reason: Some(reason.as_str()),
        sent_bytes: answer.map_or(0, |(_, bytes)| bytes),
        answered: answer.map(|_| now),
        ..blank(None, visitor.as_str(), visitor.local_port(), started, now)
    });
}

/// What every record of this side says.
pub(crate) fn blank<'a>(
    route: Option<&'a (Grant, Side)>,
    visitor: &'a str,
    port: u16,
    started: Instant,
    ended: Instant,
) -> Record<'a> {
    let grant = route.map(|(grant, _)| grant);
    Record {
        edge: Edge::Ingress,
        protocol: "",
        opener: match route {
            Some((_, Side::Server)) => "server",
            Some((_, Side::Client)) => "client",
            None => "",
        },
        request_uuid: [0; 16],
        user: grant.map_or("", |grant| grant.user().as_str()),
        group: grant.map_or("", |grant| grant.group().as_str()),
        client: grant.map_or("", |grant| grant.client().as_str()),
        tunnel: grant
            .and_then(Grant::tunnel)
            .map_or("", |tunnel| tunnel.as_str()),
        revision: grant.map_or(0, Grant::revision),
        visitor,
        scheme: "",
        method: "",
        host: "",
        port,
        path: "",
        version: "",
        status: 0,
        grpc_status: None,
        service: "",
        reason: None,
        received_bytes: 0,
        sent_bytes: 0,
        retries: 0,
        started,
        answered: None,
        ended,
        timeline: None,
    }
}

const fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_3 => "HTTP/3.0",
        _ => "",
    }
}
