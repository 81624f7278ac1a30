//! Interim responses (status 100 to 199) on their way to the visitor (P-3.1).
//!
//! Over HTTP/1.1 hyper sends `100 Continue` by itself and no other interim response. Others are written to the
//! visitor's socket beneath hyper, between its writes: the request passes the bytes to the socket and waits until the
//! socket has written them, and the socket writes them only when hyper flushes, which it does once its own buffer is
//! empty. So they are sent after the response to the previous request and before the final response to their own, also
//! when the visitor pipelines requests. Over HTTP/2 all of them are sent on the stream of the request.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use adit_codec::HttpResponse;
use bytes::{Buf, Bytes};
use http::{HeaderName, HeaderValue, Response, StatusCode, Version};
use tokio::io::AsyncWrite;

use crate::forward::headers::is_hop_by_hop;

/// The interim response that waits for the socket: at most one.
#[derive(Debug, Default)]
pub(crate) struct InterimSlot {
    /// `state` contains a response. Avoids the lock on every other flush.
    waits: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: Bytes,
    /// A part of it has been written: the rest is written before anything else.
    begun: bool,
    /// The waker of the request that waits until the response is written.
    waker: Option<Waker>,
}

impl InterimSlot {
    /// Whether a response waits to be written.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Whether a response has been written in part: the rest of it must be written before anything else.
    pub(crate) fn has_begun(&self) -> bool {
        self.waits() && self.lock().begun
    }

    /// Passes a response to the socket, and waits until all of it has been written.
    ///
    /// # Cancel safety
    /// If it is dropped before the first byte was written, no byte is written.
    async fn send(&self, bytes: Bytes) {
        *self.lock() = State {
            bytes,
            begun: false,
            waker: None,
        };
        self.waits.store(true, Ordering::Release);
        let withdraw = Withdraw(self);
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.bytes.is_empty() {
                return Poll::Ready(());
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        drop(withdraw);
    }

    /// Writes the response that waits. Call it only when hyper has no unwritten bytes, or when the response has begun.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        socket: &mut S,
    ) -> Poll<io::Result<()>> {
        let mut state = self.lock();
        while !state.bytes.is_empty() {
            let written = ready!(Pin::new(&mut *socket).poll_write(cx, &state.bytes))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            state.bytes.advance(written);
            state.begun = true;
        }
        state.begun = false;
        self.waits.store(false, Ordering::Release);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Poll::Ready(Ok(()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a response whose request is gone, unless a part of it has been written.
struct Withdraw<'i>(&'i InterimSlot);

impl Drop for Withdraw<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.waker = None;
        if !state.begun && !state.bytes.is_empty() {
            state.bytes = Bytes::new();
            self.0.waits.store(false, Ordering::Release);
        }
    }
}

/// Sends interim responses on a stream of HTTP/2.
pub(crate) trait SendInterim: Send + Sync {
    /// Sends a response, unless the visitor has reset the stream. `100 Continue` is sent once.
    fn send_interim(&self, cx: &mut Context<'_>, response: Response<()>);
}

/// Passes an interim response of the service on to the visitor: on its `stream` over HTTP/2, and never over HTTP/1.0, which
/// does not have them (RFC 9110, 15.2). Over HTTP/1.1 hyper sends `100 Continue` itself, when the body is read.
pub(super) async fn pass_on(
    slot: &InterimSlot,
    version: Version,
    stream: Option<&dyn SendInterim>,
    head: &HttpResponse,
) {
    match stream {
        Some(stream) => send_on(stream, response(head)).await,
        None if version == Version::HTTP_11 && head.status != 100 => slot.send(encode(head)).await,
        None => {}
    }
}

/// Sends `100 Continue` in place of a service that has not sent it. Over HTTP/1.1 hyper sends it.
pub(super) async fn send_continue(stream: Option<&dyn SendInterim>) {
    if let Some(stream) = stream {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::CONTINUE;
        send_on(stream, Some(response)).await;
    }
}

async fn send_on(stream: &dyn SendInterim, response: Option<Response<()>>) {
    let mut response = response;
    poll_fn(|cx| {
        if let Some(response) = response.take() {
            stream.send_interim(cx, response);
        }
        Poll::Ready(())
    })
    .await;
}

/// The response on a stream of HTTP/2.
fn response(head: &HttpResponse) -> Option<Response<()>> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).ok()?;
    for (name, value) in head.headers.iter() {
        if !crosses(&name) {
            continue;
        }
        if let Ok(name) = HeaderName::from_bytes(&name)
            && let Ok(value) = HeaderValue::from_maybe_shared(value)
        {
            response.headers_mut().append(name, value);
        }
    }
    Some(response)
}

/// Whether a line of an interim response is for the visitor. An interim response has no body, and so no length (RFC
/// 9110, 8.6).
fn crosses(name: &[u8]) -> bool {
    !is_hop_by_hop(name) && name != b"content-length"
}

/// The response on an HTTP/1.1 connection. Names and values were checked when the message was decoded.
fn encode(head: &HttpResponse) -> Bytes {
    let status = StatusCode::from_u16(head.status).ok();
    let phrase = status.and_then(|status| status.canonical_reason());
    let start = format!(
        "HTTP/1.1 {} {}\r\n",
        head.status,
        phrase.unwrap_or_default()
    );
    let mut out = start.into_bytes();
    for (name, value) in head.headers.lines() {
        if !crosses(name) {
            continue;
        }
        for part in [name, b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    /// Accepts `room` bytes, then no more.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Poll::Pending;
            }
            self.room -= count;
            self.taken.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn request_continues_when_its_interim_response_is_written() {
        let interim = InterimSlot::default();
        let woken = std::sync::Arc::new(Woken::default());
        let waker = woken.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut sent = Box::pin(interim.send(Bytes::from_static(b"hello")));
        assert!(sent.as_mut().poll(&mut cx).is_pending());
        assert!(interim.waits() && !interim.has_begun());
        let mut socket = Narrow {
            taken: Vec::new(),
            room: 2,
        };
        assert!(interim.poll_write(&mut cx, &mut socket).is_pending());
        assert!(interim.has_begun() && !woken.0.load(Ordering::Relaxed));
        socket.room = 9;
        assert!(interim.poll_write(&mut cx, &mut socket).is_ready());
        assert!(woken.0.load(Ordering::Relaxed) && !interim.waits());
        assert!(sent.as_mut().poll(&mut cx).is_ready());
        assert_eq!(socket.taken, b"hello");
    }

    #[test]
    fn cancelled_request_withdraws_its_interim_response() {
        let interim = InterimSlot::default();
        let mut cx = Context::from_waker(Waker::noop());
        let mut sent = Box::pin(interim.send(Bytes::from_static(b"hello")));
        assert!(sent.as_mut().poll(&mut cx).is_pending());
        drop(sent);
        assert!(!interim.waits());

        let mut sent = Box::pin(interim.send(Bytes::from_static(b"hello")));
        assert!(sent.as_mut().poll(&mut cx).is_pending());
        let mut socket = Narrow {
            taken: Vec::new(),
            room: 2,
        };
        assert!(interim.poll_write(&mut cx, &mut socket).is_pending());
        drop(sent);
        assert!(interim.has_begun(), "the rest of it still has to follow");
    }
}
