//! One request of a connection, and its response.

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
    body::{Chunk, ResponseBody},
    call,
    connection::Connection,
    http::Http,
    inbound::Inbound,
    layers::is_hop_by_hop,
    ordered::retain,
};

/// Serves one request. Dropped, or when the visitor resets the stream, the request is given up.
pub(super) async fn serve(
    http: Arc<Http>,
    connection: Arc<Connection>,
    request: Request<RecvStream>,
    respond: SendResponse<Chunk>,
) {
    let (parts, recv) = request.into_parts();
    // What follows a CONNECT is not a body.
    let (body, recv) = if parts.method == Method::CONNECT {
        (Inbound::None, Some(recv))
    } else {
        (Inbound::on_stream(recv, &parts.headers), None)
    };
    let request = Request::from_parts(parts, body);
    let responder = Responder::new(respond);
    let called = {
        let mut call = pin!(call::serve(http, connection, request, Some(&responder)));
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(called) => Poll::Ready(Some(called)),
            Poll::Pending => responder.poll_reset(cx).map(|()| None),
        })
        .await
    };
    let response = match called {
        Some(Ok(response)) => response,
        Some(Err(_)) => return responder.reset(Reason::INTERNAL_ERROR),
        // The visitor has left.
        None => return,
    };
    let (mut parts, body) = response.into_parts();
    retain(&mut parts.headers, |name| {
        !is_hop_by_hop(name.as_str().as_bytes())
    });
    parts.headers.entry(DATE).or_insert_with(date);
    let body = match (body, recv) {
        (ResponseBody::WebSocket(websocket), Some(recv)) => {
            let head = Response::from_parts(parts, ());
            if let Ok(send) = responder.send(head, false) {
                let is_gone = |tunnel: &mut Tunnel, cx: &mut Context<'_>| tunnel.is_gone(cx);
                let tunnel = Tunnel::new(send, recv);
                // Apart: the task of every request has room for what it may await.
                drop(Box::pin(websocket.run(tunnel, Bytes::new(), is_gone)).await);
            }
            return;
        }
        (body, _) => body,
    };
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

/// Sends the body of a response, as fast as the visitor gives its windows. One piece of it waits here, beside what h2
/// holds.
async fn send_body(mut body: ResponseBody, mut send: SendStream<Chunk>) {
    // The first piece goes at once: h2 holds it until there is a window, as it would be held here.
    let mut is_first = true;
    loop {
        let frame = match poll_fn(|cx| poll_next(&mut body, &mut send, cx)).await {
            Next::Frame(frame) => frame,
            Next::End => {
                // Fails only when the stream is over, as below.
                let _ = send.send_data(Chunk::Own(Bytes::new()), true);
                return;
            }
            Next::Failed => return send.send_reset(Reason::INTERNAL_ERROR),
            Next::Left => return,
        };
        match frame.into_data() {
            Ok(data) => {
                if data.has_remaining() && !mem::take(&mut is_first) {
                    // Only for what is here: capacity that nothing uses is taken from other streams.
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
    /// The response broke off.
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

/// Waits until h2 takes more. Whether the stream goes on.
fn poll_capacity(send: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<bool> {
    while send.capacity() == 0 {
        if !matches!(ready!(send.poll_capacity(cx)), Some(Ok(_))) {
            return Poll::Ready(false);
        }
    }
    Poll::Ready(true)
}

/// The time, for responses of services that do not give one (P-3.8).
fn date() -> HeaderValue {
    thread_local! {
        /// The second for which it was written, and how.
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
