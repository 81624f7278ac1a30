//! The first step of a request: it is checked, and passed to the module of its service's protocol.

use std::sync::Arc;

use adit_codec::{ResetCode, Side};
use adit_link::{Exchange, IncomingRequest, RequestHead};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    config::Protocol,
    forward::{
        origin::RequestOrigin,
        payload_counts::PayloadCounts,
        record::{Outcome, RequestRecord, report},
        request_info::{RequestInfo as _, has_valid_target},
        reset::reset,
        resources::Resources,
        service::Service,
        timeline::RequestTimeline,
    },
    protocol::{http1, http2, tcp, udp, websocket},
};

use super::route::{Connections, Either, Route};

/// A request whose service has not been found yet.
pub(super) struct Incoming<'e> {
    resources: &'e Arc<Resources>,
    head: RequestHead,
    exchange: Exchange,
    timeline: RequestTimeline,
}

/// Why a request is not forwarded.
type Refusal = (ResetCode, String);

impl<'e> Incoming<'e> {
    /// Starts the timeline of a request.
    pub(super) fn new(
        resources: &'e Arc<Resources>,
        origin: RequestOrigin,
        opened: IncomingRequest,
    ) -> Self {
        let IncomingRequest { head, exchange } = opened;
        let observer = &*resources.observer;
        let timeline = RequestTimeline::new(observer, head.open(), &exchange, origin);
        Self {
            resources,
            head,
            exchange,
            timeline,
        }
    }

    /// Forwards the request to the service of this name, by the module of its protocol. `going_away` closes
    /// running WebSockets.
    pub(super) fn forward(self, name: &str, route: Route, going_away: &watch::Sender<u64>) {
        self.log(name);
        let Route {
            service,
            connections,
        } = route;
        if let Err((code, reason)) = check(&self.head) {
            return self.refuse(&service.endpoint, code, &reason);
        }
        if let Connections::Either(either) = &connections
            && matches!(self.head, RequestHead::Http(_) | RequestHead::Grpc(_))
        {
            match either.chosen.known() {
                Some(version) => {
                    let connections = either.of(version);
                    return self.dispatch(name, service, connections, going_away);
                }
                None => return self.find_out(name, service, either.clone(), going_away),
            }
        }
        self.dispatch(name, service, connections, going_away);
    }

    /// Finds out which version of HTTP the service chooses, and forwards the request.
    fn find_out(
        self,
        name: &str,
        service: Arc<Service>,
        either: Arc<Either>,
        going_away: &watch::Sender<u64>,
    ) {
        let Self {
            resources,
            head,
            exchange,
            timeline,
        } = self;
        let (resources, name, going_away) =
            (resources.clone(), name.to_owned(), going_away.clone());
        tokio::spawn(async move {
            let timeout = resources.config.dial_timeout;
            let found = tokio::select! {
                biased;
                () = exchange.send.abandoned() => None,
                found = either.chosen.find_out(timeout) => Some(found),
            };
            let incoming = Incoming {
                resources: &resources,
                head,
                exchange,
                timeline,
            };
            let (code, reason) = match found {
                Some(Ok(version)) => {
                    return incoming.dispatch(&name, service, either.of(version), &going_away);
                }
                Some(Err(error)) => (ResetCode::DialFailed, error.to_string()),
                // The report has the reason for which the opener has left.
                None => (ResetCode::Cancelled, String::new()),
            };
            incoming.refuse(&service.endpoint, code, &reason);
        });
    }

