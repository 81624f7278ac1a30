//! Passes the next request to an idle connection.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::request::Http1Request;

/// The slot in which the pool puts a request for an idle connection.
#[derive(Default)]
pub(super) struct Slot {
    state: Mutex<SlotState>,
}

#[derive(Default)]
struct SlotState {
    request: Option<Http1Request>,
    waker: Option<Waker>,
    closed: bool,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the slot accepts no request any more.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Puts a request into the slot; returns it if the slot is closed.
    // The request is returned as it is, whatever its size.
    #[allow(clippy::result_large_err)]
    pub(super) fn put(&self, request: Http1Request) -> Result<(), Http1Request> {
        let mut state = self.lock();
        if state.closed {
            return Err(request);
        }
        state.request = Some(request);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// The request that was put into the slot; `None` when the slot is closed.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Option<Http1Request>> {
        let mut state = self.lock();
        if let Some(request) = state.request.take() {
            return Poll::Ready(Some(request));
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

    /// Closes the slot; returns a request that was in it.
    pub(super) fn close(&self) -> Option<Http1Request> {
        let mut state = self.lock();
        state.closed = true;
        let (request, waker) = (state.request.take(), state.waker.take());
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        request
    }
}
