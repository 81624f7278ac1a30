//! Counters of TCP connections.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use adit_splice::tcp::Progress;

/// Counters and gauges of the TCP connections, over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TcpStats {
    /// Connections now, including those being opened.
    pub open: usize,
    /// Connections so far, including those that could not be opened.
    pub total: u64,
    /// Connections that could not be opened.
    pub dials_failed: u64,
    /// Connections that the service reset.
    pub aborted: u64,
    /// Bytes from services.
    pub received_bytes: u64,
    /// Bytes to services.
    pub sent_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) open: AtomicUsize,
    pub(crate) total: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) aborted: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn stats(&self) -> TcpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TcpStats {
            open: self.open.load(Ordering::Relaxed),
            total: read(&self.total),
            dials_failed: read(&self.dials_failed),
            aborted: read(&self.aborted),
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
        }
    }

    pub(crate) fn on_progress(&self, progress: Progress) {
        self.received_bytes
            .fetch_add(progress.read, Ordering::Relaxed);
        self.sent_bytes
            .fetch_add(progress.written, Ordering::Relaxed);
    }
}