    /// Passes the request to the module of its protocol.
    fn dispatch(
        self,
        name: &str,
        service: Arc<Service>,
        connections: Connections,
        going_away: &watch::Sender<u64>,
    ) {
        let Self {
            resources,
            head,
            exchange,
            timeline,
        } = self;
        let (head, (code, reason)) = match (head, connections) {
            (RequestHead::Http(head), Connections::Http1(pool)) => {
                let record = RequestRecord::new(head, service, timeline);
                return http1::dispatch(&pool, record, exchange);
            }
            (RequestHead::Http(head), Connections::Http2(client, _)) => {
                if !head.upgrade.is_empty() {
                    // HTTP/2 has no upgrades: the request is served as one without an offer, and its body is complete
                    // (P-3.7).
                    exchange.recv.close(ResetCode::Cancelled);
                }
                let head = http2::Http2Head::Http(head);
                return client.dispatch(RequestRecord::new(head, service, timeline), exchange);
            }
            (RequestHead::Grpc(head), Connections::Http2(client, _)) => {
                let head = http2::Http2Head::Grpc(head);
                return client.dispatch(RequestRecord::new(head, service, timeline), exchange);
            }
            (RequestHead::WebSocket(head), connections) => match connections.upgrades() {
                Some(dialer) => {
                    let record = RequestRecord::new(head, service, timeline);
                    let (dialer, resources) = (dialer.clone(), resources.clone());
                    let going_away = going_away.subscribe();
                    return websocket::dispatch(record, exchange, dialer, resources, going_away);
                }
                None => {
                    let head = RequestHead::WebSocket(head);
                    let refusal = mismatch(name, &head, &connections, service.is_tls);
                    (head, refusal)
                }
            },
            (RequestHead::Tcp(head), _) if service.is_plain(Protocol::Tcp) => {
                let record = RequestRecord::new(head, service, timeline);
                return tcp::dispatch(record, exchange, resources.clone());
            }
            (RequestHead::Udp(head), _) if service.is_plain(Protocol::Udp) => {
                let record = RequestRecord::new(head, service, timeline);
                return udp::dispatch(record, exchange, resources.clone());
            }
            (head, connections) => {
                let refusal = mismatch(name, &head, &connections, service.is_tls);
                (head, refusal)
            }
        };
        let incoming = Self {
            resources,
            head,
            exchange,
            timeline,
        };
        incoming.refuse(&service.endpoint, code, &reason);
    }

    /// Resets a request that is not forwarded, and reports it. If its opener does not wait for it any more, the report
    /// contains the reason of that.
    pub(super) fn refuse(mut self, service: &str, code: ResetCode, reason: &str) {
        let send = self.exchange.send;
        let outcome = send.failure().map_or_else(
            || Outcome::of_reset(code),
            |failure| Outcome::of_failure(&failure),
        );
        let (request, payload) = (self.head.summary(), PayloadCounts::default());
        let observer = &*self.resources.observer;
        report(
            observer,
            &request,
            service,
            &mut self.timeline,
            &payload,
            outcome,
        );
        reset(send, request.open, code, reason);
    }

    fn log(&self, service: &str) {
        let open = self.head.open();
        tracing::debug!(
            target: "adit::egress",
            request_id = %Uuid::from_bytes(open.request_uuid),
            protocol = self.head.protocol().as_str(),
            opener = match self.exchange.id().opener() {
                Side::Server => "server",
                Side::Client => "client",
            },
            tunnel = &*open.tunnel,
            service,
            "request accepted"
        );
    }
}

/// Checks the rules for requests of every service.
fn check(head: &RequestHead) -> Result<(), Refusal> {
    if let RequestHead::Http(head) = head
        && head.method == "CONNECT"
    {
        let reason = "the method CONNECT is not supported".to_owned();
        return Err((ResetCode::ProtocolError, reason));
    }
    if has_valid_target(head) {
        Ok(())
    } else {
        let reason = "invalid request target: expected a path, or `*` for OPTIONS".to_owned();
        Err((ResetCode::ProtocolError, reason))
    }
}

/// Why the service of this name cannot serve the request.
fn mismatch(name: &str, head: &RequestHead, connections: &Connections, is_tls: bool) -> Refusal {
    if let (RequestHead::Grpc(_), Connections::Http1(_)) = (head, connections) {
        let reason =
            format!("the service of {name:?} speaks HTTP/1.1; gRPC needs a tunnel of `type: grpc`");
        return (ResetCode::NoTunnel, reason);
    }
    let reason = format!(
        "the service of {name:?} is not reached by {}{}",
        head.protocol().as_str(),
        if is_tls { " over TLS" } else { "" },
    );
    (ResetCode::ProtocolError, reason)
}
