//! Times of a server.

use std::time::Duration;

use adit_ingress::EdgeTimeouts;

/// Times of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// After a start, requests for unknown names wait this long for clients to return.
    pub startup_grace: Duration,
    /// Longest wait of a visitor for a client that is (re)connecting.
    pub client_wait: Duration,
    /// Longest wait of a visitor for a permit.
    pub permit_wait: Duration,
    /// Timeouts of visitors, and of servers of upstreams.
    pub edge: EdgeTimeouts,
    /// Longest time until a connection of a client carries a session, and until a session has its first data stream.
    pub setup: Duration,
    /// Longest time of the TLS handshake of a client, within `setup`.
    pub handshake: Duration,
    /// A refusal because of a wrong credential is sent this long after the attempt: every cause takes the same time.
    pub denial: Duration,
    /// An old link is probed for this long before another instance may take its name (P-1.8).
    pub takeover_probe: Duration,
    /// Probes are sent after this much silence (P-6.5).
    pub heartbeat: Duration,
    /// A link is dead after this much silence with a probe outstanding (P-6.5).
    pub dead_after: Duration,
    /// Longest time for running requests to finish after SIGTERM.
    pub drain: Duration,
    /// A tunnel without a connected client is removed after this time.
    pub tunnel_retention: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            startup_grace: Duration::from_secs(10),
            client_wait: Duration::from_secs(5),
            permit_wait: Duration::from_secs(5),
            edge: EdgeTimeouts::default(),
            setup: Duration::from_secs(10),
            handshake: Duration::from_secs(5),
            denial: Duration::from_millis(500),
            takeover_probe: Duration::from_secs(2),
            heartbeat: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            tunnel_retention: Duration::from_secs(600),
        }
    }
}
