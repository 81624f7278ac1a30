//! Counters of the HTTP entry.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use adit_codec::ProtocolType;
use adit_link::Reason;

use adit_net::HostNetwork;

use crate::{
    connection_shares::ConnectionShares,
    failure_counters::{FailureCounters, FailureCounts},
};

/// Counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections open now.
    pub connections_open: usize,
    /// Connections accepted so far.
    pub connections: u64,
    /// Connections closed at once because too many were open, in all or of the address.
    pub connections_refused: u64,
    /// Requests open now; a request is open until its response has ended.
    pub requests_open: usize,
    /// Open calls of gRPC, included in `requests_open`.
    pub grpc_open: usize,
    /// Open WebSockets, included in `requests_open`.
    pub websockets_open: usize,
    /// Requests so far.
    pub requests: u64,
    /// Attempts on another client.
    pub retries: u64,
    /// Failed requests, by reason.
    pub failures: FailureCounts,
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections_open: AtomicUsize,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) connections_by_address: ConnectionShares<HostNetwork>,
    /// Open requests of HTTP, gRPC and WebSocket, in this order.
    requests_open: [AtomicUsize; 3],
    pub(crate) requests: AtomicU64,
    pub(crate) retries: AtomicU64,
    failures: FailureCounters,
}

impl Counters {
    /// Requests of this protocol that are open.
    pub(crate) const fn requests_open(&self, protocol: ProtocolType) -> &AtomicUsize {
        let [http, grpc, websocket] = &self.requests_open;
        match protocol {
            ProtocolType::Grpc => grpc,
            ProtocolType::WebSocket => websocket,
            _ => http,
        }
    }

    pub(crate) fn count_failure(&self, reason: Reason) {
        self.failures.count(reason);
    }

    /// Counts a request that was rejected before it had a [`crate::RequestMeta`].
    pub(crate) fn count_refused(&self, reason: Reason) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.count_failure(reason);
    }

    pub(crate) fn stats(&self) -> Stats {
        let open = |protocol| self.requests_open(protocol).load(Ordering::Relaxed);
        let (grpc_open, websockets_open) =
            (open(ProtocolType::Grpc), open(ProtocolType::WebSocket));
        Stats {
            connections_open: self.connections_open.load(Ordering::Relaxed),
            connections: self.connections.load(Ordering::Relaxed),
            connections_refused: self.connections_refused.load(Ordering::Relaxed),
            requests_open: open(ProtocolType::Http) + grpc_open + websockets_open,
            grpc_open,
            websockets_open,
            requests: self.requests.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            failures: self.failures.counts(),
        }
    }
}
