//! WebSocket visitors (section 9 of the protocol): a handshake that is led to a client as any request is, and then
//! frames in both directions until both ends have closed.
//!
//! An `Upgrade` of HTTP/1.1 takes the whole connection, and its frames are carried by the future that served the
//! connection before. An extended `CONNECT` of HTTP/2 takes one stream of it, and has a task.

mod handshake;
mod takeover;

use std::{sync::Arc, task::Context};

use adit_codec::{EncodedHead, HeadError, Open, ResetCode, WebSocketRequestHead};
use adit_link::{Exchange, Failure, Reason};
use adit_splice::websocket::Carrier;
use adit_websocket::{Outcome, Relay, ResetCause};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

pub(crate) use self::{
    handshake::{Handshake, Refused, handshake},
    takeover::{Takeover, on_end},
};
use crate::{
    access::Access,
    answer::{self, Answer, of_peer, respond},
    body::{ResponseBody, Sending},
    call::{Terms, carry, fail},
    http::Http,
    inbound::Inbound,
    ordered::retain,
    visit::Visit,
};

/// The lines that belong to one hop (P-9.1).
const OF_THE_HOP: [HeaderName; 5] = [
    CONNECTION,
    UPGRADE,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION,
    SEC_WEBSOCKET_ACCEPT,
];

/// A WebSocket that both ends have agreed on, and whose frames are to be carried.
pub(crate) struct WebSocket {
    http: Arc<Http>,
    access: Access,
    exchange: Exchange,
}

/// Serves one handshake.
pub(crate) async fn serve(
    http: &Arc<Http>,
    mut access: Access,
    body: Inbound,
    handshake: Handshake,
) -> Result<Response<ResponseBody>, Failure> {
    // Over HTTP/2 it is a CONNECT, which means nothing to whoever looks at it as a request (RFC 8441, 5).
    access.visit.method = Method::GET;
    let terms = Terms {
        answer_within: Some(http.config.service_timeout),
        stall: None,
        expects: false,
        deadline: None,
        cancels_at_once: false,
        interim: None,
    };
    let answer = match carry(http, &mut access, body, terms).await {
        Ok(answer) => answer,
        Err(failure) => return fail(&failure, access, false),
    };
    if answer.head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        return accept(http, answer, access, &handshake);
    }
    // To a CONNECT it would say that the WebSocket is there (P-9.2).
    let looks_accepted = (200..300).contains(&answer.head.status);
    if looks_accepted && matches!(handshake, Handshake::Http2) {
        let failure = Failure::new(
            Reason::ServiceAborted,
            "the service did not change to WebSocket",
        );
        return fail(&failure, access, false);
    }
    respond(http, answer, access, None)
}

/// What opens a WebSocket at the client.
pub(crate) fn head<'h>(
    visit: &Visit,
    open: &Open<&str>,
    lines: impl Iterator<Item = (&'h [u8], &'h [u8])>,
) -> Result<EncodedHead, HeadError> {
    let head = WebSocketRequestHead {
        open,
        authority: visit.authority_str().as_bytes(),
        path: visit.path.as_bytes(),
    };
    // Most of them went with the layers, which need not be there.
    let is_of_the_hop = |name: &[u8]| OF_THE_HOP.iter().any(|of| of.as_str().as_bytes() == name);
    head.encode(lines.filter(|(name, _)| !is_of_the_hop(name) && *name != b"content-length"))
}

