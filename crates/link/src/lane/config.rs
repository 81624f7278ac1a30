//! The settings of a lane.

use std::time::Duration;

/// The bounds and times of one lane.
#[derive(Debug, Clone)]
pub struct LaneConfig {
    /// The bounds of the lane's mux.
    pub mux: adit_mux::Config,
    /// Concurrent requests in both directions together.
    pub max_entries: usize,
    /// Probes are sent after this much silence (P-6.5).
    pub heartbeat: Duration,
    /// The link is declared dead after this much silence (P-6.5).
    pub dead_after: Duration,
    /// A request whose received parts wait for this long is reset.
    pub stall: Duration,
    /// Work of one task in one turn ([`crate::turn`]); the reader has 64 times as much for messages of requests, each one step.
    pub turn_bytes: usize,
}
