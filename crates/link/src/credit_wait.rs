//! Measures how long a direction waited for credit.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::clock::now;

/// Measures how long this end's direction of one request waited until payload might be sent: for credit of the peer, or
/// for room on a lane that is full. Passed to [`Exchange::watch_credit`](crate::Exchange::watch_credit) and read at the
/// end.
///
/// Cost: two clock reads for each wait, none for payload that need not wait, and none for a request without a
/// `CreditWait`.
#[derive(Debug, Default)]
pub struct CreditWait {
    state: Mutex<State>,
}

/// The waits of one direction, in pieces between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// When the first wait began.
    pub start: Instant,
    /// When the last one ended; for a wait that still lasts, the current time.
    pub end: Instant,
    /// The sum of the waits.
    pub total: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The waits that have ended.
    waited: Option<Waited>,
    /// When the current wait began.
    since: Option<Instant>,
}

impl State {
    /// All waits; one that still lasts ends at `now`.
    fn until(&self, now: impl FnOnce() -> Instant) -> Option<Waited> {
        let Some(since) = self.since else {
            return self.waited;
        };
        let end = now();
        let this = end.saturating_duration_since(since);
        let before = self.waited;
        Some(Waited {
            start: before.map_or(since, |before| before.start),
            end,
            total: before.map_or(this, |before| before.total + this),
        })
    }
}

impl CreditWait {
    /// The waits so far; `None` when there was none.
    pub fn waited(&self) -> Option<Waited> {
        self.lock().until(now)
    }

    /// Called when payload may not be sent. Repeated calls during one wait change nothing.
    pub(crate) fn begin(&self) {
        self.lock().since.get_or_insert_with(now);
    }

    /// Called when payload may be sent, or can never be sent.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.waited = state.until(now);
        state.since = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
