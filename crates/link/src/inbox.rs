//! The parts that have arrived for one request and wait for its task.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use adit_codec::{Compressed, HeaderBlock, ResetCode, ResponseHead, WebSocketFrame};
use bytes::Bytes;

use crate::{credit_wait::CreditWait, failure::Failure};

/// One message of the peer that waits here; see [`crate::Part`].
pub(crate) enum Arrived {
    Response(ResponseHead),
    Data(Packed),
    Frame(WebSocketFrame, Packed),
    Datagram(Bytes),
    Trailers(HeaderBlock),
}

impl Arrived {
    /// Bytes of payload, uncompressed.
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Data(packed) | Self::Frame(_, packed) => {
                let bytes = packed.cost.saturating_sub(adit_flow::MESSAGE_COST);
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }
            Self::Datagram(data) => data.len(),
            Self::Response(_) | Self::Trailers(_) => 0,
        }
    }
}

/// Payload that has not been read yet, as received. If it is dropped here, no credit is returned: its request is over.
pub(crate) struct Packed {
    pub(crate) bytes: Bytes,
    pub(crate) compressed: Option<Compressed>,
    pub(crate) cost: u64,
}

/// The progress of a request at the last check for stalled ones.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    pub(crate) consumed: u64,
    pub(crate) since: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) parts: VecDeque<Arrived>,
    /// No more parts follow.
    pub(crate) ended: bool,
    /// The task does not read any more: later parts are dropped, also those of a frame that is being handled.
    discarding: bool,
    /// Both directions have failed. Takes precedence over `parts`, which are not read any more.
    pub(crate) failure: Option<Failure>,
    /// The peer aborted its direction after `parts`, which are still to be read (P-6.2). Our direction is over.
    aborted: Option<Failure>,
    /// The code of the peer's `StopSending` for this end's direction.
    pub(crate) stopped: Option<ResetCode>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Measures how long this end's direction waits.
    pub(crate) credit_wait: Option<Arc<CreditWait>>,
    /// Cost returned so far, for the check for stalled requests.
    pub(crate) consumed: u64,
    /// Cost of the waiting parts.
    pub(crate) waiting: u64,
    pub(crate) progress: Option<Progress>,
    /// Bytes of the waiting datagrams.
    datagram_bytes: usize,
    /// A request whose parts wait for longer than this is reset; `None`: the setting of the lane.
    pub(crate) stall: Option<Duration>,
    /// The reader waits for its pace until this time: the request is not stalled (P-16.3).
    pub(crate) paced_until: Option<Instant>,
    /// Interim responses so far: they cost no credit.
    interim: u8,
    /// Resources that the request holds while it runs: permits, load.
    pub(crate) held: Option<Box<dyn Any + Send>>,
}

/// The most interim responses of one request.
const MAX_INTERIM: u8 = 16;

/// Bytes of datagrams that may wait for the task that forwards them: all that may have waited at the sender, which may
/// arrive in one frame, and those that arrive until the task runs.
const MAX_DATAGRAM_BYTES: usize = 1 << 20;

/// The cost of a waiting datagram beyond its bytes, as of a message (P-4.1): empty datagrams must not be free of cost.
#[allow(clippy::cast_possible_truncation)] // it is small
pub(crate) const DATAGRAM_OVERHEAD: usize = adit_flow::MESSAGE_COST as usize;

impl State {
    /// Why both directions, or this end's, have failed: the reader may still have parts to read.
    pub(crate) fn broken(&self) -> Option<&Failure> {
        self.failure.as_ref().or(self.aborted.as_ref())
    }

    /// Why the peer aborted its direction, once all parts before the abort have been read.
    pub(crate) fn broke_off(&self) -> Option<&Failure> {
        self.aborted.as_ref().filter(|_| self.parts.is_empty())
    }

    /// Whether no part of the peer's direction remains to be delivered. Parts before an abort remain.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_stopped = self.stopped.is_some() && self.aborted.is_none();
        self.failure.is_some() || self.broke_off().is_some() || is_stopped
    }

    /// Takes the held resources once the peer has aborted and all parts before the abort have been delivered: the task
    /// may never read the failure.
    fn take_held_at_abort(&mut self) -> Option<Box<dyn Any + Send>> {
        if self.waiting == 0 && self.broke_off().is_some() {
            return self.held.take();
        }
        None
    }

    /// Bytes of payload in the first part, and in the first parts together up to about `most`.
    pub(crate) fn payload_ahead(&self, most: usize) -> (usize, usize) {
        let mut sizes = self.parts.iter().map(Arrived::payload_bytes);
        let first = sizes.next().unwrap_or(0);
        let mut all = first;
        for bytes in sizes {
            if all >= most {
                break;
            }
            all += bytes;
        }
        (first, all)
    }

    /// The next part for the request's task.
    pub(crate) fn take_part(&mut self) -> Option<Arrived> {
        let part = self.parts.pop_front()?;
        if let Arrived::Datagram(data) = &part {
            self.datagram_bytes -= data.len() + DATAGRAM_OVERHEAD;
        }
        Some(part)
    }
}

