//! Responses of failed exchanges that h2 still holds.

use std::{
    fmt,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

/// Counts the responses of failed exchanges that h2 holds for one connection (`buffered.rs`).
#[derive(Default)]
pub(crate) struct StuckResponses {
    count: AtomicUsize,
    /// How often the count has returned to zero.
    cleared: AtomicU64,
    added: Notify,
}

impl StuckResponses {
    pub(super) fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.added.notify_one();
    }

    pub(super) fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cleared.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until the count has been above zero for this long without interruption.
    ///
    /// # Cancel safety
    /// Yes; the time starts again.
    pub(crate) async fn persist(&self, within: Duration) {
        loop {
            while self.is_empty() {
                self.added.notified().await;
            }
            let cleared = self.cleared.load(Ordering::Acquire);
            sleep(within).await;
            if !self.is_empty() && cleared == self.cleared.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl fmt::Debug for StuckResponses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StuckResponses").field(&self.count).finish()
    }
}
