//! WebSockets of services (section 9 of the protocol): a connection of HTTP/1.1 of its own for each, an upgrade, and
//! then frames in both directions until both ends have closed.
//!
//! The handshake has the times of any request; an open WebSocket has none, but for a service that takes nothing of what
//! waits for it.

mod handshake;
mod line;
mod refusal;

use std::{
    future::pending,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use adit_codec::{ResetCode, WebSocketRequest, WebSocketResponseHead};
use adit_link::Exchange;
use adit_splice::websocket::Carrier;
use adit_trace::Phase;
use adit_websocket::{Outcome, Relay, ResetCause, key};
use bytes::Bytes;
use socket2::{SockRef, TcpKeepalive};
use tokio::{net::TcpStream, sync::watch, time::timeout};
use uuid::Uuid;

use self::{
    handshake::{Answer, ask},
    line::Line,
};
use crate::{
    connect::dial::dial,
    request::{account::Account, broken::Broken},
    resources::Resources,
    service::Service,
};

/// Probes of a silent connection follow each other at this share of the silence that began them.
const PROBES_PER_SILENCE: u32 = 4;

/// Serves one WebSocket, in a task of its own. When `leaving` says so, both ends are told that we go away.
pub(crate) fn dispatch(
    mut account: Account<Box<WebSocketRequest>>,
    exchange: Exchange,
    shared: Arc<Resources>,
    leaving: watch::Receiver<u64>,
) {
    exchange.set_stall(shared.config.tcp_stall_timeout);
    let limit = shared.config.max_connections;
    let open = Open::new(shared, account.service.clone());
    if open.before >= limit {
        let why = format!("{limit} connections to {} are open", open.service.address);
        account.give_up(exchange.send, ResetCode::Limit, &why);
        return;
    }
    tokio::spawn(async move { open.serve(account, exchange, leaving).await });
}

/// One connection of the count.
struct Open {
    shared: Arc<Resources>,
    service: Arc<Service>,
    /// Connections of the service, other than pooled ones, that were open before this one.
    before: usize,
}

impl Open {
    fn new(shared: Arc<Resources>, service: Arc<Service>) -> Self {
        shared.counters.websockets.fetch_add(1, Ordering::Relaxed);
        let before = service.open.fetch_add(1, Ordering::Relaxed);
        Self {
            shared,
            service,
            before,
        }
    }

    async fn serve(
        &self,
        mut account: Account<Box<WebSocketRequest>>,
        exchange: Exchange,
        leaving: watch::Receiver<u64>,
    ) {
        let config = &self.shared.config;
        account.course.begin(Phase::Dial);
        let dialled = tokio::select! {
            biased;
            () = exchange.send.closed() => return account.course.on_gone(&exchange.send),
            dialled = dial(&self.service.address, config.dial_timeout) => dialled,
        };
        account.course.end(Phase::Dial);
        let mut socket = match dialled {
            Ok(socket) => socket,
            Err(why) => return account.give_up(exchange.send, ResetCode::DialFailed, &why),
        };
        self.shared.counters.dialled.fetch_add(1, Ordering::Relaxed);
        let key = key(rand::random());
        let answer = tokio::select! {
            biased;
            () = exchange.send.closed() => return account.course.on_gone(&exchange.send),
            answer = timeout(config.response_timeout, ask(&mut socket, &mut account, &key)) => answer,
        };
        let late = || {
            let within = config.response_timeout;
            let why = format!("the service did not answer within {within:?}");
            Broken::Reset(ResetCode::ServiceTimeout, why.into())
        };
        let result = match answer.unwrap_or_else(|_| Err(late())) {
            Ok(Answer::Accepted { lines, first }) => match accept(&exchange, &lines) {
                Ok(()) => {
                    account.course.on_answer(101, false);
                    self.service.compress(&exchange.send, []);
                    self.carry(socket, exchange, first, leaving, account).await;
                    return;
                }
                Err(broken) => Err(broken),
            },
            Ok(Answer::Refused(refusal)) => {
                let passed_on =
                    refusal.pass_on(&mut socket, &exchange.send, &self.shared, &mut account);
                passed_on.await
            }
            Err(broken) => Err(broken),
        };
        match result {
            Ok(()) => account.course.on_complete(),
            Err(Broken::Gone) => account.course.on_gone(&exchange.send),
            Err(Broken::Reset(code, why)) => account.give_up(exchange.send, code, &why),
            Err(Broken::Died(why)) => {
                account.give_up(exchange.send, ResetCode::ServiceAborted, &why);
            }
        }
    }

    /// Carries frames, of which `first` have come with the answer, until it is over.
    async fn carry(
        &self,
        socket: TcpStream,
        exchange: Exchange,
        first: Bytes,
        leaving: watch::Receiver<u64>,
        mut account: Account<Box<WebSocketRequest>>,
    ) {
        if let Some(silence) = self.shared.config.tcp_keepalive {
            let times = TcpKeepalive::new()
                .with_time(silence)
                .with_interval((silence / PROBES_PER_SILENCE).max(Duration::from_secs(1)));
            if let Err(error) = SockRef::from(&socket).set_tcp_keepalive(&times) {
                tracing::debug!(%error, "keepalive could not be set");
            }
        }
        let early = first.len() as u64;
        let mut relay = Relay::to_service(rand::random);
        if !first.is_empty() {
            relay.on_bytes(first);
        }
        let config = &self.shared.config;
        let carrier = Carrier::new(
            socket,
            exchange,
            relay,
            &self.shared.websockets,
            config.close_timeout,
            config.turn_bytes,
            reset_of,
        );
        // What a service sent before it left is for a slow visitor to read.
        let ended = carrier.run(said(leaving), |_, _| false).await;
        tracing::debug!(
            target: "adit::egress",
            request_id = %Uuid::from_bytes(account.head.open.request_uuid),
            outcome = ?ended.outcome,
            is_cut = ended.is_cut,
            written = ended.written,
            reason = ended.failure.as_ref().map_or("", |failure| failure.reason.as_str()),
            "WebSocket over"
        );
        account.moved.receive(ended.written);
        account.moved.send(ended.read + early);
        match (&ended.failure, ended.reset) {
            (Some(failure), _) => account.course.on_failure(failure),
            (None, Some(code)) => account.course.on_reset(code),
            (None, None) => match ended.outcome {
                Outcome::SocketLost => account.course.on_reset(ResetCode::ServiceAborted),
                Outcome::LinkEnded => account.course.on_reset(ResetCode::Cancelled),
                _ => account.course.on_complete(),
            },
        }
        // As it stands, where there was no time to shut it down.
        drop(ended.socket);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let counters = &self.shared.counters;
        counters.websockets.fetch_sub(1, Ordering::Relaxed);
        self.service.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Ready when it is said, after now, that we go away.
async fn said(mut leaving: watch::Receiver<u64>) {
    if leaving.changed().await.is_err() {
        // Nobody is left to say it.
        pending::<()>().await;
    }
}

/// Tells the visitor's side that the WebSocket is there.
fn accept(exchange: &Exchange, lines: &[Line]) -> Result<(), Broken> {
    let lines = lines.iter().map(|(name, value)| (&name[..], &value[..]));
    let head = WebSocketResponseHead { status: 101 }
        .encode(lines)
        .map_err(|error| Broken::aborted(error.to_string()))?;
    exchange.send.respond(head, false)?;
    Ok(())
}

/// With what a WebSocket is reset, and what is said.
fn reset_of(why: ResetCause) -> (ResetCode, String) {
    match why {
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
            "the visitor left while a frame was on its way to it".into(),
        ),
    }
}
