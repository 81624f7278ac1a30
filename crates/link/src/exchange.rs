//! The handle on one request, for the task that serves it on either side.

use std::{
    any::Any,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use adit_codec::{Compression, EncodedHead, HeaderBlock, RequestId, ResetCode, WebSocketFrame};
use adit_mux::{SendError, Sendable};
use adit_pending::Settled;
use bytes::Bytes;

use crate::{
    compress::{NotInflated, Packer, Unpacker},
    credit_wait::CreditWait,
    failure::{Failure, Reason},
    inbox::{Inbox, Part},
    lane::Lane,
    payload::Payload,
};

/// One request: both directions of it.
#[derive(Debug)]
pub struct Exchange {
    /// Our direction.
    pub send: SendHalf,
    /// The peer's direction.
    pub recv: RecvHalf,
}

/// What both halves share. When the last of them is gone, the request settles.
pub(crate) struct Core {
    lane: Arc<Lane>,
    id: RequestId,
    inbox: Arc<Inbox>,
    sent_all: AtomicBool,
    received_all: AtomicBool,
    /// The peer was asked to stop before its end had come.
    gave_up_reading: AtomicBool,
}

impl Core {
    pub(crate) fn consume(&self, cost: u64) {
        self.inbox.consumed(cost);
        self.lane.consumed(self.id, cost);
    }

    fn failure(&self) -> Option<Failure> {
        self.inbox.lock().broken().cloned()
    }

    /// Both directions have ended; payload may still be on its way to a socket.
    fn is_over(&self) -> bool {
        self.sent_all.load(Ordering::Relaxed) && self.received_all.load(Ordering::Relaxed)
    }

    fn is_opener(&self) -> bool {
        self.id.opener() == self.lane.mux().side()
    }

    fn reset(&self, code: ResetCode, reason: &str) {
        self.lane.mux().reset(self.id, code, reason);
        self.inbox
            .fail(Failure::new(Reason::Cancelled, "ended by this side"));
    }

    fn abort(&self, code: ResetCode, reason: &str) {
        self.lane.mux().abort(self.id, code, reason);
        self.inbox
            .fail(Failure::new(Reason::Cancelled, "ended by this side"));
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // An opener that gave up the answer has nothing to wait for. It must not rely on the peer to end its direction:
        // one that never does would leave the request in the mux for ever.
        let given_up = self.is_opener() && self.gave_up_reading.load(Ordering::Relaxed);
        let whole = self.is_over() && !given_up;
        let failed = self.failure().map(|failure| failure.reason);
        let how = match failed {
            Some(Reason::Cancelled) => Settled::Cancelled,
            Some(_) => Settled::Failed,
            None if whole => Settled::Completed,
            None => Settled::Cancelled,
        };
        // Of one that broke off nothing crosses any more, but what was not read of it is still charged.
        if self.inbox.lock().failure.is_none() && how != Settled::Completed {
            self.lane
                .mux()
                .reset(self.id, ResetCode::Cancelled, "the other side left");
        }
        self.lane.settle(self.id, how, &self.inbox);
    }
}

impl Exchange {
    pub(crate) fn new(lane: Arc<Lane>, id: RequestId, inbox: Arc<Inbox>, sent_all: bool) -> Self {
        let core = Arc::new(Core {
            lane,
            id,
            inbox,
            sent_all: AtomicBool::new(sent_all),
            received_all: AtomicBool::new(false),
            gave_up_reading: AtomicBool::new(false),
        });
        Self {
            send: SendHalf {
                core: core.clone(),
                packer: OnceLock::new(),
            },
            recv: RecvHalf {
                core,
                unpacker: Unpacker::default(),
            },
        }
    }

    /// Ties something to the request, such as its permits: it is dropped when the request settles or fails, whichever
    /// comes first. A second call replaces the first one's.
    pub fn hold(&self, held: impl Any + Send) {
        self.recv.core.inbox.hold(Box::new(held));
    }

    /// How long what waits for this request's task may lie untouched before the request is reset; by default what the
    /// lane is told. Sessions that people sit before may pause for longer than an HTTP exchange.
    pub fn set_stall(&self, stall: Duration) {
        self.recv.core.inbox.lock().stall = Some(stall);
    }

    /// From now on `watch` measures how long our direction waits until payload may be sent, whoever asks:
    /// [`SendHalf::poll_ready`] and what is built on it. A second call replaces the first one's.
    pub fn watch_credit(&self, watch: Arc<CreditWait>) {
        self.recv.core.inbox.lock().credit_wait = Some(watch);
    }

    /// The request's id on its data stream.
    pub fn id(&self) -> RequestId {
        self.recv.core.id
    }
}

/// Our direction of a request. Dropping it before the end cancels the request.
pub struct SendHalf {
    core: Arc<Core>,
    /// Compresses its payload, where that was asked for.
    packer: OnceLock<Mutex<Packer>>,
}

impl SendHalf {
    /// Waits until payload may be sent; gives how many bytes.
    ///
    /// # Errors
    /// The request's [`Failure`]; [`Reason::Cancelled`] when the peer wants no more of this direction, which has then
    /// ended cleanly.
    ///
    /// # Cancel safety
    /// Nothing is reserved.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Failure>> {
        // The waker is in place before the question is asked: an answer that changes in between wakes it.
        let watch = {
            let mut state = self.core.inbox.lock();
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
        let ready = match self.core.lane.mux().sendable(self.core.id) {
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
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is reserved.
    pub async fn ready(&self) -> Result<usize, Failure> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await
    }

    /// From now on payload of this direction is compressed on the hop where that makes it shorter, if the peer can
    /// inflate it (section 13 of the protocol). Said once; what is compressed already should not be asked for
    /// ([`compress::is_compressible`](crate::compress::is_compressible)).
    pub fn set_compression(&self, compression: Option<Compression>) {
        if let Some(by) = compression
            && self.core.lane.may_compress(by)
        {
            let _ = self.packer.set(Mutex::new(Packer::new(by)));
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

    /// Sends the payload of a chunk or of a frame, compressed if that was asked for and makes it shorter.
    fn send_payload(
        &self,
        frame: Option<WebSocketFrame>,
        data: Bytes,
        end: bool,
    ) -> Result<(), SendError> {
        let (lane, id) = (&self.core.lane, self.core.id);
        if let Some(packer) = self.packer.get() {
            // Held until it has been sent: messages cross in the order in which they were compressed.
            let mut packer = packer.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(frame) = frame {
                packer.on_frame(frame);
            }
            let start = Instant::now();
            let packed = packer.pack(&data);
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
                    packer.sent(&data);
                }
                return sent;
            }
        }
        match frame {
            Some(frame) => lane.mux().send_frame(id, frame, data, end),
            None => lane.mux().send(id, data, end),
        }
    }

    /// Sends a datagram. Never waits: when too many wait to leave, the oldest are dropped (P-11.3).
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn send_datagram(&self, data: Bytes) -> Result<(), Failure> {
        let result = self.core.lane.mux().send_datagram(self.core.id, data);
        self.ended_if(result, false)
    }

    /// Sends all of `data`, in as many messages as credit wants.
    ///
    /// # Errors
    /// The request's [`Failure`].
    ///
    /// # Cancel safety
    /// None: dropped in the middle, part of `data` has been sent.
    pub async fn send_all(&self, mut data: Bytes, end: bool) -> Result<(), Failure> {
        while !data.is_empty() {
            let allowed = self.ready().await?;
            let part = data.split_to(allowed.min(data.len()));
            let last = end && data.is_empty();
            self.send(part, last)?;
            if last {
                return Ok(());
            }
        }
        if end { self.finish() } else { Ok(()) }
    }

    /// Sends an answer's head: interim or final, with the body that rides in it.
    ///
    /// # Errors
    /// The request's [`Failure`].
    pub fn answer(&self, head: EncodedHead, end: bool) -> Result<(), Failure> {
        let result = self.core.lane.mux().answer(self.core.id, head, end);
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
        let result = self.core.lane.mux().send_trailers(self.core.id, trailers);
        self.ended_if(result, true)
    }

    /// Ends both directions at once: the peer drops what it has not delivered. For a request of which nothing has been
    /// sent, or that can be of no use to the peer any more.
    pub fn reset(self, code: ResetCode, reason: &str) {
        self.core.reset(code, reason);
    }

    /// Breaks this direction off: the peer delivers all that was sent, and then the failure (P-6.2). The peer's direction
    /// is stopped at once.
    pub fn abort(self, code: ResetCode, reason: &str) {
        self.core.abort(code, reason);
    }

    /// Waits until nobody wants what this direction sends: [`SendHalf::failure`] says why.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn gone(&self) {
        std::future::poll_fn(|cx| match self.poll_ready(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ => Poll::Pending,
        })
        .await;
    }

    /// Why nobody waits for this direction any more, if that is so: the request's failure, or that the peer wants no more
    /// of it.
    pub fn failure(&self) -> Option<Failure> {
        let state = self.core.inbox.lock();
        let stopped = || state.stopped.map(|_| stopped());
        state.broken().cloned().or_else(stopped)
    }

    /// The code with which the peer asked to end this direction, if it did.
    pub fn stopped(&self) -> Option<ResetCode> {
        self.core.inbox.lock().stopped
    }

    fn ended_if(&self, result: Result<(), SendError>, end: bool) -> Result<(), Failure> {
        match result {
            Ok(()) => {
                if end {
                    self.core.sent_all.store(true, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(error) => Err(self.failure_of(&error)),
        }
    }

    fn failure_of(&self, error: &SendError) -> Failure {
        if let Some(failure) = self.core.failure() {
            return failure;
        }
        match error {
            // Not by us: the peer has asked for it, and the word has not reached the inbox yet.
            SendError::Ended if !self.core.sent_all.load(Ordering::Relaxed) => stopped(),
            SendError::Gone => Failure::new(Reason::LinkLost, "the request is over"),
            SendError::Ended | SendError::NoCredit(_) => {
                Failure::new(Reason::Internal, error.to_string())
            }
        }
    }
}

fn stopped() -> Failure {
    Failure::new(Reason::Cancelled, "the other side wants no more of it")
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.core.sent_all.load(Ordering::Relaxed) {
            return;
        }
        let stopped = {
            let state = self.core.inbox.lock();
            if state.broken().is_some() {
                return;
            }
            state.stopped.is_some()
        };
        if stopped {
            // The mux has ended this direction in our name.
            self.core.sent_all.store(true, Ordering::Relaxed);
        } else {
            self.core.reset(ResetCode::Cancelled, "broken off");
        }
    }
}

impl fmt::Debug for SendHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SendHalf").field(&self.core.id).finish()
    }
}

/// The peer's direction of a request. Dropping it before the end asks the peer to stop; an opener that has sent all
/// cancels the request.
pub struct RecvHalf {
    core: Arc<Core>,
    unpacker: Unpacker,
}

impl RecvHalf {
    /// The next part; `None` at the end.
    ///
    /// # Errors
    /// The request's [`Failure`]: in its place behind the last part when the peer's direction broke off there
    /// ([`RecvHalf::is_broken_off`]), before what has not been read when the request is lost or was reset.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Failure>>> {
        let mut state = self.core.inbox.lock();
        if let Some(failure) = &state.failure {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        if let Some(part) = state.take_part() {
            let last = state.ended && state.parts.is_empty();
            drop(state);
            if last {
                self.core.received_all.store(true, Ordering::Relaxed);
            }
            return Poll::Ready(Some(match part {
                Part::Data(payload) => self.unpack(payload).map(Part::Data),
                Part::Frame(frame, payload) => {
                    let payload = self.unpack(payload);
                    payload.map(|payload| Part::Frame(frame, payload))
                }
                part => Ok(part),
            }));
        }
        // An end that has come stands before what broke off behind it.
        if state.ended {
            drop(state);
            self.core.received_all.store(true, Ordering::Relaxed);
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

    /// Payload as it was, with the credit that it is to give back. When it is not what its message said, the request is
    /// over (P-13.5).
    fn unpack(&mut self, mut payload: Payload) -> Result<Payload, Failure> {
        let (lane, unpacker) = (&self.core.lane, &mut self.unpacker);
        let unpacked = payload.unpack(|compressed, packed| {
            let start = Instant::now();
            let plain = unpacker.unpack(compressed, packed)?;
            let took = start.elapsed();
            lane.compression()
                .on_unpacked(packed.len(), plain.len(), took);
            Ok(plain)
        });
        match unpacked {
            Ok(()) => Ok(payload.attach(&self.core)),
            Err(NotInflated) => {
                let reason = "payload that does not inflate to what was announced";
                lane.fault(self.core.id, &self.core.inbox, reason);
                // What was first stands: it may have failed for something else in the meantime.
                Err(self.core.failure().unwrap_or_else(stopped))
            }
        }
    }

    /// [`RecvHalf::poll_part`] as a future.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn part(&mut self) -> Option<Result<Part, Failure>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }

    /// Waits until the request has failed, without taking anything: for whoever holds a part that it cannot pass on.
    ///
    /// # Cancel safety
    /// Yes.
    pub fn poll_failure(&self, cx: &mut Context<'_>) -> Poll<Failure> {
        let mut state = self.core.inbox.lock();
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

    /// Whether all that the peer sent has been read and its direction broke off behind it (P-6.2): what has been read is
    /// to be delivered before the failure is.
    pub fn is_broken_off(&self) -> bool {
        let state = self.core.inbox.lock();
        state.failure.is_none() && state.broke_off().is_some()
    }

    /// Waits until all that the peer has sent has been read and let go of, which is when it has been written; or until the
    /// request has failed. Asked once nothing more is to come.
    pub fn poll_delivered(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.core.inbox.lock();
        if state.failure.is_some() || (state.waiting == 0 && state.parts.is_empty()) {
            return Poll::Ready(());
        }
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Whether the end has come, read or not.
    pub fn is_whole(&self) -> bool {
        let state = self.core.inbox.lock();
        state.ended && state.failure.is_none()
    }

    /// Something that ends the request from elsewhere, as a timer does.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            core: Arc::downgrade(&self.core),
        }
    }

    /// Ends both directions, saying why.
    pub fn reset(self, code: ResetCode, reason: &str) {
        self.core.reset(code, reason);
    }

    /// Whether all parts have been read, and the end.
    pub fn is_ended(&self) -> bool {
        let state = self.core.inbox.lock();
        state.ended && state.parts.is_empty() && state.failure.is_none()
    }

    /// Asks the peer to end its direction; what has come can still be read, what still comes is dropped (P-6.1).
    pub fn close(&self, code: ResetCode) {
        self.core.inbox.close();
        self.core.lane.stop_sending(self.core.id, code);
    }

    /// Asks the peer to end its direction; what still comes is dropped (P-6.1).
    pub fn stop(self, code: ResetCode) {
        self.stop_with(code);
    }

    fn stop_with(&self, code: ResetCode) {
        self.core.received_all.store(true, Ordering::Relaxed);
        if self.core.inbox.discard() {
            self.core.gave_up_reading.store(true, Ordering::Relaxed);
        }
        self.core.lane.stop_sending(self.core.id, code);
    }
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        if self.core.received_all.load(Ordering::Relaxed) {
            return;
        }
        let (failed, ended) = {
            let state = self.core.inbox.lock();
            (
                state.failure.is_some(),
                state.ended && state.parts.is_empty(),
            )
        };
        // Nobody sends and nobody reads: the request is cancelled when the core goes.
        let is_over = self.core.is_opener() && self.core.sent_all.load(Ordering::Relaxed);
        if ended {
            self.core.received_all.store(true, Ordering::Relaxed);
        } else if !failed && !is_over {
            // An answer may be whole before the request is, and then stands: no reset may overtake it (P-3.6).
            self.stop_with(ResetCode::Cancelled);
        }
    }
}

/// Ends a request that its task may not come to look after in time: one that waits for a slow visitor does not run.
/// Keeps nothing open.
#[derive(Clone)]
pub struct Canceller {
    core: Weak<Core>,
}

impl Canceller {
    /// Ends both directions, saying why; its halves fail with [`Reason::Cancelled`]. Does nothing when the request is
    /// over.
    pub fn reset(&self, code: ResetCode, reason: &str) {
        if let Some(core) = self.core.upgrade()
            && !core.is_over()
        {
            core.reset(code, reason);
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

impl fmt::Debug for RecvHalf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RecvHalf").field(&self.core.id).finish()
    }
}
