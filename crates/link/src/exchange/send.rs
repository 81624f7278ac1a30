//! The direction of a request that this end sends.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering},
    task::{Context, Poll, ready},
    time::Instant,
};

use adit_codec::{Compression, EncodedHead, HeaderBlock, ResetCode, WebSocketFrame};
use adit_mux::{SendError, Sendable};
use bytes::Bytes;

use super::request::{Request, stopped};
use crate::{
    compress::Compressor,
    failure::{Failure, Reason},
    pace::{Pace, Pacer},
};

/// The direction of a request that this end sends. Dropping it before the end cancels the request.
pub struct SendHalf {
    request: Arc<Request>,
    /// Set if compression is on.
    compressor: OnceLock<Mutex<Compressor>>,
    /// Set if the payload of this direction is limited.
    pacer: OnceLock<Box<Mutex<Pacer>>>,
}

impl SendHalf {
    pub(super) const fn new(request: Arc<Request>) -> Self {
        let compressor = OnceLock::new();
        Self {
            request,
            compressor,
            pacer: OnceLock::new(),
        }
    }

    /// Waits until payload may be sent; returns how many bytes.
    ///
    /// # Errors
    /// The request's [`Failure`]; [`Reason::Cancelled`] when the peer sent `StopSending` for this direction, which has
    /// then ended cleanly.
    ///
    /// # Cancel safety
    /// The call reserves nothing.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        // The waker is in place before the credit is read: a change in between wakes it.
        let watch = {
            let mut state = self.request.inbox.lock();
            let over = match state.broken() {
                Some(failure) => Some(failure.clone()),
                None => state.stopped.map(|_| stopped()),
            };
            if let Some(over) = over {
                if let Some(watch) = &state.credit_wait {
                    watch.end();
                }
                return Poll::Ready(Err(over));
            }
            match &mut state.writer {
                Some(writer) => writer.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            state.credit_wait.clone()
        };
        let ready = match self.request.lane.mux().sendable(self.request.id) {
            Ok(Sendable::Now(bytes)) => Poll::Ready(Ok(bytes)),
            Ok(Sendable::Later) => Poll::Pending,
            Err(error) => Poll::Ready(Err(self.failure_of(&error))),
        };
        if let Some(watch) = watch {
            match ready {
                Poll::Pending => watch.begin(),
                Poll::Ready(_) => watch.end(),
            }
        }
        ready
    }

    /// [`SendHalf::poll_ready`] as a future.
    ///
    /// # Errors
    /// Returns the errors of [`SendHalf::poll_ready`].
    ///
    /// # Cancel safety
    /// The call reserves nothing.
    pub async fn ready(&self) -> Result<usize, Failure> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// From now on [`SendHalf::poll_pace`] allows payload no faster than `pace`. Called once.
    pub fn set_pace(&self, pace: Arc<dyn Pace>) {
        let _ = self.pacer.set(Box::new(Mutex::new(Pacer::new(pace))));
    }

    /// Whether the payload of this direction is limited.
    pub fn is_paced(&self) -> bool {
        self.pacer.get().is_some()
    }

    /// Waits until some of `wanted` bytes may be sent, at least one; returns how many. Called when these bytes are there and
    /// [`SendHalf::poll_ready`] allows them, right before they are sent. At once if the direction is not limited.
    pub fn poll_pace(&self, cx: &mut Context<'_>, wanted: usize) -> Poll<usize> {
        match self.pacer.get() {
            Some(pacer) if wanted > 0 => {
                let mut pacer = lock(pacer);
                let most = pacer.chunk_bytes();
                pacer.poll(cx, 1, wanted, most)
            }
            _ => Poll::Ready(wanted),
        }
    }

    /// After this call, payload of this direction is compressed on the hop if that makes it shorter, if the peer can
    /// inflate it (section 13 of the protocol). Called once; not useful for content that is compressed already
    /// ([`compress::is_compressible`](crate::compress::is_compressible)).
    pub fn set_compression(&self, compression: Option<Compression>) {
        if let Some(by) = compression
            && self.request.lane.may_compress(by)
        {
            let _ = self.compressor.set(Mutex::new(Compressor::new(by)));
        }
    }

    /// Sends payload that [`SendHalf::poll_ready`] allowed; with `end`, ends this direction.
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn send(&self, data: Bytes, end: bool) -> Result<(), Failure> {
        let result = self.send_payload(None, data, end);
        self.ended_if(result, end)
    }

    /// Sends a WebSocket frame with the start of its payload, no more than [`SendHalf::poll_ready`] allowed; the rest
    /// follows with [`SendHalf::send`].
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn send_frame(&self, frame: WebSocketFrame, data: Bytes) -> Result<(), Failure> {
        let result = self.send_payload(Some(frame), data, false);
        self.ended_if(result, false)
    }

    /// Sends the payload of a chunk or of a frame, compressed if compression is on and makes it shorter.
    fn send_payload(
        &self,
        frame: Option<WebSocketFrame>,
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        if let Some(pacer) = self.pacer.get()
            && !data.is_empty()
        {
            lock(pacer).on_sent(data.len());
        }
        let (lane, id) = (&self.request.lane, self.request.id);
        if let Some(compressor) = self.compressor.get() {
            // The lock is held until the message has been sent: messages must be sent in the order in which they were
            // compressed.
            let mut compressor = compressor.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(frame) = frame {
                compressor.on_frame(frame);
            }
            let start = Instant::now();
            let packed = compressor.compress(&data);
            let length = packed.as_ref().map(|(_, packed)| packed.len());
            if !data.is_empty() {
                let took = start.elapsed();
                lane.compression().on_packed(data.len(), length, took);
            }
            if let Some((compressed, packed)) = packed {
                let sent = lane
                    .mux()
                    .send_compressed(id, frame, compressed, packed, end);
                if sent.is_ok() {
                    compressor.sent(&data);
                }
                return sent;
            }
        }
        match frame {
            Some(frame) => lane.mux().send_frame(id, frame, data, end),
            None => lane.mux().send(id, data, end),
        }
    }

