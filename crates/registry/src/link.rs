//! A live client.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use adit_auth::{Grant, InstanceKey, LinkKey};
use adit_balance::Load;
use adit_flow::Gate;
use adit_link::{
    Failure, Lane, LaneStats,
    control::{ChannelId, ControlMessage},
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

/// Identifies one registration; never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub(crate) u64);

impl LinkId {
    /// The number, for logs and comparisons.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// A live client as the server sees it: a control stream and 1 to n lanes.
pub struct Link {
    pub(crate) id: LinkId,
    pub(crate) session: LinkKey,
    pub(crate) grant: Grant,
    pub(crate) instance: InstanceKey,
    /// Assigned when the link is inserted, under the lock of the index: a link that takes over has the greater one.
    pub(crate) epoch: AtomicU64,
    pub(crate) channel: ChannelId,
    pub(crate) peer: SocketAddr,
    pub(crate) permits: Arc<Gate>,
    pub(crate) load: Load,
    pub(crate) capabilities: OnceLock<Box<[String]>>,
    pub(crate) draining: AtomicBool,
    /// The revision of the credentials under which the grant was found valid last.
    pub(crate) authorized_at: AtomicU64,
    /// Selects the lane of the next request.
    pub(crate) turn: AtomicUsize,
    pub(crate) streams: Mutex<Streams>,
    /// Becomes true when another link has taken over.
    pub(crate) fenced: watch::Sender<bool>,
}

/// The streams of a link now.
pub(crate) struct Streams {
    /// The lanes by number; `None` where the data stream is not open.
    pub(crate) lanes: Vec<Option<Arc<Lane>>>,
    pub(crate) control: Option<mpsc::Sender<ControlMessage>>,
    /// Counts control streams, so that the end of an old one does not close a newer one.
    pub(crate) control_turn: u64,
    /// The channel that carried the registration is open.
    pub(crate) channel_open: bool,
    /// Removed from the registry: no stream is added any more.
    pub(crate) ended: bool,
    /// Removes the session unless its first data stream opens in time.
    pub(crate) setup: Option<AbortHandle>,
}

impl Streams {
    pub(crate) fn is_routable(&self) -> bool {
        // A lane may have lost its connection before its guard has removed it.
        !self.ended && self.lanes.iter().flatten().any(|lane| lane.is_attached())
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.control.is_none() && self.lanes.iter().all(Option::is_none)
    }
}

/// Reports when a link is fenced: another one has taken over (P-1.8).
#[derive(Debug, Clone)]
pub struct Fence(watch::Receiver<bool>);

impl Fence {
    /// Whether another link has taken over.
    pub fn is_fenced(&self) -> bool {
        *self.0.borrow()
    }

    /// Completes when another link takes over; never when the link has ended otherwise.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn fenced(&mut self) {
        if self.0.wait_for(|fenced| *fenced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Counters and gauges of a link.
#[derive(Debug, Clone, Default)]
pub struct LinkStats {
    /// The counters and gauges of each open lane.
    pub lanes: Vec<LaneStats>,
    /// The control stream is open.
    pub control: bool,
}

impl Link {
    /// The number of the link's registration.
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// The identity and the permissions of the client.
    pub const fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The address from which the client registered.
    pub const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The epoch, issued at the registration; greater than that of every earlier one.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    /// The permits for the requests of the link.
    pub const fn permits(&self) -> &Arc<Gate> {
        &self.permits
    }

    /// The requests that the client is serving.
    pub const fn load(&self) -> &Load {
        &self.load
    }

    /// The revision of the credentials under which the grant was found valid last; 0: it was not checked again.
    pub fn authorized_at(&self) -> u64 {
        self.authorized_at.load(Ordering::Relaxed)
    }

    /// The grant is valid under this revision of the credentials.
    pub fn set_authorized_at(&self, revision: u64) {
        self.authorized_at.store(revision, Ordering::Relaxed);
    }

    /// Stores the capabilities that both sides have (P-1.2). Only the first call counts.
    pub fn set_capabilities(&self, capabilities: Vec<String>) {
        let _ = self.capabilities.set(capabilities.into());
    }

    /// Whether both sides have this capability.
    pub fn supports(&self, capability: &str) -> bool {
        let agreed = self.capabilities.get();
        agreed.is_some_and(|agreed| agreed.iter().any(|agreed| agreed == capability))
    }

    /// Whether the link accepts new requests.
    pub fn is_routable(&self) -> bool {
        !self.is_draining() && self.streams.lock().is_routable()
    }

    /// Whether the link has ended.
    pub fn is_ended(&self) -> bool {
        self.streams.lock().ended
    }

    /// Reports when another link takes over (P-1.8). It does not keep the link.
    pub fn fence(&self) -> Fence {
        Fence(self.fenced.subscribe())
    }

    /// Whether the client drains (P-6.6).
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The lane for the next request: open lanes take turns.
    pub fn lane(&self) -> Option<Arc<Lane>> {
        let streams = self.streams.lock();
        if streams.ended {
            return None;
        }
        let count = streams.lanes.len();
        let first = if count > 1 {
            self.turn.fetch_add(1, Ordering::Relaxed) % count
        } else {
            0
        };
        (0..count)
            .filter_map(|step| streams.lanes.get((first + step) % count)?.as_ref())
            .find(|lane| lane.is_attached())
            .cloned()
    }

    /// Sends a message on the control stream; false when the stream is not open or its queue is full.
    pub fn send_control(&self, message: ControlMessage) -> bool {
        let control = self.streams.lock().control.clone();
        control.is_some_and(|control| control.try_send(message).is_ok())
    }

    /// The counters and gauges of the link.
    pub fn stats(&self) -> LinkStats {
        let (lanes, control) = {
            let streams = self.streams.lock();
            let lanes: Vec<_> = streams.lanes.iter().flatten().cloned().collect();
            (lanes, streams.control.is_some())
        };
        LinkStats {
            lanes: lanes.iter().map(|lane| lane.stats()).collect(),
            control,
        }
    }

    /// Ends every stream. True the first time.
    pub(crate) fn end(&self, failure: &Failure) -> bool {
        let (lanes, first) = {
            let mut streams = self.streams.lock();
            let first = !std::mem::replace(&mut streams.ended, true);
            streams.control = None;
            if let Some(setup) = streams.setup.take() {
                setup.abort();
            }
            (std::mem::take(&mut streams.lanes), first)
        };
        for lane in lanes.iter().flatten() {
            lane.close(failure);
        }
        first
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("client", self.grant.client())
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}
