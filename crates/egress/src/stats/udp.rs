//! Counters of UDP flows.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters and gauges of the UDP flows, over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UdpStats {
    /// Flows now.
    pub flows_open: usize,
    /// Flows so far.
    pub flows: u64,
    /// Datagrams sent to services.
    pub datagrams_out: u64,
    /// Datagrams read from services.
    pub datagrams_in: u64,
    /// Datagrams for services that a full socket did not take.
    pub dropped_socket_full: u64,
    /// Datagrams for services that the system would not send.
    pub dropped_unsendable: u64,
    /// Datagrams of services that are longer than any that is carried (P-11.1).
    pub dropped_too_long: u64,
    /// Times that the network said that no service is there.
    pub refused: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) flows_open: AtomicUsize,
    pub(crate) flows: AtomicU64,
    pub(crate) datagrams_out: AtomicU64,
    pub(crate) datagrams_in: AtomicU64,
    pub(crate) dropped_socket_full: AtomicU64,
    pub(crate) dropped_unsendable: AtomicU64,
    pub(crate) dropped_too_long: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Counters {
    pub(crate) fn stats(&self) -> UdpStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        UdpStats {
            flows_open: self.flows_open.load(Ordering::Relaxed),
            flows: read(&self.flows),
            datagrams_out: read(&self.datagrams_out),
            datagrams_in: read(&self.datagrams_in),
            dropped_socket_full: read(&self.dropped_socket_full),
            dropped_unsendable: read(&self.dropped_unsendable),
            dropped_too_long: read(&self.dropped_too_long),
            refused: read(&self.refused),
        }
    }
}
