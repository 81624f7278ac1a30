//! The state of a lane, shared by its reader, its writer and the handles on its requests.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use adit_codec::{Compression, RequestId, ResetCode};
use adit_flow::Budget;
use adit_mux::{Attachment, Mux};
use adit_pending::{Settled, Table};
use tokio::sync::{Notify, watch};

use super::{
    config::LaneConfig,
    phase::{OnLoss, Phase},
};
use crate::{
    clock::now,
    compress::{self, CompressionStats},
    failure::{Failure, Reason},
    inbox::Inbox,
    liveness::Liveness,
};

/// Counters and gauges of one lane.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneStats {
    /// Numbers of the mux.
    pub mux: adit_mux::Stats,
    /// Numbers of the request table.
    pub pending: adit_pending::Stats,
    /// Cost of received payload that has not left the process.
    pub waiting_bytes: u64,
    /// Memory of received frames that slices still point into.
    pub pinned_bytes: usize,
    /// Received datagrams that were dropped because their task did not take them in time; datagrams dropped before
    /// sending are in `mux`.
    pub datagrams_dropped: u64,
    /// Effect and cost of compression.
    pub compression: CompressionStats,
}

/// The mux, the table of its requests, the gauges, and the state of the connection.
pub(crate) struct LaneState {
    pub(super) mux: Arc<Mux>,
    pub(super) table: Table<Arc<Inbox>>,
    pub(super) config: LaneConfig,
    pub(super) pinned: Arc<AtomicUsize>,
    pub(super) liveness: Mutex<Liveness>,
    /// Bytes have arrived since the last tick.
    pub(super) received: AtomicBool,
    /// Received bytes, for the log; written by the reader only.
    pub(super) received_bytes: AtomicU64,
    /// The connection was lost by silence of the peer.
    pub(super) silent: AtomicBool,
    /// Wakes the tasks that probe.
    pub(super) alive: Notify,
    /// Received datagrams that were dropped.
    pub(super) datagrams_dropped: AtomicU64,
    /// The algorithms that the peer can decompress, a bit for each number on the wire.
    peer_inflates: AtomicU8,
    /// The peer accepts offers to change to another protocol.
    peer_upgrades: AtomicBool,
    compression: compress::Gauge,
    pub(super) on_loss: OnLoss,
    pub(super) phase: watch::Sender<Phase>,
}

impl LaneState {
    pub(super) fn new(config: LaneConfig, budget: Budget, on_loss: OnLoss) -> Self {
        Self {
            mux: Mux::new(config.mux.clone(), budget),
            table: Table::new(adit_pending::Config {
                max_entries: config.max_entries,
            }),
            pinned: Arc::default(),
            liveness: Mutex::new(Liveness::new(config.heartbeat, config.dead_after, now())),
            received: AtomicBool::new(false),
            received_bytes: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            alive: Notify::new(),
            datagrams_dropped: AtomicU64::new(0),
            peer_inflates: AtomicU8::new(0),
            peer_upgrades: AtomicBool::new(false),
            compression: compress::Gauge::default(),
            on_loss,
            phase: watch::Sender::new(Phase::Attached(Attachment::FIRST)),
            config,
        }
    }

    pub(crate) fn mux(&self) -> &Arc<Mux> {
        &self.mux
    }

    pub(super) fn allow_compression(&self, by: Compression) {
        self.peer_inflates
            .fetch_or(1 << by.to_wire(), Ordering::Relaxed);
    }

    pub(crate) fn may_compress(&self, by: Compression) -> bool {
        self.peer_inflates.load(Ordering::Relaxed) & (1 << by.to_wire()) != 0
    }

    pub(super) fn allow_upgrades(&self) {
        self.peer_upgrades.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_upgrade(&self) -> bool {
        self.peer_upgrades.load(Ordering::Relaxed)
    }

    pub(crate) const fn compression(&self) -> &compress::Gauge {
        &self.compression
    }

    /// Counters and gauges. Iterates over the open requests.
    pub(super) fn stats(&self) -> LaneStats {
        let mut waiting_bytes = 0;
        self.table
            .for_each(|_, inbox| waiting_bytes += inbox.lock().waiting);
        LaneStats {
            mux: self.mux.stats(),
            pending: self.table.stats(),
            waiting_bytes,
            pinned_bytes: self.pinned.load(Ordering::Relaxed),
            datagrams_dropped: self.datagrams_dropped.load(Ordering::Relaxed),
            compression: self.compression.snapshot(),
        }
    }

    pub(crate) fn settle(&self, id: RequestId, how: Settled, inbox: &Inbox) {
        self.table.settle(id.value(), how);
        inbox.release_held();
    }

    pub(crate) fn consumed(&self, id: RequestId, cost: u64) {
        self.mux.consume(id, cost);
    }

    pub(crate) fn stop_sending(&self, id: RequestId, code: ResetCode) {
        self.mux.stop_sending(id, code);
    }

    pub(crate) fn writable(&self, id: RequestId) {
        if let Some(inbox) = self.table.lookup(id.value()) {
            inbox.writable();
        }
    }

    pub(crate) fn fault(&self, id: RequestId, inbox: &Inbox, reason: &'static str) {
        self.mux.reset(id, ResetCode::ProtocolError, reason);
        inbox.fail(Failure::new(Reason::ProtocolError, reason));
    }
}

impl Drop for LaneState {
    /// Handles keep the state alive, so no request waits any more; the table must be closed before it is dropped.
    fn drop(&mut self) {
        drop(self.table.close());
    }
}

impl std::fmt::Debug for LaneState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lane")
            .field("side", &self.mux.side())
            .field("open", &self.table.len())
            .finish_non_exhaustive()
    }
}