/// The inbox is shared by the lane's reader, which fills it, and the request's task.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

impl Inbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends a part and wakes the reader. A part that will not be read is dropped: its credit need not be returned.
    pub(crate) fn deliver(&self, part: Arrived, cost: u64, end: bool) {
        let mut state = self.lock();
        if state.discarding || state.failure.is_some() {
            drop(state);
            drop(part);
            return;
        }
        state.waiting += cost;
        state.parts.push_back(part);
        state.ended |= end;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Appends a datagram if there is room for it. Returns whether there was room.
    pub(crate) fn try_deliver_datagram(&self, data: Bytes, end: bool) -> bool {
        let mut state = self.lock();
        if state.discarding || state.failure.is_some() {
            return true;
        }
        let bytes = data.len() + DATAGRAM_OVERHEAD;
        let fits = state.datagram_bytes + bytes <= MAX_DATAGRAM_BYTES;
        if fits {
            state.datagram_bytes += bytes;
            state.parts.push_back(Arrived::Datagram(data));
        }
        state.ended |= end;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
        fits
    }

    /// Whether another interim response is within the bound.
    pub(crate) fn take_interim(&self) -> bool {
        let mut state = self.lock();
        state.interim = state.interim.saturating_add(1);
        state.interim <= MAX_INTERIM
    }

    /// Drops the waiting parts and later ones. Returns whether the end had not arrived yet.
    pub(crate) fn discard(&self) -> bool {
        let mut state = self.lock();
        let unread = std::mem::take(&mut state.parts);
        let early = !std::mem::replace(&mut state.ended, true);
        state.discarding = true;
        state.waiting = 0;
        state.datagram_bytes = 0;
        drop(state);
        drop(unread);
        early
    }

    /// Drops later parts; the waiting ones are the last.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.ended = true;
        state.discarding = true;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }

    /// Fails both directions. Drops the parts that wait and the held resources, outside of the lock: a visitor that
    /// does not continue to read must not hold a permit forever.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.lock();
        state.failure.get_or_insert(failure);
        let unread = (std::mem::take(&mut state.parts), state.held.take());
        state.waiting = 0;
        state.datagram_bytes = 0;
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        drop(unread);
        wake(reader);
        wake(writer);
    }

    /// Ends the peer's direction with a failure after the parts that have arrived, and ends this end's direction.
    pub(crate) fn abort(&self, failure: Failure) {
        let mut state = self.lock();
        state.aborted.get_or_insert(failure);
        let held = state.take_held_at_abort();
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        drop(held);
        wake(reader);
        wake(writer);
    }

    pub(crate) fn stop(&self, code: ResetCode) {
        let mut state = self.lock();
        state.stopped = Some(code);
        let writer = state.writer.take();
        drop(state);
        wake(writer);
    }

    pub(crate) fn writable(&self) {
        let writer = self.lock().writer.take();
        wake(writer);
    }

    pub(crate) fn hold(&self, held: Box<dyn Any + Send>) {
        let mut state = self.lock();
        let over = if state.broken().is_none() {
            state.held.replace(held)
        } else {
            Some(held)
        };
        drop(state);
        drop(over);
    }

    pub(crate) fn release_held(&self) {
        let held = self.lock().held.take();
        drop(held);
    }

    pub(crate) fn consumed(&self, cost: u64) {
        let mut state = self.lock();
        state.consumed += cost;
        state.waiting = state.waiting.saturating_sub(cost);
        let held = state.take_held_at_abort();
        let over = state.waiting == 0 && (state.ended || state.aborted.is_some());
        let reader = if over { state.reader.take() } else { None };
        drop(state);
        drop(held);
        wake(reader);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicUsize, atomic::Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::failure::Reason;

    fn deliver(inbox: &Inbox) {
        let payload = Packed {
            bytes: Bytes::from_static(b"x"),
            compressed: None,
            cost: 33,
        };
        inbox.deliver(Arrived::Data(payload), 33, false);
    }

    fn waits(inbox: &Inbox) -> (usize, u64) {
        let state = inbox.lock();
        (state.parts.len(), state.waiting)
    }

    /// Regression: the rest of a frame was kept, and counted as waiting forever.
    #[test]
    fn parts_after_a_stop_or_a_failure_are_dropped() {
        let inbox = Inbox::default();
        deliver(&inbox);
        deliver(&inbox);
        assert_eq!(waits(&inbox), (2, 66));
        assert!(inbox.discard(), "its end has not come");
        deliver(&inbox);
        assert_eq!(waits(&inbox), (0, 0));
        assert!(!inbox.discard());

        let inbox = Inbox::default();
        deliver(&inbox);
        inbox.fail(Failure::new(Reason::LinkLost, "first"));
        inbox.fail(Failure::new(Reason::Stalled, "second"));
        deliver(&inbox);
        assert_eq!(waits(&inbox), (0, 0));
        // The credit of a payload that is still being written is returned later.
        inbox.consumed(33);
        assert_eq!(waits(&inbox), (0, 0));
        let failure = inbox.lock().failure.clone().unwrap();
        assert_eq!(failure.reason, Reason::LinkLost, "the first failure counts");
    }

    #[test]
    fn p_6_2_an_abort_comes_behind_the_parts_before_it() {
        struct Held(Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let released = Arc::new(AtomicUsize::new(0));
        let inbox = Inbox::default();
        inbox.hold(Box::new(Held(released.clone())));
        deliver(&inbox);
        inbox.abort(Failure::new(Reason::ServiceAborted, "first"));
        {
            let mut state = inbox.lock();
            assert!(state.broken().is_some() && state.failure.is_none());
            assert!(state.broke_off().is_none(), "a part stands before it");
            assert!(state.take_part().is_some());
            assert!(state.broke_off().is_some());
        }
        assert_eq!(released.load(Ordering::Relaxed), 0, "payload is on its way");
        inbox.consumed(33);
        assert_eq!(released.load(Ordering::Relaxed), 1);
        inbox.fail(Failure::new(Reason::LinkLost, "second"));
        let reason = inbox.lock().broken().map(|failure| failure.reason);
        assert_eq!(
            reason,
            Some(Reason::LinkLost),
            "nothing is read after a loss"
        );
    }

    /// A queue has at most twice the capacity that it needs, and a small payload an allocation of its own.
    #[test]
    fn p_4_1_a_waiting_part_occupies_at_most_its_cost() {
        let smallest_allocation = 32;
        let occupied = 2 * size_of::<Arrived>() + smallest_allocation;
        assert!(occupied as u64 <= adit_flow::MESSAGE_COST, "{occupied}");
        let (inbox, window) = (Inbox::default(), 32 * 1024);
        let empty = WebSocketFrame {
            fin: true,
            rsv: 0,
            opcode: 1,
            length: 0,
        };
        while inbox.lock().waiting < window {
            let cost = adit_flow::MESSAGE_COST;
            let payload = Packed {
                bytes: Bytes::new(),
                compressed: None,
                cost,
            };
            inbox.deliver(Arrived::Frame(empty, payload), cost, false);
        }
        let occupied = inbox.lock().parts.capacity() * size_of::<Arrived>();
        assert!(occupied as u64 <= window, "{occupied} of {window}");
    }

    #[test]
    fn interim_responses_are_bounded() {
        let inbox = Inbox::default();
        assert!((0..MAX_INTERIM).all(|_| inbox.take_interim()));
        assert!((0..1000).all(|_| !inbox.take_interim()));
    }

    struct Wakes(AtomicUsize);

    impl std::task::Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_event_wakes_the_side_that_it_concerns() {
        let (reader, writer) = (
            Arc::new(Wakes(AtomicUsize::new(0))),
            Arc::new(Wakes(AtomicUsize::new(0))),
        );
        let inbox = Inbox::default();
        let woken = |event: &dyn Fn(&Inbox)| {
            let before = (
                reader.0.load(Ordering::Relaxed),
                writer.0.load(Ordering::Relaxed),
            );
            {
                let mut state = inbox.lock();
                state.reader = Some(reader.clone().into());
                state.writer = Some(writer.clone().into());
            }
            event(&inbox);
            (
                reader.0.load(Ordering::Relaxed) - before.0,
                writer.0.load(Ordering::Relaxed) - before.1,
            )
        };
        assert_eq!(woken(&deliver), (1, 0));
        assert_eq!(woken(&Inbox::writable), (0, 1));
        assert_eq!(woken(&|inbox| inbox.stop(ResetCode::Cancelled)), (0, 1));
        assert_eq!(woken(&Inbox::end), (1, 0));
        let lost = |inbox: &Inbox| inbox.fail(Failure::new(Reason::LinkLost, ""));
        assert_eq!(woken(&lost), (1, 1));
    }
}