/// The answer to a visitor whose WebSocket is there, and the frames behind it.
fn accept(
    http: &Arc<Http>,
    answer: Answer,
    mut access: Access,
    handshake: &Handshake,
) -> Result<Response<ResponseBody>, Failure> {
    let Answer {
        head,
        recv,
        sending,
    } = answer;
    let Sending::Open(send) = sending else {
        let failure = Failure::new(Reason::Internal, "a WebSocket that can only be read");
        return fail(&failure, access, true);
    };
    let mut parts = match answer::parts(&head) {
        Ok((parts, _)) => parts,
        Err(failure) => return fail(&failure, access, false),
    };
    for layer in http.admission.layers().iter().rev() {
        layer.on_response(&access.visit, &mut parts);
    }
    retain(&mut parts.headers, |name| {
        *name != CONTENT_LENGTH && !OF_THE_HOP.contains(name)
    });
    parts.status = match handshake {
        Handshake::Http1 { accept } => {
            let headers = &mut parts.headers;
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
            StatusCode::SWITCHING_PROTOCOLS
        }
        Handshake::Http2 => StatusCode::OK,
    };
    access.on_answer(parts.status, &parts.headers);
    // It may stand open for days.
    access.visit.headers = HeaderMap::new();
    let exchange = Exchange { send, recv };
    let connection = access.connection().clone();
    let websocket = WebSocket {
        http: http.clone(),
        access,
        exchange,
    };
    let body = match handshake {
        Handshake::Http1 { .. } => {
            connection.takeover().set_websocket(websocket);
            ResponseBody::bare(Bytes::new())
        }
        Handshake::Http2 => ResponseBody::WebSocket(Box::new(websocket)),
    };
    Ok(Response::from_parts(parts, body))
}

impl WebSocket {
    /// Carries its frames, of which `first` have been read already, until it is over. Gives the socket back where it has
    /// not been shut down. `is_gone` looks at a socket that is not read.
    ///
    /// # Cancel safety
    /// Dropping it closes both hops without a close frame.
    pub(crate) async fn run<S>(
        self,
        socket: S,
        first: Bytes,
        is_gone: impl FnMut(&mut S, &mut Context<'_>) -> bool,
    ) -> Option<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Self {
            http,
            mut access,
            exchange,
        } = self;
        let connection = access.connection().clone();
        let mut relay = Relay::to_visitor();
        access.received_bytes = first.len() as u64;
        if !first.is_empty() {
            let mut first = Vec::from(first);
            relay.unmask(&mut first);
            relay.on_bytes(first.into());
        }
        let carrier = Carrier::new(
            socket,
            exchange,
            relay,
            &http.websockets,
            http.config.close_timeout,
            http.config.turn_bytes,
            reset_of,
        );
        let ended = carrier.run(connection.draining(), is_gone).await;
        access.received_bytes += ended.read;
        access.sent_bytes = ended.written;
        let mut socket = ended.socket;
        if ended.is_cut && access.visit.version < Version::HTTP_2 {
            connection.break_off();
            if let Some(socket) = &mut socket {
                // Ready when the visitor has what was written to it; always an error.
                let _ = socket.flush().await;
            }
        }
        match failure_of(ended.outcome, ended.failure) {
            None => access.on_end(),
            Some(failure) => {
                tracing::debug!(
                    request_id = %access.visit.uuid,
                    reason = failure.reason.as_str(),
                    "{}",
                    failure.detail
                );
                access.on_failure(&failure);
            }
        }
        socket
    }
}

/// What went wrong, if anything did.
fn failure_of(outcome: Outcome, failure: Option<Failure>) -> Option<Failure> {
    let (reason, detail) = match outcome {
        Outcome::Closed | Outcome::WentAway => return None,
        Outcome::SocketLost => (Reason::Cancelled, "the visitor left without a close frame"),
        Outcome::LinkEnded => (
            Reason::ServiceAborted,
            "the service left without a close frame",
        ),
        Outcome::LinkFailed => {
            let unknown = || Failure::new(Reason::LinkLost, "the link was lost");
            return Some(failure.map_or_else(unknown, of_peer));
        }
        Outcome::Unreadable(error) => {
            return Some(Failure::new(
                Reason::BadRequest,
                format!("the visitor sent {error}"),
            ));
        }
    };
    Some(Failure::new(reason, detail))
}

/// With what a WebSocket is reset, and what is said.
fn reset_of(why: ResetCause) -> (ResetCode, String) {
    let why = match why {
        ResetCause::SocketLost => "the visitor left within a frame".into(),
        ResetCause::Unreadable(error) => format!("the visitor sent {error}"),
        ResetCause::LinkEnded => "the service left while a frame was on its way to it".into(),
    };
    (ResetCode::Cancelled, why)
}
