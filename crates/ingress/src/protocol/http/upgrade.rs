//! Requests that offer to change to another protocol (P-3.7; RFC 9110, 7.8): `Upgrade` with any token but `websocket`,
//! which has its own protocol here, and `h2c`, which adit itself would have to implement.
//!
//! The service decides. If it changes the protocol, the visitor's whole connection carries bytes in both directions, as
//! a TCP connection does; any other response is a plain HTTP response.

use adit_net::Stream;
use std::{io, sync::Arc};

use adit_codec::ResetCode;
use adit_link::{Exchange, Failure, Reason};
use adit_splice::tcp::{Progress, Socket, Splice, SpliceError};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_LENGTH, UPGRADE},
};

use crate::{
    forward::{
        context::HttpContext,
        dispatch::forward,
        error_response::{respond_to_rejected, respond_with_error},
        headers::retain,
        inbound::Inbound,
        options::ForwardOptions,
        receive::{RequestSend, UpstreamResponse, of_peer},
        record::{Outcome, RequestRecord},
        response::{parts, respond},
        session::DELIVERY_AFTER_DEPARTURE,
    },
    protocol::served::Served,
};

/// Serves one request that offers to change the protocol.
///
/// # Errors
/// When the visitor has left.
pub(super) async fn serve(
    context: &Arc<HttpContext>,
    mut record: Box<RequestRecord>,
    body: Inbound,
    options: ForwardOptions<'_>,
    is_streamed: bool,
) -> Result<Served<Upgrade>, Failure> {
    let response = match forward(context, &mut record, body, options).await {
        Ok(response) if response.head.status == StatusCode::SWITCHING_PROTOCOLS.as_u16() => {
            return accept(context, response, record);
        }
        Ok(response) => respond(response, record, None),
        Err(rejected) => respond_to_rejected(rejected, record, is_streamed),
    };
    response.map(Served::Response)
}

/// The response to a visitor whose service has changed the protocol, and the session after it.
fn accept(
    context: &Arc<HttpContext>,
    response: UpstreamResponse,
    mut record: Box<RequestRecord>,
) -> Result<Served<Upgrade>, Failure> {
    let UpstreamResponse {
        head,
        recv,
        request,
    } = response;
    let RequestSend::Open(send) = request else {
        let failure = Failure::new(Reason::Internal, "the request of an upgrade has ended");
        return respond_with_error(&failure, record, true).map(Served::Response);
    };
    let mut parts = match parts(&head) {
        Ok((parts, _)) => parts,
        Err(failure) => return respond_with_error(&failure, record, true).map(Served::Response),
    };
    // A service that does not name the protocol has changed to the only one that was offered.
    let named = Some(&head.upgrade).filter(|named| !named.is_empty());
    let protocol = named.unwrap_or(&record.request.upgrade).clone();
    let Ok(protocol) = HeaderValue::from_maybe_shared(protocol) else {
        let failure = Failure::new(
            Reason::ServiceAborted,
            "upstream sent an invalid Upgrade header",
        );
        return respond_with_error(&failure, record, true).map(Served::Response);
    };
    record.passed.pass_response(&record.request, &mut parts);
    retain(&mut parts.headers, |name| *name != CONTENT_LENGTH);
    let upgrade = HeaderValue::from_static("Upgrade");
    parts.headers.insert(CONNECTION, upgrade);
    parts.headers.insert(UPGRADE, protocol);
    record.on_response(parts.status, &parts.headers);
    // The connection may stay open for days: the headers of the request are not needed any more.
    record.request.headers = HeaderMap::new();
    let exchange = Exchange { send, recv };
    exchange.set_stall(context.config.session_stall);
    let upgrade = Upgrade {
        context: context.clone(),
        record,
        exchange,
    };
    Ok(Served::Session(Response::from_parts(parts, ()), upgrade))
}

/// A connection that has changed to another protocol: carries its bytes.
pub(crate) struct Upgrade {
    context: Arc<HttpContext>,
    record: Box<RequestRecord>,
    exchange: Exchange,
}

impl Upgrade {
    /// Forwards both directions until they end; `first` has been read from `stream` already.
    ///
    /// # Cancel safety
    /// Dropping it resets both hops.
    pub(crate) async fn run(self, stream: Stream, first: Bytes) {
        let Self {
            context,
            mut record,
            exchange,
        } = self;
        match carry(&context, &mut record, exchange, stream, first).await {
            Ok(()) => record.finish(Outcome::Completed),
            Err(failure) => record.finish(Outcome::Failed(&failure)),
        }
    }
}

async fn carry(
    context: &HttpContext,
    record: &mut RequestRecord,
    exchange: Exchange,
    stream: Stream,
    first: Bytes,
) -> Result<(), Failure> {
    let left =
        |error: io::Error| Failure::new(Reason::Cancelled, format!("the visitor left: {error}"));
    let socket = Socket::new(stream);
    record.received_bytes += first.len() as u64;
    // If this fails, the other direction reports the reason.
    let _ = exchange.send.send_all(first, false).await;
    let (buffers, patience) = (&context.upgrade_buffers, DELIVERY_AFTER_DEPARTURE);
    let mut splice = Splice::new(&socket, exchange, buffers, Bytes::new(), patience);
    let on_moved = |moved: Progress| {
        record.received_bytes += moved.read;
        record.sent_bytes += moved.written;
    };
    let failure = match splice.run(on_moved).await {
        Ok(()) => None,
        Err(SpliceError::Exchange(failure)) => Some(of_peer(failure)),
        Err(SpliceError::Socket(error)) => {
            if let Some(send) = splice.into_send() {
                send.abort(ResetCode::Cancelled, "the visitor left");
            }
            return Err(left(error));
        }
    };
    let is_aborted = splice.is_aborted();
    drop(splice);
    match failure {
        Some(failure) => {
            if is_aborted {
                socket
                    .reset_after_delivery(context.config.session_stall)
                    .await;
            }
            Err(failure)
        }
        None => {
            socket.close();
            Ok(())
        }
    }
}
