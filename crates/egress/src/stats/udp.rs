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
    /// Datagrams to services dropped because the socket was full.
    pub dropped_socket_full: u64,
    /// Datagrams to services that the system refused to send.
    pub dropped_unsendable: u64,
    /// Datagrams from services dropped because they are longer than a datagram may be (P-11.1).
    pub dropped_too_long: u64,
    /// ICMP errors received: no service at the address, or no route to it.
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
