//! The record of one request.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use adit_auth::Grant;
use adit_codec::{ProtocolType, Side};
use adit_link::{Failure, Reason, parse_grpc_status};
use adit_trace::{Edge, Observer, Phase, Record};
use http::{HeaderMap, HeaderName, StatusCode, Version, request::Parts};
use uuid::Uuid;

use crate::forward::{
    buffered::{BufferedResponse, FailOnDrop},
    connection::Connection,
    context::HttpContext,
    error_pages::ErrorPages,
    failure_log::log_failure,
    layer::PassedLayers,
    phases::Phases,
    pump::Progress,
    request_meta::{RequestMeta, traceparent},
    target::{Target, path_of},
};

/// How a request ended.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'f> {
    /// The whole response has been sent.
    Completed,
    Failed(&'f Failure),
    /// The visitor has left.
    Cancelled,
}

/// The record of one request, from its head to the end of its response: [`RequestRecord::finish`] emits it. The request
/// counts as open until the record is dropped.
pub(crate) struct RequestRecord {
    context: Arc<HttpContext>,
    connection: Arc<Connection>,
    pub(crate) request: RequestMeta,
    pub(crate) phases: Phases,
    route: Option<(Grant, Side)>,
    status: Option<StatusCode>,
    grpc_status: Option<u16>,
    is_finished: bool,
    /// The layers that the request has passed. Its response passes them as well.
    pub(crate) passed: PassedLayers,
    /// Attempts on other clients after the first.
    pub(crate) retries: u8,
    /// The service may change to one of the protocols that the visitor offers.
    pub(crate) may_switch: bool,
    responded: Option<Instant>,
    /// Bytes read of the visitor's body before a pump reads it.
    pub(crate) received_bytes: u64,
    /// The progress of the pump, if there is one.
    pub(crate) pumped: Option<Arc<Progress>>,
    pub(crate) sent_bytes: u64,
    /// The response in h2's send buffer.
    pub(crate) buffered: Option<Arc<BufferedResponse>>,
}

impl RequestRecord {
    /// Boxed: it is moved from the parsed request to the body of the response in several steps, and each would copy its
    /// 500 bytes.
    pub(crate) fn new(
        context: Arc<HttpContext>,
        connection: Arc<Connection>,
        request: RequestMeta,
    ) -> Box<Self> {
        let open = context.counters.requests_open(request.protocol);
        open.fetch_add(1, Ordering::Relaxed);
        connection.open.fetch_add(1, Ordering::Relaxed);
        let observer = context.admission.observer();
        let mut phases = Phases::of(&**observer, traceparent(&request.headers));
        phases.add(Phase::Accept, request.started);
        Box::new(Self {
            context,
            connection,
            request,
            phases,
            route: None,
            status: None,
            grpc_status: None,
            is_finished: false,
            passed: PassedLayers::default(),
            retries: 0,
            may_switch: false,
            responded: None,
            received_bytes: 0,
            pumped: None,
            sent_bytes: 0,
            buffered: None,
        })
    }

    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// The pages for error responses.
    pub(crate) fn error_pages(&self) -> ErrorPages {
        self.context.admission.error_pages()
    }

    /// Sets the destination of an attempt, and which side opened it (P-12.3).
    pub(crate) fn on_route(&mut self, grant: Grant, opener: Side) {
        self.route = Some((grant, opener));
    }

    /// Whether the last attempt was on the client of this grant.
    pub(crate) fn last_attempt_was_on(&self, grant: &Grant) -> bool {
        let route = self.route.as_ref();
        route.is_some_and(|(before, _)| before.client() == grant.client())
    }

    /// Starts to track the response of an attempt in h2's send buffer. The exchange must hold the result.
    pub(crate) fn begin_buffering(&mut self) -> Option<FailOnDrop> {
        // An HTTP/1 connection has one response at a time, and a timer on its writes.
        self.buffered = (self.request.version == Version::HTTP_2)
            .then(|| BufferedResponse::new(self.connection.clone()));
        self.buffered
            .as_ref()
            .map(BufferedResponse::on_exchange_end)
    }

    /// Called when the head of the response is sent.
    pub(crate) fn on_response(&mut self, status: StatusCode, headers: &HeaderMap) {
        let now = Instant::now();
        self.status = Some(status);
        self.responded = Some(now);
        self.phases.respond(now);
        self.on_trailers(headers);
    }

    /// Called when the trailers of the response are sent, or its head, which may contain the same fields.
    pub(crate) fn on_trailers(&mut self, trailers: &HeaderMap) {
        if self.request.protocol == ProtocolType::Grpc {
            self.grpc_status = grpc_status_of(trailers).or(self.grpc_status);
        }
    }

