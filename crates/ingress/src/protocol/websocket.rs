//! WebSockets (section 9 of the protocol): a handshake that is forwarded like any request, and then frames in both
//! directions until both ends have closed.
//!
//! An `Upgrade` of HTTP/1.1 takes the whole connection, and the future of that connection carries the frames. An extended
//! `CONNECT` of HTTP/2 takes one stream, and its task carries them.

pub(super) mod handshake;

use std::{sync::Arc, task::Context};

use adit_codec::ResetCode;
use adit_link::{Exchange, Failure, Reason};
use adit_splice::websocket::Carrier;
use adit_websocket::{Outcome as WebSocketOutcome, Relay, ResetCause};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, UPGRADE},
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::{
    forward::{
        context::HttpContext,
        dispatch::forward,
        error_response::{respond_to_rejected, respond_with_error},
        headers::retain,
        inbound::Inbound,
        layer::Rejected,
        options::ForwardOptions,
        receive::{RequestSend, UpstreamResponse, of_peer},
        record::{Outcome, RequestRecord},
        request_head::WEBSOCKET_HOP_LINES,
        response::{parts, respond},
    },
    protocol::{served::Served, websocket::handshake::Handshake},
};

/// An accepted WebSocket: carries its frames.
pub(crate) struct WebSocket {
    context: Arc<HttpContext>,
    record: Box<RequestRecord>,
    exchange: Exchange,
}

/// Serves one handshake.
///
/// # Errors
/// When the visitor has left.
pub(super) async fn serve(
    context: &Arc<HttpContext>,
    mut record: Box<RequestRecord>,
    body: Inbound,
    handshake: Handshake,
) -> Result<Served<WebSocket>, Failure> {
    // The method of a handshake over HTTP/2 is CONNECT, which layers and rules do not expect (RFC 8441, 5).
    record.request.method = Method::GET;
    let options = ForwardOptions {
        response_timeout: Some(context.config.service_timeout),
        stall_timeout: None,
        expect_continue: false,
        deadline: None,
        cancel_at_once: false,
        interim: None,
    };
    let response = match forward(context, &mut record, body, options).await {
        Ok(response) => response,
        Err(Rejected::Response(response))
            if response.status().is_success() && matches!(handshake, Handshake::Http2) =>
        {
            // Any 2xx status accepts a CONNECT.
            let detail = "a layer responded to a WebSocket handshake with a 2xx status";
            let failure = Failure::new(Reason::Internal, detail);
            return respond_with_error(&failure, record, false).map(Served::Response);
        }
        Err(rejected) => {
            return respond_to_rejected(rejected, record, false).map(Served::Response);
        }
    };
    if response.head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        return accept(context, response, record, &handshake);
    }
    // Any 2xx status accepts a CONNECT (P-9.2).
    let looks_accepted = (200..300).contains(&response.head.status);
    if looks_accepted && matches!(handshake, Handshake::Http2) {
        let failure = Failure::new(
            Reason::ServiceAborted,
            "upstream did not change to WebSocket",
        );
        return respond_with_error(&failure, record, false).map(Served::Response);
    }
    respond(response, record, None).map(Served::Response)
}

/// The response to a visitor whose WebSocket is accepted, and the session after it.
fn accept(
    context: &Arc<HttpContext>,
    response: UpstreamResponse,
    mut record: Box<RequestRecord>,
    handshake: &Handshake,
) -> Result<Served<WebSocket>, Failure> {
    let UpstreamResponse {
        head,
        recv,
        request,
    } = response;
    let RequestSend::Open(send) = request else {
        let failure = Failure::new(Reason::Internal, "the request of a WebSocket has ended");
        return respond_with_error(&failure, record, true).map(Served::Response);
    };
    let mut parts = match parts(&head) {
        Ok((parts, _)) => parts,
        Err(failure) => return respond_with_error(&failure, record, false).map(Served::Response),
    };
    record.passed.pass_response(&record.request, &mut parts);
    retain(&mut parts.headers, |name| {
        *name != CONTENT_LENGTH && !WEBSOCKET_HOP_LINES.contains(name)
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
    record.on_response(parts.status, &parts.headers);
    // The WebSocket may stay open for days: the headers of the request are not needed any more.
    record.request.headers = HeaderMap::new();
    let websocket = WebSocket {
        context: context.clone(),
        record,
        exchange: Exchange { send, recv },
    };
    Ok(Served::Session(Response::from_parts(parts, ()), websocket))
}

impl WebSocket {
    /// Forwards frames until the WebSocket is over; `first` has been read from the socket already. Returns the socket
    /// unless it has been shut down. `is_gone` checks a socket that is not read.
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
            context,
            mut record,
            exchange,
        } = self;
        let connection = record.connection().clone();
        let mut relay = Relay::to_visitor();
        record.received_bytes = first.len() as u64;
        if !first.is_empty() {
            let mut first = Vec::from(first);
            relay.unmask(&mut first);
            relay.on_bytes(first.into());
        }
        let carrier = Carrier::new(
            socket,
            exchange,
            relay,
            &context.websocket_buffers,
            context.config.close_timeout,
            context.config.turn_bytes,
            reset_of,
        );
        let ended = carrier.run(connection.draining(), is_gone).await;
        record.received_bytes += ended.read;
        record.sent_bytes = ended.written;
        let mut socket = ended.socket;
        if ended.is_cut && record.request.version < Version::HTTP_2 {
            connection.break_off();
            if let Some(socket) = &mut socket {
                // Ready when the visitor has received all that was written; the result is always an error.
                let _ = socket.flush().await;
            }
        }
        match failure_of(ended.outcome, ended.failure) {
            None => record.finish(Outcome::Completed),
            Some(failure) => record.finish(Outcome::Failed(&failure)),
        }
        socket
    }
}

/// The failure of a WebSocket that did not end in the regular way.
fn failure_of(outcome: WebSocketOutcome, failure: Option<Failure>) -> Option<Failure> {
    let (reason, detail) = match outcome {
        WebSocketOutcome::Closed | WebSocketOutcome::WentAway => return None,
        WebSocketOutcome::SocketLost => {
            (Reason::Cancelled, "the visitor left without a close frame")
        }
        WebSocketOutcome::LinkEnded => (
            Reason::ServiceAborted,
            "upstream left without a close frame",
        ),
        WebSocketOutcome::LinkFailed => {
            let unknown = || Failure::new(Reason::LinkLost, "the link was lost");
            return Some(failure.map_or_else(unknown, of_peer));
        }
        WebSocketOutcome::Unreadable(error) => {
            return Some(Failure::new(
                Reason::BadRequest,
                format!("invalid frame from the visitor: {error}"),
            ));
        }
    };
    Some(Failure::new(reason, detail))
}

/// The code and the detail with which an exchange is reset.
fn reset_of(why: ResetCause) -> (ResetCode, String) {
    let why = match why {
        ResetCause::SocketLost => "the visitor left within a frame".into(),
        ResetCause::Unreadable(error) => format!("invalid frame from the visitor: {error}"),
        ResetCause::LinkEnded => "upstream left while a frame was being sent to it".into(),
    };
    (ResetCode::Cancelled, why)
}
