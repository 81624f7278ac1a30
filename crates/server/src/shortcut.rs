//! A lane with both ends on the server: a request that a rule sends to an upstream takes the same path as a request
//! that a client opens, so that credit, fairness and the code of `ingress` and `egress` are the same.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use adit_codec::Side;
use adit_flow::Budget;
use adit_link::{
    Dispatch, IncomingRequest, Lane, LaneConfig, TransportError, TransportReader, TransportWriter,
    drive,
};
use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinSet};

/// Pieces between the two ends: the writer of each end runs on the same thread as the reader of the other.
const PIPE_PIECES: usize = 4;

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
        let (to_far, at_far) = mpsc::channel(PIPE_PIECES);
        let (to_near, at_near) = mpsc::channel(PIPE_PIECES);
        tasks.spawn(write(near.outbound(), to_far));
        tasks.spawn(write(far.outbound(), to_near));
        for (lane, pipe) in [(near.clone(), at_near), (far, at_far)] {
            tasks.spawn(async move {
                let failure = drive(&lane, Pipe(pipe)).await;
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

struct Pipe(mpsc::Receiver<Bytes>);

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(Ok))
    }
}

async fn write(mut outbound: TransportWriter, into: mpsc::Sender<Bytes>) {
    while let Some(batch) = poll_fn(|cx| outbound.poll_batch(cx)).await {
        for segment in batch.into_segments() {
            if into.send(segment).await.is_err() {
                return;
            }
        }
    }
}
