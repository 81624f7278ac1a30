//! Counters of the TCP entry.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use adit_link::Reason;

use crate::failure_counters::{FailureCounters, FailureCounts};

/// Counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionStats {
    /// Connections open now.
    pub open: usize,
    /// Connections accepted so far.
    pub total: u64,
    /// Connections reset at once because too many were open.
    pub refused: u64,
    /// Attempts on another client.
    pub retries: u64,
    /// Bytes from visitors.
    pub received_bytes: u64,
    /// Bytes to visitors.
    pub sent_bytes: u64,
    /// Failed connections, by reason.
    pub failures: FailureCounts,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    open: AtomicUsize,
    total: AtomicU64,
    refused: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    failures: FailureCounters,
}

impl Counters {
    /// Counts a connection until the result is dropped; `None` if `max` are open already.
    pub(super) fn open(&self, max: usize) -> Option<Open<'_>> {
        self.total.fetch_add(1, Ordering::Relaxed);
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let counted = Open(self);
        if before >= max {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(counted)
    }

    pub(super) fn count_failure(&self, reason: Reason) {
        self.failures.count(reason);
    }

    pub(super) fn stats(&self) -> SessionStats {
        SessionStats {
            open: self.open.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            received_bytes: self.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.sent_bytes.load(Ordering::Relaxed),
            failures: self.failures.counts(),
        }
    }
}

/// Counts one open connection.
#[derive(Debug)]
pub(super) struct Open<'c>(&'c Counters);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_over_the_limit_does_not_count_as_open() {
        let counters = Counters::default();
        let one = counters.open(1).unwrap();
        assert!(counters.open(1).is_none());
        let stats = counters.stats();
        assert_eq!((stats.open, stats.total, stats.refused), (1, 2, 1));
        drop(one);
        assert!(counters.open(1).is_some());
        assert_eq!(counters.stats().open, 0);
    }
}
