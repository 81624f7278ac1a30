//! Counts the payload of one request.

use std::sync::atomic::{AtomicU64, Ordering};

/// Payload of one request, in bytes. Each direction has one writer; both may count through shared references.
#[derive(Debug, Default)]
pub(crate) struct PayloadCounts {
    from_visitor: AtomicU64,
    to_visitor: AtomicU64,
}

impl PayloadCounts {
    /// Bytes that the visitor has sent.
    pub(super) fn visitor_sent(&self) -> u64 {
        self.from_visitor.load(Ordering::Relaxed)
    }

    /// Bytes that have been sent to the visitor.
    pub(super) fn visitor_received(&self) -> u64 {
        self.to_visitor.load(Ordering::Relaxed)
    }

    pub(crate) fn add_from_visitor(&self, bytes: u64) {
        add(&self.from_visitor, bytes);
    }

    pub(crate) fn add_to_visitor(&self, bytes: u64) {
        add(&self.to_visitor, bytes);
    }
}

/// A counter has one writer, so a load and a store lose no count; an atomic addition is not needed.
fn add(counter: &AtomicU64, bytes: u64) {
    counter.store(counter.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
}
