//! A lane with both ends on the server: a request that a rule sends to an upstream takes the same path as a request
//! that a client opens, so that credit, fairness and the code of `ingress` and `egress` are the same.

use std::sync::Arc;

use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{Dispatch, IncomingRequest, Lane, LaneConfig, LocalReader, drive};
use tokio::task::JoinSet;

/// Two lanes, each the peer of the other. Stays on the thread that created it.
pub(crate) struct Shortcut {
    near: Arc<Lane>,
    _tasks: JoinSet<()>,
}

impl Shortcut {
    /// `dispatch` receives the requests that are opened on the near end.
    pub(crate) fn new(config: &LaneConfig, budget: &Budget, dispatch: Arc<dyn Dispatch>) -> Self {
        let mut near = config.clone();
        near.mux.side = Side::Server;
        let mut far = config.clone();
        far.mux.side = Side::Client;
        // The number of visitors is bounded where their connections are accepted.
        far.mux.max_resets_per_tick = u32::MAX;
        let near = Lane::new(near, budget.clone(), Arc::new(Nothing));
        let far = Lane::new(far, budget.clone(), dispatch);
        near.allow_upgrades();
        let mut tasks = JoinSet::new();
        for (lane, peer) in [(near.clone(), &far), (far.clone(), &near)] {
            let reader = LocalReader::from(peer.outbound());
            tasks.spawn(async move {
                let failure = drive(&lane, reader).await;
                tracing::warn!(%failure, "the lane to the upstreams was lost");
            });
        }
        Self {
            near,
            _tasks: tasks,
        }
    }

    /// The end on which visitors' requests are opened.
    pub(crate) const fn near(&self) -> &Arc<Lane> {
        &self.near
    }

    /// The near end, unless the lane has ended.
    pub(crate) fn lane(&self) -> Option<&Arc<Lane>> {
        (!self.near.is_closed()).then_some(&self.near)
    }
}

/// Rejects requests: they are opened only at the near end.
struct Nothing;

impl Dispatch for Nothing {
    fn dispatch(&self, opened: IncomingRequest) {
        drop(opened);
    }
}
