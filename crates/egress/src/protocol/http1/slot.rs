//! Where an idle connection waits for its next request.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::request::job::Job;

/// Where a request is put for an idle connection.
#[derive(Default)]
pub(crate) struct Slot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    job: Option<Job>,
    waker: Option<Waker>,
    closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing can be put here any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Gives the request back if nobody waits here any more.
    // The request is as large as it is; it goes back whole.
    #[allow(clippy::result_large_err)]
    pub(super) fn put(&self, job: Job) -> Result<(), Job> {
        let mut state = self.lock();
        if state.closed {
            return Err(job);
        }
        state.job = Some(job);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The request that was put here; `None` when the slot is closed.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Job>> {
        let mut state = self.lock();
        if let Some(job) = state.job.take() {
            return Poll::Ready(Some(job));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    pub(super) fn close(&self) -> Option<Job> {
        let mut state = self.lock();
        state.closed = true;
        let (job, waker) = (state.job.take(), state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        job
    }
}
