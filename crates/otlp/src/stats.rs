//! Counters of spans by outcome.

use std::sync::atomic::{AtomicU64, Ordering};

/// Spans so far, by outcome. A span that still waits is not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TracesStats {
    /// Spans that the collector has accepted.
    pub exported: u64,
    /// Spans that were never sent, since the queue was full or the process ended.
    pub dropped: u64,
    /// Spans that were sent but not accepted.
    pub failed: u64,
}

/// Counts spans.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) exported: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) failed: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self) -> TracesStats {
        TracesStats {
            exported: self.exported.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}
