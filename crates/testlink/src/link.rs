//! A lane with both its ends: bytes that one end sends arrive at the other.

use std::{
    collections::VecDeque,
    future::Future,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_auth::{ClientClaim, Grant};
use adit_codec::{EncodedHead, HttpRequest, RequestHead, Side};
use adit_flow::Budget;
use adit_link::{
    Dispatch, Exchange, IncomingRequest, Lane, LaneConfig, TransportError, TransportReader,
    TransportWriter, drive,
};
use bytes::Bytes;
use tokio::task::JoinSet;

use crate::{Incoming, until};

/// The tunnel of all tests.
pub const TUNNEL: &str = "web";

/// The grant of client `office` of user `alice` in group `office`.
pub fn link_grant() -> Grant {
    let claim = ClientClaim {
        client_id: "office".parse().unwrap(),
        group_id: "office".parse().unwrap(),
    };
    Grant::for_link("alice".parse().unwrap(), claim)
}

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

/// One end of a lane, which resets the requests that its peer opens.
pub fn lane_of(side: Side) -> Arc<Lane> {
    Lane::new(lane_config(side), Budget::new(1 << 20), Arc::new(Reset))
}

/// Resets every request.
struct Reset;

impl Dispatch for Reset {
    fn dispatch(&self, opened: IncomingRequest) {
        drop(opened);
    }
}

/// Serves each HTTP request with a function.
struct Serve<F>(F);

impl<F, R> Dispatch for Serve<F>
where
    F: Fn(HttpRequest, Exchange) -> R + Send + Sync,
    R: Future<Output = ()> + Send + 'static,
{
    fn dispatch(&self, opened: IncomingRequest) {
        match opened.head {
            RequestHead::Http(head) => drop(tokio::spawn((self.0)(*head, opened.exchange))),
            other => panic!("expected an HTTP request, got {other:?}"),
        }
    }
}

/// Reads the bytes that another lane sends, in the pieces of its writer.
pub struct Pipe {
    from: TransportWriter,
    segments: VecDeque<Bytes>,
}

impl From<TransportWriter> for Pipe {
    fn from(from: TransportWriter) -> Self {
        let segments = VecDeque::new();
        Self { from, segments }
    }
}

impl TransportReader for Pipe {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            if let Some(bytes) = self.segments.pop_front() {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match ready!(self.from.poll_batch(cx)) {
                Some(batch) => self.segments.extend(batch.into_segments()),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Options of a link.
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// The sides of the near and the far end.
    pub sides: (Side, Side),
    /// Both ends tick three times in this interval.
    pub heartbeat: Duration,
    pub initial_window: Option<u32>,
    /// Whether the far end knows upgrades (P-3.7).
    pub upgrades: bool,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self {
            sides: (Side::Server, Side::Client),
            heartbeat: Duration::from_secs(5),
            initial_window: None,
            upgrades: true,
        }
    }
}

/// A lane with both its ends, which lives as long as its last clone. Tests open requests on the near end.
#[derive(Clone)]
pub struct Link {
    pub near: Arc<Lane>,
    pub far: Arc<Lane>,
    _driven: Arc<JoinSet<()>>,
}

impl Link {
    /// `dispatch` receives the requests that the near end opens.
    pub fn new(options: &LinkOptions, dispatch: Arc<dyn Dispatch>) -> Self {
        let end = |side, dispatch| {
            let mut config = lane_config(side);
            config.heartbeat = options.heartbeat;
            if let Some(window) = options.initial_window {
                config.mux.initial_window = window;
            }
            Lane::new(config, Budget::new(64 << 20), dispatch)
        };
        let near = end(options.sides.0, Arc::new(Reset) as Arc<dyn Dispatch>);
        let far = end(options.sides.1, dispatch);
        if options.upgrades {
            near.allow_upgrades();
        }
        let mut driven = JoinSet::new();
        for (lane, peer) in [(&near, &far), (&far, &near)] {
            let (lane, pipe) = (lane.clone(), Pipe::from(peer.outbound()));
            driven.spawn(async move { drop(drive(&lane, pipe).await) });
        }
        let _driven = Arc::new(driven);
        Self { near, far, _driven }
    }

    /// A link with the usual options.
    pub fn to(dispatch: Arc<dyn Dispatch>) -> Self {
        Self::new(&LinkOptions::default(), dispatch)
    }

    /// A link whose far end serves HTTP requests with a function.
    pub fn serving<F, R>(serve: F) -> Self
    where
        F: Fn(HttpRequest, Exchange) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::to(Arc::new(Serve(serve)))
    }

    /// A link whose far end is the test.
    pub fn scripted() -> (Self, Incoming) {
        Self::scripted_with(&LinkOptions::default())
    }

    pub fn scripted_with(options: &LinkOptions) -> (Self, Incoming) {
        let (dispatch, incoming) = Incoming::channel();
        (Self::new(options, dispatch), incoming)
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
