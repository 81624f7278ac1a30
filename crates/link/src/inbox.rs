//! What has arrived for one request and waits for its task.

use std::{
    any::Any,
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use adit_codec::{HeaderBlock, HttpResponse, ResetCode};

use crate::{failure::Failure, payload::Payload};

/// One thing the peer sent for a request.
#[derive(Debug)]
pub enum Part {
    /// The answer's head, interim or final; the body that rode along follows as [`Part::Data`].
    Answer(Box<HttpResponse>),
    /// Payload. Dropping it gives its credit back.
    Data(Payload),
    /// Trailers, the last part.
    Trailers(HeaderBlock),
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) parts: VecDeque<Part>,
    /// Nothing comes after `parts`.
    pub(crate) ended: bool,
    /// Both directions are over; stands before `parts`: what has not been read is not worth reading.
    pub(crate) failure: Option<Failure>,
    /// The peer wants no more of our direction.
    pub(crate) stopped: Option<ResetCode>,
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Cost given back so far, for the sweep that looks for stalled consumers.
    pub(crate) consumed: u64,
    /// Cost that waits.
    pub(crate) waiting: u64,
    pub(crate) swept: Option<crate::lane::Sweep>,
    /// The final answer's head has come.
    pub(crate) answered: bool,
    /// What the request holds while it lasts: permits, load.
    pub(crate) held: Option<Box<dyn Any + Send>>,
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

    /// Appends parts and wakes the reader.
    pub(crate) fn deliver(&self, part: Part, cost: u64, end: bool) {
        let mut state = self.lock();
        state.waiting += cost;
        state.parts.push_back(part);
        state.ended |= end;
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
        let (reader, writer) = (state.reader.take(), state.writer.take());
        drop(state);
        drop(unread);
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
        if state.failure.is_none() {
            state.held = Some(held);
        }
    }

    pub(crate) fn release_held(&self) {
        let held = self.lock().held.take();
        drop(held);
    }

    pub(crate) fn consumed(&self, cost: u64) {
        let mut state = self.lock();
        state.consumed += cost;
        state.waiting = state.waiting.saturating_sub(cost);
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
