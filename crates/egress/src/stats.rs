//! Counters and gauges, over all services.

pub(crate) mod tcp;
pub(crate) mod udp;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use self::{tcp::TcpStats, udp::UdpStats};

/// Counters and gauges of an [`Egress`](crate::Egress), over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections, including idle ones and those being opened.
    pub connections: usize,
    /// Idle connections.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections opened since the start.
    pub dialled: u64,
    /// Requests served on a connection that had served before.
    pub reused: u64,
    /// Requests passed to a service.
    pub requests: u64,
    /// Requests sent again because their connection was dead.
    pub retried: u64,
    /// Connections of WebSockets, including those being opened.
    pub websockets: usize,
    /// Connections of TCP.
    pub tcp: TcpStats,
    /// Flows of UDP.
    pub udp: UdpStats,
}

/// The counters behind [`Stats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) websockets: AtomicUsize,
    pub(crate) tcp: tcp::Counters,
    pub(crate) udp: udp::Counters,
}

impl Counters {
    /// The values of these counters; connections of pools are not among them.
    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let websockets = self.websockets.load(Ordering::Relaxed);
        let tcp = self.tcp.stats();
        Stats {
            connections: tcp.open + websockets,
            idle: 0,
            waiting: 0,
            dialled: read(&self.dialled),
            reused: read(&self.reused),
            requests: read(&self.requests),
            retried: read(&self.retried),
            websockets,
            tcp,
            udp: self.udp.stats(),
        }
    }
}
