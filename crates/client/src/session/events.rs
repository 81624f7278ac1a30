//! The events of a session: those of its streams, and those for its observer.

use std::sync::Arc;

use adit_link::{Failure, Lane, Reason};
use adit_proto::control::Kind;
use tokio::sync::mpsc;

use crate::status::TunnelOutcome;

/// Receives the events of a session.
pub(crate) trait SessionObserver: Send + Sync + 'static {
    /// The server has sent a control message.
    fn on_control(&self, kind: Kind);

    /// The server has confirmed all changes of the tunnels: the outcome of each.
    fn on_tunnels(&self, outcomes: Vec<TunnelOutcome>);

    /// Lane `index` was lost and has been opened again.
    fn on_lane(&self, index: usize, lane: &Arc<Lane>);

    /// The control stream was lost and has been opened again.
    fn on_control_reopened(&self);

    /// Whether the client drains: lost lanes are not waited for.
    fn is_draining(&self) -> bool;
}

/// A change of a stream.
pub(super) enum Event {
    LaneLost {
        index: u32,
        failure: Failure,
    },
    LaneUp {
        index: u32,
        lane: Arc<Lane>,
    },
    ControlLost,
    ControlUp,
    /// The session cannot continue.
    Over(Failure),
}

/// Reports to the session.
#[derive(Clone)]
pub(super) struct Streams(mpsc::Sender<Event>);

impl Streams {
    pub(super) const fn new(events: mpsc::Sender<Event>) -> Self {
        Self(events)
    }

    pub(super) async fn report(&self, event: Event) {
        // Without a receiver the session is over.
        let _ = self.0.send(event).await;
    }
}

/// The failure when the server has ended the session: the client registers again (P-1.5).
pub(super) fn stale() -> Failure {
    Failure::new(Reason::LinkLost, "the server has ended the session")
}
