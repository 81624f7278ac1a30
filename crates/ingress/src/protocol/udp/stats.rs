//! Counters of the UDP entry.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use adit_link::Reason;

use crate::failure_counters::{FailureCounters, FailureCounts};

/// Counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Open flows: being routed, forwarded, or waiting for the end of the other side.
    pub flows_open: usize,
    /// Flows so far.
    pub flows: u64,
    /// Flows that were evicted to make room for others (P-11.2).
    pub flows_evicted: u64,
    /// Flows that ended because both sides were silent (P-11.4).
    pub flows_silent: u64,
    /// Datagrams read from visitors.
    pub datagrams_in: u64,
    /// Datagrams sent to visitors.
    pub datagrams_out: u64,
    /// The bytes of `datagrams_in`.
    pub bytes_in: u64,
    /// The bytes of `datagrams_out`.
    pub bytes_out: u64,
    /// Datagrams that were dropped by the entry. A lane counts those that it drops.
    pub dropped: UdpDropped,
    /// Failed flows, by reason.
    pub failures: FailureCounts,
}

/// Datagrams that were dropped, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpDropped {
    /// Datagrams from visitors: too many waited while their flow was routed, or it was not routed.
    pub undirected: u64,
    /// Datagrams from visitors that were longer than a datagram may be (P-11.1).
    pub too_long: u64,
    /// Datagrams from visitors without a flow, while draining.
    pub draining: u64,
    /// Datagrams from visitors whose flow was not admitted.
    pub denied: u64,
    /// Datagrams to visitors for which the send buffer of the port's socket had no room.
    pub socket_full: u64,
    /// Datagrams to visitors that the system rejected.
    pub unsendable: u64,
}

impl UdpDropped {
    /// All dropped datagrams from visitors.
    pub const fn from_visitors(&self) -> u64 {
        self.undirected + self.too_long + self.draining + self.denied
    }

    /// All dropped datagrams to visitors.
    pub const fn to_visitors(&self) -> u64 {
        self.socket_full + self.unsendable
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) flows_open: AtomicUsize,
    pub(super) flows: AtomicU64,
    pub(super) flows_evicted: AtomicU64,
    pub(super) flows_silent: AtomicU64,
    pub(super) datagrams_in: AtomicU64,
    pub(super) datagrams_out: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) too_long: AtomicU64,
    pub(super) draining: AtomicU64,
    pub(super) denied: AtomicU64,
    pub(super) socket_full: AtomicU64,
    pub(super) unsendable: AtomicU64,
    failures: FailureCounters,
}

/// Adds one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn count_failure(&self, reason: Reason) {
        self.failures.count(reason);
    }

    pub(super) fn stats(&self) -> UdpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UdpStats {
            flows_open: self.flows_open.load(Ordering::Relaxed),
            flows: read(&self.flows),
            flows_evicted: read(&self.flows_evicted),
            flows_silent: read(&self.flows_silent),
            datagrams_in: read(&self.datagrams_in),
            datagrams_out: read(&self.datagrams_out),
            bytes_in: read(&self.bytes_in),
            bytes_out: read(&self.bytes_out),
            dropped: UdpDropped {
                // `Room` counts the undirected datagrams.
                undirected: 0,
                too_long: read(&self.too_long),
                draining: read(&self.draining),
                denied: read(&self.denied),
                socket_full: read(&self.socket_full),
                unsendable: read(&self.unsendable),
            },
            failures: self.failures.counts(),
        }
    }
}
