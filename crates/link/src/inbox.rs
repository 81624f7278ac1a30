//! What has arrived for one request and waits for its task.

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

/// One thing that the peer sent, as it waits here; see [`crate::Part`].
pub(crate) enum Arrived {
    Response(ResponseHead),
    Data(Packed),
    Frame(WebSocketFrame, Packed),
    Datagram(Bytes),
    Trailers(HeaderBlock),
}

/// Payload that nothing has read yet, as it crossed. Dropped here it gives no credit back: its request is over.
pub(crate) struct Packed {
    pub(crate) bytes: Bytes,
    pub(crate) compressed: Option<Compressed>,
    pub(crate) cost: u64,
}

/// Where a request stood when the sweep last looked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) consumed: u64,
    pub(crate) since: Instant,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) parts: VecDeque<Arrived>,
    /// Nothing comes after `parts`.
    pub(crate) ended: bool,
    /// Nobody reads on: what still comes is dropped. Events of one frame may be under way when this is decided.
    discarding: bool,
    /// Both directions are over; stands before `parts`: what has not been read is not worth reading.
    pub(crate) failure: Option<Failure>,
    /// The peer's direction broke off behind `parts`, which are still to be read (P-6.2). Ours is over.
    aborted: Option<Failure>,
    /// The peer wants no more of our direction.
    pub(crate) stopped: Option<ResetCode>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Is told how long our direction waits.
    pub(crate) credit_wait: Option<Arc<CreditWait>>,
    /// Cost given back so far, for the sweep that looks for stalled consumers.
    pub(crate) consumed: u64,
    /// Cost that waits.
    pub(crate) waiting: u64,
    pub(crate) swept: Option<Sweep>,
    /// Bytes of datagrams that wait.
    datagram_bytes: usize,
    /// Who takes nothing for longer than this is reset; `None`: what the lane says.
    pub(crate) stall: Option<Duration>,
    /// Interim answers so far: they cost no credit.
    interim: u8,
    /// What the request holds while it lasts: permits, load.
    pub(crate) held: Option<Box<dyn Any + Send>>,
}

/// More interim answers than anybody needs.
const MAX_INTERIM: u8 = 16;

/// Bytes of datagrams that may wait for the task that sends them on: all that the sender may have had waiting, which
/// comes in one frame when it comes at all, and what is read until the task has its turn.
const MAX_DATAGRAM_BYTES: usize = 1 << 20;

/// What a datagram that waits costs beside its bytes, as a message does (P-4.1): empty ones must not be free.
#[allow(clippy::cast_possible_truncation)] // it is small
pub(crate) const DATAGRAM_OVERHEAD: usize = adit_flow::MESSAGE_COST as usize;

impl State {
    /// Why both directions are over, or our own: the reader may still have parts to read.
    pub(crate) fn broken(&self) -> Option<&Failure> {
        self.failure.as_ref().or(self.aborted.as_ref())
    }

    /// Why the peer's direction broke off, once nothing stands before it.
    pub(crate) fn broke_off(&self) -> Option<&Failure> {
        self.aborted.as_ref().filter(|_| self.parts.is_empty())
    }

    /// Whether nothing of the peer's direction is to be delivered any more. What stands before an abort is.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_stopped = self.stopped.is_some() && self.aborted.is_none();
        self.failure.is_some() || self.broke_off().is_some() || is_stopped
    }

    /// What the request held, once it has broken off and all before that has been delivered: whoever is to take the
    /// failure may never ask for it.
    fn take_held_at_abort(&mut self) -> Option<Box<dyn Any + Send>> {
        if self.waiting == 0 && self.broke_off().is_some() {
            return self.held.take();
        }
        None
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

/// Shared by the lane's reader, which fills it, and the request's task.
#[derive(Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
}

impl Inbox {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends parts and wakes the reader. What nobody is going to read is dropped: its credit needs no return.
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

    /// Appends a datagram if there is room for it; whether there was.
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

    /// Whether one more interim answer is bearable.
    pub(crate) fn take_interim(&self) -> bool {
        let mut state = self.lock();
        state.interim = state.interim.saturating_add(1);
        state.interim <= MAX_INTERIM
    }

    /// Drops what waits and what still comes. Whether the end had not come yet.
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

    /// Drops what still comes; what waits is the last.
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

    /// Fails both directions. What waits unread is dropped, and what the request held is given back, outside of the
    /// lock: a visitor that never reads on must not hold a permit for ever.
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

    /// Breaks the peer's direction off behind what has come of it, and ends ours.
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

    /// Regression: the rest of a frame was kept, and counted as waiting for ever.
    #[test]
    fn what_comes_after_a_stop_or_a_failure_is_not_kept() {
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
        // One that is being written comes back late.
        inbox.consumed(33);
        assert_eq!(waits(&inbox), (0, 0));
        let failure = inbox.lock().failure.clone().unwrap();
        assert_eq!(failure.reason, Reason::LinkLost, "the first one stands");
    }

    #[test]
    fn p_6_2_an_abort_stands_behind_what_came_before_it() {
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

    /// A queue has at most twice the room that it needs, and a small payload an allocation of its own.
    #[test]
    fn p_4_1_a_part_that_waits_occupies_no_more_than_its_cost() {
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
    fn interim_answers_are_bounded() {
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
    fn each_side_is_woken_by_what_concerns_it() {
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
