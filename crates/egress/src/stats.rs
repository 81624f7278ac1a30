//! Counters and gauges, over all services.

pub(crate) mod tcp;
pub(crate) mod udp;

use std::sync::atomic::{AtomicU64, AtomicUsize};

pub use self::{tcp::TcpStats, udp::UdpStats};

/// Counters and gauges of an [`Egress`](crate::Egress), over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections, idle ones and those being made included.
    pub connections: usize,
    /// Connections that wait for a request.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections made since the start.
    pub dialled: u64,
    /// Requests served on a connection that had served before.
    pub reused: u64,
    /// Requests taken.
    pub requests: u64,
    /// Requests begun anew because their connection had died.
    pub retried: u64,
    /// Connections of WebSockets now, those being made included.
    pub websockets: usize,
    /// Connections of TCP.
    pub tcp: TcpStats,
    /// Flows of UDP.
    pub udp: UdpStats,
}

/// Counted by every connection.
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