    /// Sends a datagram. Never waits: when too many wait to be sent, the oldest are dropped (P-11.3).
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn send_datagram(&self, data: Bytes) -> Result<(), Failure> {
        if let Some(pacer) = self.pacer.get() {
            lock(pacer).on_sent(data.len());
        }
        let result = self.request.lane.mux().send_datagram(self.request.id, data);
        self.ended_if(result, false)
    }

    /// Sends all of `data`, in as many messages as credit requires.
    ///
    /// # Errors
    /// The request's [`Failure`].
    ///
    /// # Cancel safety
    /// None: if it is dropped early, a part of `data` has been sent.
    pub async fn send_all(&self, mut data: Bytes, end: bool) -> Result<(), Failure> {
        while !data.is_empty() {
            let wanted = data.len();
            let allowed = std::future::poll_fn(|cx| {
                let allowed = match ready!(self.poll_ready(cx)) {
                    Ok(allowed) => allowed.min(wanted),
                    Err(failure) => return Poll::Ready(Err(failure)),
                };
                self.poll_pace(cx, allowed).map(Ok)
            });
            let part = data.split_to(allowed.await?);
            let last = end && data.is_empty();
            self.send(part, last)?;
            if last {
                return Ok(());
            }
        }
        if end { self.finish() } else { Ok(()) }
    }

    /// Sends the head of a response, interim or final, with the body that it carries.
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn respond(&self, head: EncodedHead, end: bool) -> Result<(), Failure> {
        let body = head.body_bytes();
        if let Some(pacer) = self.pacer.get()
            && body > 0
        {
            lock(pacer).on_sent(body);
        }
        let result = self.request.lane.mux().respond(self.request.id, head, end);
        self.ended_if(result, end)
    }

    /// Ends this direction.
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn finish(&self) -> Result<(), Failure> {
        self.send(Bytes::new(), true)
    }

    /// Ends this direction with trailers.
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn finish_with(&self, trailers: HeaderBlock) -> Result<(), Failure> {
        let result = self
            .request
            .lane
            .mux()
            .send_trailers(self.request.id, trailers);
        self.ended_if(result, true)
    }

    /// Ends both directions at once: the peer drops what it has not delivered. For a request that has sent nothing, or
    /// that the peer does not need any more.
    pub fn reset(self, code: ResetCode, reason: &str) {
        self.request.reset(code, reason);
    }

    /// Aborts this direction: the peer delivers all that was sent, and then the failure (P-6.2). The peer's direction is
    /// stopped at once.
    pub fn abort(self, code: ResetCode, reason: &str) {
        self.request.abort(code, reason);
    }

    /// Waits until the peer does not read this direction any more: [`SendHalf::failure`] has the reason.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn closed(&self) {
        std::future::poll_fn(|cx| match self.poll_ready(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }

    /// Waits until no part of the peer's direction remains to be delivered. Unlike [`SendHalf::closed`] it does not end at
    /// an abort while parts that were sent before the abort have not been read (P-6.2).
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn abandoned(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.request.inbox.lock();
            if state.is_abandoned() {
                return Poll::Ready(());
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Why the peer does not read this direction any more, if that is so: the failure of the request, or its
    /// `StopSending`.
    pub fn failure(&self) -> Option<Failure> {
        let state = self.request.inbox.lock();
        let stopped = || state.stopped.map(|_| stopped());
        state.broken().cloned().or_else(stopped)
    }

    /// The code of the peer's `StopSending`, if the peer sent one.
    pub fn stopped(&self) -> Option<ResetCode> {
        self.request.inbox.lock().stopped
    }

    fn ended_if(&self, result: Result<(), SendError>, end: bool) -> Result<(), Failure> {
        match result {
            Ok(()) => {
                if end {
                    self.request.sent_all.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(error) => Err(self.failure_of(&error)),
        }
    }

    fn failure_of(&self, error: &SendError) -> Failure {
        if let Some(failure) = self.request.failure() {
            return failure;
        }
        match error {
            // The peer sent `StopSending`, which has not reached the inbox yet.
            SendError::Ended if !self.request.sent_all.load(Ordering::Relaxed) => stopped(),
            SendError::Gone => Failure::new(Reason::LinkLost, "the request is over"),
            SendError::Ended | SendError::NoCredit(_) => {
                Failure::new(Reason::Internal, error.to_string())
            }
        }
    }
}

fn lock(pacer: &Mutex<Pacer>) -> std::sync::MutexGuard<'_, Pacer> {
    pacer.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.request.sent_all.load(Ordering::Relaxed) {
            return;
        }
        let stopped = {
            let state = self.request.inbox.lock();
            if state.broken().is_some() {
                return;
            }
            state.stopped.is_some()
        };
        if stopped {
            // The mux has ended this direction already.
            self.request.sent_all.store(true, Ordering::Relaxed);
        } else {
            self.request
                .reset(ResetCode::Cancelled, "dropped before its end");
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.request.id).finish()
    }
}
