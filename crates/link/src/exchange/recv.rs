//! The peer's direction of a request.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Instant,
};

use adit_codec::ResetCode;

use super::{
    canceller::Canceller,
    request::{Request, stopped},
};
use crate::{
    compress::{Decompressor, InflateError},
    failure::Failure,
    inbox::{Arrived, Packed},
    pace::{Pace, Pacer},
    part::Part,
    payload::Payload,
};

/// Payload that reserves one slot: senders with small parts get as much as those with large ones.
const MOST_AHEAD: usize = 64 * 1024;

/// The peer's direction of a request. Dropping it before the end sends `StopSending` to the peer; an opener that has sent
/// all cancels the request.
pub struct RecvHalf {
    request: Arc<Request>,
    decompressor: Decompressor,
    /// Set if the payload of this direction is limited.
    pacer: Option<Box<Pacer>>,
}

impl RecvHalf {
    pub(super) fn new(request: Arc<Request>) -> Self {
        let decompressor = Decompressor::default();
        Self {
            request,
            decompressor,
            pacer: None,
        }
    }

    /// From now on [`RecvHalf::poll_part`] returns payload no faster than `pace` allows. Its credit waits as well, so that the
    /// sender is slowed down.
    pub fn set_pace(&mut self, pace: Arc<dyn Pace>) {
        self.pacer = Some(Box::new(Pacer::new(pace)));
    }

    pub(super) fn request(&self) -> &Request {
        &self.request
    }

    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// The request's [`Failure`]: after the last part when the peer's direction broke off there
    /// ([`RecvHalf::is_aborted`]); before unread parts when the request is lost or was reset.
    ///
    /// # Cancel safety
    /// No part is lost.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Failure>>> {
        let mut state = self.request.inbox.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        if let Some(pacer) = &mut self.pacer {
            let (first, all) = state.payload_ahead(MOST_AHEAD);
            if first == 0 {
                pacer.release();
            } else if pacer.poll(cx, first, all, MOST_AHEAD).is_pending() {
                state.paced_until = pacer.begins().map(tokio::time::Instant::into_std);
                // A failure does not wait.
                match &mut state.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            } else {
                state.paced_until = None;
                pacer.on_part_sent(first);
            }
        }
        if let Some(part) = state.take_part() {
            let last = state.ended && state.parts.is_empty();
            drop(state);
            if last {
                self.request.received_all.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(Some(match part {
                Arrived::Response(head) => Ok(Part::Response(head)),
                Arrived::Data(packed) => self.decompress(packed).map(Part::Data),
                Arrived::Frame(frame, packed) => {
                    let payload = self.decompress(packed);
                    payload.map(|payload| Part::Frame(frame, payload))
                }
                Arrived::Datagram(data) => Ok(Part::Datagram(data)),
                Arrived::Trailers(trailers) => Ok(Part::Trailers(trailers)),
            }));
        }
        // An end that has arrived counts, even before an abort.
        if state.ended {
            drop(state);
            self.request.received_all.store(true, Ordering::Relaxed);
            return Poll::Ready(None);
        }
        if let Some(failure) = state.broke_off() {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The payload decompressed, with the credit that returns to the sender when it is dropped. A payload that does not
    /// match the announced size ends the request (P-13.5).
    fn decompress(&mut self, packed: Packed) -> Result<Payload, Failure> {
        let lane = &self.request.lane;
        let Packed {
            mut bytes,
            compressed,
            cost,
        } = packed;
        if let Some(compressed) = compressed {
            let start = Instant::now();
            match self.decompressor.decompress(compressed, &bytes) {
                Ok(plain) => {
                    let took = start.elapsed();
                    lane.compression()
                        .on_unpacked(bytes.len(), plain.len(), took);
                    bytes = plain;
                }
                Err(InflateError) => {
                    let reason = "decompressed size does not match the announced size";
                    lane.fault(self.request.id, &self.request.inbox, reason);
                    // The request may have failed for another reason in the meantime: the first failure counts.
                    return Err(self.request.failure().unwrap_or_else(stopped));
                }
            }
        }
        Ok(Payload::new(bytes, self.request.clone(), cost))
    }

    /// [`RecvHalf::poll_part`] as a future.
    ///
    /// # Errors
    /// Returns the errors of [`RecvHalf::poll_part`].
    ///
    /// # Cancel safety
    /// No part is lost.
    pub async fn part(&mut self) -> Option<Result<Part, Failure>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    /// Waits until the request has failed, without taking a part: for a task that holds a part that it cannot pass on.
    ///
    /// # Cancel safety
    /// Yes.
    pub fn poll_failure(&self, cx: &mut Context<'_>) -> Poll<Failure> {
        let mut state = self.request.inbox.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(failure.clone());
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// [`RecvHalf::poll_failure`] as a future.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn failed(&self) -> Failure {
        std::future::poll_fn(|cx| self.poll_failure(cx)).await
    }

    /// Whether the peer aborted its direction and everything before the abort has been read (P-6.2): deliver that before
    /// the failure.
    pub fn is_aborted(&self) -> bool {
        let state = self.request.inbox.lock();
        state.failure.is_none() && state.broke_off().is_some()
    }

    /// Waits until every payload of the peer has been read and dropped, which is when it has been written, or until the
    /// request has failed. For use after the end of the peer's direction.
    pub fn poll_delivered(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.request.inbox.lock();
        if state.failure.is_some() || (state.waiting == 0 && state.parts.is_empty()) {
            return Poll::Ready(());
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether the end has arrived, read or not.
    pub fn is_complete(&self) -> bool {
        let state = self.request.inbox.lock();
        state.ended && state.failure.is_none()
    }

    /// A handle that ends the request from another task, such as a timer.
    pub fn canceller(&self) -> Canceller {
        Canceller::new(&self.request)
    }

    /// Ends both directions with a reason.
    pub fn reset(self, code: ResetCode, reason: &str) {
        self.request.reset(code, reason);
    }

    /// Whether all parts and the end have been read.
    pub fn is_ended(&self) -> bool {
        let state = self.request.inbox.lock();
        state.ended && state.parts.is_empty() && state.failure.is_none()
    }

    /// Sends `StopSending` (P-6.1): parts that have arrived can still be read, later ones are dropped.
    pub fn close(&self, code: ResetCode) {
        self.request.inbox.close();
        self.request.lane.stop_sending(self.request.id, code);
    }

    /// Sends `StopSending` (P-6.1): later parts are dropped.
    pub fn stop(self, code: ResetCode) {
        self.stop_with(code);
    }

    fn stop_with(&self, code: ResetCode) {
        self.request.received_all.store(true, Ordering::Relaxed);
        if self.request.inbox.discard() {
            self.request.gave_up_reading.store(true, Ordering::Relaxed);
        }
        self.request.lane.stop_sending(self.request.id, code);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if self.request.received_all.load(Ordering::Relaxed) {
            return;
        }
        let (failed, ended) = {
            let state = self.request.inbox.lock();
            (
                state.failure.is_some(),
                state.ended && state.parts.is_empty(),
            )
        };
        // Neither direction is in use: the request is cancelled when its last handle is dropped.
        let is_over = self.request.is_opener() && self.request.sent_all.load(Ordering::Relaxed);
        if ended {
            self.request.received_all.store(true, Ordering::Relaxed);
        } else if !failed && !is_over {
            // The response may be complete before its request: no reset may be sent before the rest of it (P-3.6).
            self.stop_with(ResetCode::Cancelled);
        }
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvHalf").field(&self.request.id).finish()
    }
}
