//! A lane with both its ends: bytes that one end sends arrive at the other.

use std::{
    collections::VecDeque,
    future::Future,
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::{EncodedHead, HttpRequest, RequestHead, Side};
use adit_flow::Budget;
use adit_link::{Dispatch, Exchange, Lane, LaneConfig, LocalReader, drive};
use tokio::task::JoinSet;

use crate::{Incoming, until};

/// The tunnel of all tests.
pub const TUNNEL: &str = "web";

/// The settings of one end.
pub fn lane_config(side: Side) -> LaneConfig {
    LaneConfig {
        mux: adit_mux::Config::new(side),
        max_entries: 10_000,
        heartbeat: Duration::from_secs(5),
        dead_after: Duration::from_secs(30),
        stall: Duration::from_secs(60),
        turn_bytes: adit_link::turn::TURN_BYTES,
    }
}

/// The settings of both ends of a client's link, the server's first.
pub fn ends() -> [LaneConfig; 2] {
    [Side::Server, Side::Client].map(lane_config)
}

/// One end of a lane, which resets the requests that its peer opens.
pub fn lane_of(side: Side) -> Arc<Lane> {
    lane(lane_config(side), Incoming::channel().0)
}

/// One end of a lane.
pub fn lane(config: LaneConfig, dispatch: Arc<dyn Dispatch>) -> Arc<Lane> {
    Lane::new(config, Budget::new(64 << 20), dispatch)
}

/// A lane with both its ends, which lives as long as its last clone. Tests open requests on the near end.
#[derive(Clone)]
pub struct Link {
    pub near: Arc<Lane>,
    pub far: Arc<Lane>,
    /// The requests that reached the far end, if a function serves them.
    pub seen: Arc<Mutex<VecDeque<HttpRequest>>>,
    _driven: Arc<JoinSet<()>>,
}

impl Link {
    /// `dispatch` receives the requests that the near end opens.
    pub fn to(dispatch: Arc<dyn Dispatch>) -> Self {
        Self::with(ends(), dispatch)
    }

    /// The same with these settings of the near and the far end.
    pub fn with([near, far]: [LaneConfig; 2], dispatch: Arc<dyn Dispatch>) -> Self {
        let near = lane(near, Incoming::channel().0);
        near.allow_upgrades();
        Self::between(near, lane(far, dispatch))
    }

    /// Joins two lanes.
    pub fn between(near: Arc<Lane>, far: Arc<Lane>) -> Self {
        let mut driven = JoinSet::new();
        for (lane, peer) in [(&near, &far), (&far, &near)] {
            let (lane, reader) = (lane.clone(), LocalReader::from(peer.outbound()));
            driven.spawn(async move { drop(drive(&lane, reader).await) });
        }
        Self {
            near,
            far,
            seen: Arc::default(),
            _driven: Arc::new(driven),
        }
    }

    /// A link whose far end serves HTTP requests with a function.
    pub fn serving<F, R>(serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let (link, mut incoming) = Self::scripted();
        let seen = link.seen.clone();
        tokio::spawn(async move {
            while let Some(opened) = incoming.0.recv().await {
                let RequestHead::Http(head) = opened.head else {
                    panic!("expected an HTTP request, got {:?}", opened.head);
                };
                seen.lock().unwrap().push_back((*head).clone());
                tokio::spawn(serve(*head, opened.exchange));
            }
        });
        link
    }

    /// A link whose far end is the test.
    pub fn scripted() -> (Self, Incoming) {
        let (dispatch, incoming) = Incoming::channel();
        (Self::to(dispatch), incoming)
    }

    /// Opens a request; `end` ends its direction with the head.
    pub fn open(&self, head: EncodedHead, end: bool) -> Exchange {
        self.near.open(head, end, None).unwrap()
    }

    /// Neither end has an open request.
    pub fn is_idle(&self) -> bool {
        let is_idle = |lane: &Lane| {
            lane.open_requests() == 0 && (lane.is_closed() || lane.mux().stats().open == 0)
        };
        is_idle(&self.near) && is_idle(&self.far)
    }

    /// Waits until neither end has an open request, which detects leaks.
    pub async fn settled(&self) {
        until("no request is open on the link", || self.is_idle()).await;
    }
}
