//! Counters of lanes, including lost ones.

use adit_link::LaneStats;

use crate::status::CoreCounters;

/// Counters of lanes, added up.
#[derive(Debug, Clone, Default)]
pub(super) struct Totals {
    pub(super) opened: u64,
    pub(super) accepted: u64,
    pub(super) datagrams_dropped: u64,
    pub(super) cores: CoreCounters,
}

impl Totals {
    pub(super) fn add(&mut self, stats: &LaneStats) {
        self.opened += stats.mux.opened;
        self.accepted += stats.mux.accepted;
        self.datagrams_dropped += stats.datagrams_dropped + stats.mux.datagrams_dropped;
        let cores = &mut self.cores;
        cores.codec_messages += stats.mux.messages_sent + stats.mux.messages_received;
        cores.mux_batches += stats.mux.batches_sent;
        cores.flow_windows += stats.mux.windows_sent;
        cores.pending_settled += stats.pending.completed
            + stats.pending.failed
            + stats.pending.cancelled
            + stats.pending.expired;
    }
}
