//! A request of a connection, and its response.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderValue, Method, Request, Response,
    header::{CONTENT_LENGTH, DATE},
};
use http_body::{Body, Frame};

use super::{responder::Responder, tunnel::Tunnel};
use crate::{
    forward::{
        connection::Connection,
        context::HttpContext,
        headers::{is_hop_by_hop, retain},
        inbound::Inbound,
        response_body::{Chunk, ResponseBody},
    },
    protocol::{
        http::{self as http_protocol, Session},
        served::Served,
    },
};

/// Serves one request. The request is cancelled when this is dropped, or when the visitor resets the stream.
pub(super) async fn serve(
    context: Arc<HttpContext>,
    connection: Arc<Connection>,
    request: Request<RecvStream>,
    respond: SendResponse<Chunk>,
) {
    let (parts, recv) = request.into_parts();
    // The bytes after a CONNECT are not a body.
    let (body, recv) = if parts.method == Method::CONNECT {
        (Inbound::None, Some(recv))
    } else {
        (Inbound::on_stream(recv, &parts.headers), None)
    };
    let request = Request::from_parts(parts, body);
    let responder = Responder::new(respond);
    let served = {
        let serving = http_protocol::serve(context, connection, request, Some(&responder));
        let mut serving = pin!(serving);
        poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(served) => Poll::Ready(Some(served)),
            Poll::Pending => responder.poll_reset(cx).map(|()| None),
        })
        .await
    };
    let response = match (served, recv) {
        (Some(Ok(Served::Response(response))), _) => response,
        (Some(Ok(Served::Session(head, Session::WebSocket(websocket)))), Some(recv)) => {
            if let Ok(send) = responder.send(with_own_lines(head), false) {
                let is_gone = |tunnel: &mut Tunnel, cx: &mut Context<'_>| tunnel.is_gone(cx);
                let tunnel = Tunnel::new(send, recv);
                // Boxed: it is rarely used, and unboxed it would enlarge every request's task.
                drop(Box::pin(websocket.run(tunnel, Bytes::new(), is_gone)).await);
            }
            return;
        }
        // HTTP/2 has no other sessions.
        (Some(Ok(Served::Session(..)) | Err(_)), _) => {
            return responder.reset(Reason::INTERNAL_ERROR);
        }
        // The visitor has left.
        (None, _) => return,
    };
    let (mut parts, body) = with_own_lines(response).into_parts();
    let is_whole = body.is_end_stream();
    if !is_whole && let Some(length) = body.size_hint().exact() {
        let lengths = parts.headers.entry(CONTENT_LENGTH);
        lengths.or_insert_with(|| HeaderValue::from(length));
    }
    if let Ok(send) = responder.send(Response::from_parts(parts, ()), is_whole)
        && !is_whole
    {
        send_body(body, send).await;
    }
}

/// Removes header lines that are only valid for another connection, and adds `date` if it is missing.
fn with_own_lines<B>(mut response: Response<B>) -> Response<B> {
    let headers = response.headers_mut();
    retain(headers, |name| !is_hop_by_hop(name.as_str().as_bytes()));
    headers.entry(DATE).or_insert_with(date);
    response
}

/// Sends the body of a response as fast as the visitor opens its windows. One piece waits here, in addition to those in
/// h2.
async fn send_body(mut body: ResponseBody, mut send: SendStream<Chunk>) {
    // The first piece is passed to h2 at once: h2 buffers it until there is a window, and otherwise it would wait here.
    let mut is_first = true;
    loop {
        let frame = match poll_fn(|cx| poll_next(&mut body, &mut send, cx)).await {
            Next::Frame(frame) => frame,
            Next::End => {
                // This fails only when the stream is over, as below.
                let _ = send.send_data(Chunk::Own(Bytes::new()), true);
                return;
            }
            Next::Failed => return send.send_reset(Reason::INTERNAL_ERROR),
            Next::Left => return,
        };
        match frame.into_data() {
            Ok(data) => {
                if data.has_remaining() && !mem::take(&mut is_first) {
                    // Capacity is reserved only for data that has arrived: unused capacity is taken from other streams.
                    send.reserve_capacity(1);
                    if !poll_fn(|cx| poll_capacity(&mut send, cx)).await {
                        return;
                    }
                }
                let is_end = body.is_end_stream();
                if send.send_data(data, is_end).is_err() || is_end {
                    return;
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    let _ = send.send_trailers(trailers);
                    return;
                }
            }
        }
    }
}

enum Next {
    Frame(Frame<Chunk>),
    End,
    /// The response was cut off.
    Failed,
    /// The visitor has reset the stream, or its connection is over.
    Left,
}

fn poll_next(
    body: &mut ResponseBody,
    send: &mut SendStream<Chunk>,
    cx: &mut Context<'_>,
) -> Poll<Next> {
    match Pin::new(body).poll_frame(cx) {
        Poll::Ready(Some(Ok(frame))) => Poll::Ready(Next::Frame(frame)),
        Poll::Ready(None) => Poll::Ready(Next::End),
        Poll::Ready(Some(Err(_))) => Poll::Ready(Next::Failed),
        Poll::Pending => send.poll_reset(cx).map(|_| Next::Left),
    }
}

/// Waits until h2 accepts more bytes. Returns whether the stream is still open.
fn poll_capacity(send: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<bool> {
    while send.capacity() == 0 {
        if !matches!(ready!(send.poll_capacity(cx)), Some(Ok(_))) {
            return Poll::Ready(false);
        }
    }
    Poll::Ready(true)
}

/// The value of `date`, for responses of services that do not send one (P-3.8).
fn date() -> HeaderValue {
    thread_local! {
        /// The last value and its second.
        static DATE: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, date)| {
        if *written != second
            && let Ok(value) = HeaderValue::try_from(httpdate::fmt_http_date(now))
        {
            (*written, *date) = (second, value);
        }
        date.clone()
    })
}
