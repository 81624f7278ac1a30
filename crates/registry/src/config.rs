//! Bounds and times.

use std::time::Duration;

use adit_flow::Shares;

/// Bounds and times of the registry.
#[derive(Debug, Clone)]
pub struct Config {
    /// Concurrent clients.
    pub max_clients: usize,
    /// Concurrent clients of one user.
    pub max_clients_per_user: usize,
    /// Concurrent requests on one client.
    pub max_requests_per_client: usize,
    /// Visitors that may wait for a permit of one client.
    pub max_waiting: usize,
    /// How the permits of one client are shared when they are short.
    pub shares: Shares,
    /// How long an old link is probed before another instance takes its name.
    pub takeover_probe: Duration,
    /// A session's first data stream must open within this time.
    pub setup: Duration,
    /// The first epoch; later than any epoch of an earlier run of this server.
    pub first_epoch: u64,
}
