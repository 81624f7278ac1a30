//! WebSockets of services (section 9 of the protocol): each has a connection of HTTP/1.1 of its own, an upgrade, and then
//! frames in both directions until both ends have closed.
//!
//! The handshake has the timeouts of any request. An open WebSocket has only the timeout for a service that does not
//! read the waiting bytes.

mod handshake;
mod rejection;
mod request;

use adit_net::Stream;
use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
};

use adit_codec::{ResetCode, WebSocketResponseHead};
use adit_link::Exchange;
use adit_splice::websocket::Carrier;
use adit_trace::Phase;
use adit_websocket::{Outcome as WebSocketOutcome, Relay, ResetCause, key};
use bytes::Bytes;
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use self::{
    handshake::{HandshakeResponse, shake_hands},
    request::{HeaderLine, WebSocketRecord},
};
use crate::{
    connect::tls::Dialer,
    forward::{error::ForwardError, gauge::GaugeGuard, record::Outcome, resources::Resources},
};

/// Serves one WebSocket, in a task of its own. A change of `going_away` closes it with 1001 (Going Away).
pub(crate) fn dispatch(
    record: WebSocketRecord,
    exchange: Exchange,
    dialer: Arc<Dialer>,
    resources: Arc<Resources>,
    going_away: watch::Receiver<u64>,
) {
    exchange.set_stall(resources.config.tcp_stall_timeout);
    let limit = resources.config.max_connections;
    let service = record.service.clone();
    let Some(open) = GaugeGuard::below(limit, service, |service| &service.open) else {
        let reason = format!("{limit} connections to {} are open", record.service.address);
        return record.reset(exchange.send, ResetCode::Limit, &reason);
    };
    let (open_here, _) = GaugeGuard::new(resources, |resources| &resources.counters.websockets);
    tokio::spawn(async move {
        serve(record, exchange, &dialer, open_here.owner(), going_away).await;
        drop((open, open_here));
    });
}

/// Connects, opens the WebSocket and forwards its frames, or forwards the service's rejection. Finishes the record.
async fn serve(
    mut record: WebSocketRecord,
    exchange: Exchange,
    dialer: &Dialer,
    resources: &Resources,
    going_away: watch::Receiver<u64>,
) {
    let config = &resources.config;
    record.timeline.begin(Phase::Dial);
    let dialled = tokio::select! {
        biased;
        () = exchange.send.closed() => {
            return record.finish(Outcome::of_abandoned(&exchange.send));
        }
        dialled = dialer.dial(config.dial_timeout) => dialled,
    };
    record.timeline.end(Phase::Dial);
    let mut socket = match dialled {
        Ok(socket) => socket,
        Err(error) => {
            return record.reset(exchange.send, ResetCode::DialFailed, &error.to_string());
        }
    };
    resources.counters.dialled.fetch_add(1, Ordering::Relaxed);
    let key = key(rand::random());
    let within = config.response_timeout;
    let response = tokio::select! {
        biased;
        () = exchange.send.closed() => {
            return record.finish(Outcome::of_abandoned(&exchange.send));
        }
        response = timeout(within, shake_hands(&mut socket, &mut record, &key)) => response,
    };
    let timed_out = |_| {
        let reason = format!("the service did not respond within {within:?}");
        Err(ForwardError::Reset(
            ResetCode::ServiceTimeout,
            reason.into(),
        ))
    };
    let result = match response.unwrap_or_else(timed_out) {
        Ok(HandshakeResponse::Accepted { lines, first }) => match accept(&exchange, &lines) {
            Ok(()) => {
                record.timeline.on_response(101, false);
                record.service.select_compression(&exchange.send, []);
                return carry(socket, exchange, first, going_away, record, resources).await;
            }
            Err(error) => Err(error),
        },
        Ok(HandshakeResponse::Rejected(rejection)) => {
            rejection
                .forward(&mut socket, &exchange.send, resources, &mut record)
                .await
        }
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => record.finish(Outcome::Completed),
        Err(ForwardError::Abandoned) => record.finish(Outcome::of_abandoned(&exchange.send)),
        Err(ForwardError::Reset(code, reason)) => record.reset(exchange.send, code, &reason),
        Err(ForwardError::ConnectionLost(reason)) => {
            record.reset(exchange.send, ResetCode::ServiceAborted, &reason);
        }
    }
}

/// Reports to the visitor's side that the WebSocket is open.
fn accept(exchange: &Exchange, lines: &[HeaderLine]) -> Result<(), ForwardError> {
    let lines = lines.iter().map(|(name, value)| (&name[..], &value[..]));
    let head = WebSocketResponseHead { status: 101 }
        .encode(lines)
        .map_err(|error| ForwardError::service_aborted(error.to_string()))?;
    exchange.send.respond(head, false)?;
    Ok(())
}

/// Forwards frames to the end of the WebSocket and finishes the record. `first` has arrived from the service after its
/// response.
async fn carry(
    socket: Stream,
    exchange: Exchange,
    first: Bytes,
    going_away: watch::Receiver<u64>,
    record: WebSocketRecord,
    resources: &Resources,
) {
    let config = &resources.config;
    if let Some(silence) = config.tcp_keepalive {
        socket.keep_alive(silence);
    }
    let early = first.len() as u64;
    let mut relay = Relay::to_service(rand::random);
    if !first.is_empty() {
        relay.on_bytes(first);
    }
    let carrier = Carrier::new(
        socket,
        exchange,
        relay,
        &resources.websockets,
        config.close_timeout,
        config.turn_bytes,
        reset_of,
    );
    // A service that has left may have sent frames before: a slow visitor still receives them.
    let ended = carrier.run(changed(going_away), |_, _| false).await;
    tracing::debug!(
        target: "adit::egress",
        request_id = %Uuid::from_bytes(record.head.open.request_uuid),
        outcome = ?ended.outcome,
        is_cut = ended.is_cut,
        written = ended.written,
        reason = ended.failure.as_ref().map_or("", |failure| failure.reason.as_str()),
        "WebSocket ended"
    );
    record.payload.add_from_visitor(ended.written);
    record.payload.add_to_visitor(ended.read + early);
    record.finish(match (&ended.failure, ended.reset, ended.outcome) {
        (Some(failure), ..) => Outcome::of_failure(failure),
        (None, Some(code), _) => Outcome::of_reset(code),
        (None, None, WebSocketOutcome::SocketLost) => Outcome::of_reset(ResetCode::ServiceAborted),
        (None, None, WebSocketOutcome::LinkEnded) => Outcome::CANCELLED,
        (None, None, _) => Outcome::Completed,
    });
    // The socket is closed as it is if there was no time to shut it down.
    drop(ended.socket);
}

/// Waits for the next change; forever if there will be none.
async fn changed(mut receiver: watch::Receiver<u64>) {
    if receiver.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// The reset of a WebSocket that cannot end by a close frame.
fn reset_of(cause: ResetCause) -> (ResetCode, String) {
    match cause {
        ResetCause::SocketLost => (
            ResetCode::ServiceAborted,
            "the service left within a frame".into(),
        ),
        ResetCause::Unreadable(error) => (
            ResetCode::ServiceAborted,
            format!("the service sent {error}"),
        ),
        ResetCause::LinkEnded => (
            ResetCode::Cancelled,
            "the visitor left while a frame was being sent to it".into(),
        ),
    }
}
