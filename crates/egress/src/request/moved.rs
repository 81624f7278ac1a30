//! Counts payload.

use std::sync::atomic::{AtomicU64, Ordering};

/// Payload that has moved, in bytes. The two directions of a request may be counted by two borrowers.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// From the visitor.
    received: AtomicU64,
    /// To the visitor.
    sent: AtomicU64,
}

impl Moved {
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn receive(&self, bytes: u64) {
        add(&self.received, bytes);
    }

    pub(crate) fn send(&self, bytes: u64) {
        add(&self.sent, bytes);
    }
}

/// Each number has one that counts: nothing is lost in between, and nothing needs a locked instruction.
fn add(counter: &AtomicU64, bytes: u64) {
    counter.store(counter.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}
