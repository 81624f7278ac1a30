//! The configuration of a lane, from the settings.

use adit_codec::Side;
use adit_link::LaneConfig;

use crate::settings::{Limits, Timeouts};

/// Bounds and times of the lane of a client.
pub(crate) fn lane_config(limits: &Limits, timeouts: &Timeouts) -> LaneConfig {
    let mut mux = adit_mux::Config::new(Side::Server);
    mux.initial_window = limits.initial_window_bytes;
    mux.max_window = limits.max_window_bytes;
    mux.max_requests = limits.max_requests_per_client;
    LaneConfig {
        mux,
        // The requests that visitors may open, and those that the client may open.
        max_entries: limits
            .max_requests
            .saturating_add(limits.max_requests_per_client),
        heartbeat: timeouts.heartbeat,
        dead_after: timeouts.dead_after,
        stall: timeouts.edge.stall,
        turn_bytes: limits.turn_bytes,
    }
}
