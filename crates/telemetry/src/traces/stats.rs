//! Counts what becomes of spans.

use std::sync::atomic::{AtomicU64, Ordering};

/// What has become of the spans so far. A span that still waits is in none of the numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TracesStats {
    /// Spans that the collector has accepted.
    pub exported: u64,
    /// Spans that were never sent: the queue was full, or the end came first.
    pub dropped: u64,
    /// Spans that were sent and not accepted.
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