    /// Called when the request is over: counts it, logs a failure, and passes the record to the observer. Only the
    /// first call has an effect.
    pub(crate) fn finish(&mut self, outcome: Outcome<'_>) {
        if std::mem::replace(&mut self.is_finished, true) {
            return;
        }
        if let Outcome::Failed(failure) = outcome {
            let (uuid, visitor) = (&self.request.uuid, self.request.visitor.as_str());
            log_failure(failure, uuid, visitor, self.route.as_ref());
        }
        let reason = match outcome {
            Outcome::Completed => None,
            Outcome::Failed(failure) => Some(failure.reason),
            Outcome::Cancelled => Some(Reason::Cancelled),
        };
        let reason = match reason {
            Some(Reason::Cancelled) if self.connection.is_stalled() => Some(Reason::Stalled),
            reason => reason,
        };
        if let Some(reason) = reason {
            self.context.counters.count_failure(reason);
        }
        if self.context.admission.observer().is_enabled() {
            let ended = Instant::now();
            self.phases.finish(ended);
            self.emit(reason, ended);
        }
    }

    fn emit(&self, reason: Option<Reason>, ended: Instant) {
        let observer = self.context.admission.observer();
        let pumped = self.pumped.as_ref().map_or(0, |pump| pump.received_bytes());
        let (request, visitor) = (&self.request, &self.request.visitor);
        let (local_port, started) = (visitor.local_port(), request.started);
        let route = self.route.as_ref();
        let timeline = self.phases.timeline();
        let needs_details = timeline.is_some() || observer.needs_details();
        observer.on_end(&Record {
            protocol: request.protocol.as_str(),
            request_uuid: request.uuid.into_bytes(),
            scheme: request.scheme.as_str(),
            method: request.method.as_str(),
            host: if needs_details { request.host() } else { "" },
            path: if needs_details {
                request.path.path()
            } else {
                ""
            },
            version: version(request.version),
            status: self.status.map_or(0, |status| status.as_u16()),
            grpc_status: self.grpc_status,
            reason: reason.map(Reason::as_str),
            received_bytes: self.received_bytes + pumped,
            sent_bytes: self.sent_bytes,
            retries: self.retries.into(),
            responded: self.responded,
            timeline,
            ..base_record(route, visitor.as_str(), local_port, started, ended)
        });
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        // This has an effect only for a request whose future or body was dropped early: the visitor has left. Every
        // other path has finished the record.
        self.finish(Outcome::Cancelled);
        let open = self.context.counters.requests_open(self.request.protocol);
        open.fetch_sub(1, Ordering::Relaxed);
        self.connection.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that was rejected before it had a [`RequestMeta`].
pub(crate) struct RejectedRequest<'r> {
    pub(crate) uuid: Uuid,
    pub(crate) protocol: ProtocolType,
    pub(crate) parts: &'r Parts,
    pub(crate) target: Option<&'r Target>,
    pub(crate) reason: Reason,
    pub(crate) response: &'r http::Response<bytes::Bytes>,
}

/// Records a rejected request and the response to it.
pub(crate) fn record_rejected(
    observer: &dyn Observer,
    connection: &Connection,
    rejected: &RejectedRequest<'_>,
) {
    if !observer.is_enabled() {
        return;
    }
    let now = Instant::now();
    let (parts, response) = (rejected.parts, rejected.response);
    let grpc_status =
        (rejected.protocol == ProtocolType::Grpc).then(|| grpc_status_of(response.headers()));
    let visitor = &connection.visitor;
    let path = path_of(rejected.target, &parts.uri);
    observer.on_end(&Record {
        protocol: rejected.protocol.as_str(),
        request_uuid: rejected.uuid.into_bytes(),
        scheme: connection.scheme.as_str(),
        method: parts.method.as_str(),
        host: parts.uri.host().unwrap_or_default(),
        path: &path,
        version: version(parts.version),
        status: response.status().as_u16(),
        grpc_status: grpc_status.flatten(),
        reason: Some(rejected.reason.as_str()),
        sent_bytes: response.body().len() as u64,
        responded: Some(now),
        ..base_record(None, visitor.as_str(), visitor.local_port(), now, now)
    });
}

/// Records a request whose head could not be read, with status and body length of the response to it. A request of
/// HTTP/2 receives no response.
pub(crate) fn record_unreadable(
    observer: &dyn Observer,
    connection: &Connection,
    uuid: Uuid,
    reason: Reason,
    response: Option<(u16, u64)>,
) {
    if !observer.is_enabled() {
        return;
    }
    let protocol_version = match response {
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
        status: response.map_or(0, |(status, _)| status),
        reason: Some(reason.as_str()),
        sent_bytes: response.map_or(0, |(_, bytes)| bytes),
        responded: response.map(|_| now),
        ..base_record(None, visitor.as_str(), visitor.local_port(), started, now)
    });
}

/// The fields that all records of this side have.
pub(crate) fn base_record<'a>(
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
        responded: None,
        ended,
        timeline: None,
    }
}

fn grpc_status_of(lines: &HeaderMap) -> Option<u16> {
    static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
    parse_grpc_status(lines.get(&GRPC_STATUS)?.as_bytes())
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
