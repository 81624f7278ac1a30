//! The current link, on which entries open their requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_link::{Failure, Lane, Reason};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// A link that is up.
#[derive(Debug)]
pub(crate) struct CurrentLink {
    /// Identifies the link.
    pub(crate) epoch: u64,
    /// Revision of the server's configuration at the registration.
    pub(crate) revision: u64,
    lanes: Vec<Arc<Lane>>,
    /// Selects the lane of the next request.
    turn: AtomicUsize,
    /// Whether the server accepts no new requests on the link.
    leaving: AtomicBool,
}

impl CurrentLink {
    pub(crate) fn new(epoch: u64, revision: u64, lanes: Vec<Arc<Lane>>) -> Self {
        Self {
            epoch,
            revision,
            lanes,
            turn: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    /// The lane for the next request: open lanes take turns. `None` when the link is in `avoid`, drains, or has no open
    /// lane.
    pub(crate) fn lane(&self, avoid: &[u64]) -> Option<Arc<Lane>> {
        if self.leaving.load(Ordering::Relaxed) || avoid.contains(&self.epoch) {
            return None;
        }
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, from) = self
            .lanes
            .split_at_checked(first.checked_rem(self.lanes.len())?)?;
        let mut lanes = from.iter().chain(before);
        lanes.find(|lane| lane.is_attached()).cloned()
    }
}

/// The state of the link.
#[derive(Debug, Clone, Default)]
enum State {
    /// The link is being connected.
    #[default]
    Down,
    Up(Arc<CurrentLink>),
    /// There will be no other link.
    Over,
}

/// Provides the current link to entries, and lets them wait for one.
#[derive(Debug, Default)]
pub(crate) struct Links {
    state: watch::Sender<State>,
}

impl Links {
    /// Called when a link is up.
    pub(crate) fn up(&self, link: CurrentLink) {
        self.state.send_replace(State::Up(Arc::new(link)));
    }

    /// Called when a lane of the current link was replaced.
    pub(crate) fn replace_lanes(&self, lanes: Vec<Arc<Lane>>) {
        self.state.send_if_modified(|state| {
            let State::Up(link) = state else {
                return false;
            };
            *state = State::Up(Arc::new(CurrentLink {
                epoch: link.epoch,
                revision: link.revision,
                lanes,
                turn: AtomicUsize::new(link.turn.load(Ordering::Relaxed)),
                leaving: AtomicBool::new(link.leaving.load(Ordering::Relaxed)),
            }));
            true
        });
    }

    /// Called when the link was lost and is being reconnected.
    pub(crate) fn down(&self) {
        self.state.send_if_modified(|state| {
            let was_up = matches!(state, State::Up(_));
            if was_up {
                *state = State::Down;
            }
            was_up
        });
    }

    /// Called when the server drains: new requests wait for the next link.
    pub(crate) fn leaving(&self) {
        if let State::Up(link) = &*self.state.borrow() {
            link.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Called when the link is not reconnected any more: every wait fails at once.
    pub(crate) fn over(&self) {
        self.state.send_replace(State::Over);
    }

    /// Whether there is a link now.
    pub(crate) fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), State::Up(_))
    }

    /// A lane, if there is one now.
    pub(crate) fn lane(&self, avoid: &[u64]) -> Option<(Arc<Lane>, Arc<CurrentLink>)> {
        match &*self.state.borrow() {
            State::Up(link) => Some((link.lane(avoid)?, link.clone())),
            State::Down | State::Over => None,
        }
    }

    /// Waits for a lane, at most for `wait`.
    ///
    /// # Errors
    /// `no_client` when no link is up within `wait`, or the link is not reconnected any more.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn wait(
        &self,
        avoid: &[u64],
        wait: Duration,
    ) -> Result<(Arc<Lane>, Arc<CurrentLink>), Failure> {
        let deadline = Instant::now() + wait;
        let mut states = self.state.subscribe();
        loop {
            match &*states.borrow_and_update() {
                State::Up(link) => {
                    if let Some(lane) = link.lane(avoid) {
                        return Ok((lane, link.clone()));
                    }
                }
                State::Down => {}
                State::Over => {
                    return Err(Failure::new(Reason::NoClient, "this client is stopping"));
                }
            }
            if !matches!(timeout_at(deadline, states.changed()).await, Ok(Ok(()))) {
                return Err(Failure::new(
                    Reason::NoClient,
                    "not connected to the server",
                ));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use adit_codec::Side;
    use adit_flow::Budget;
    use adit_link::{Dispatch, IncomingRequest, LaneConfig};

    use super::*;

    struct NullDispatch;

    impl Dispatch for NullDispatch {
        fn dispatch(&self, opened: IncomingRequest) {
            drop(opened);
        }
    }

    pub(crate) fn lane() -> Arc<Lane> {
        let config = LaneConfig {
            mux: adit_mux::Config::new(Side::Client),
            max_entries: 1,
            heartbeat: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            turn_bytes: adit_link::turn::TURN_BYTES,
        };
        Lane::new(config, Budget::new(0), Arc::new(NullDispatch))
    }

    fn lost() -> Failure {
        Failure::new(Reason::LinkLost, "for a test")
    }

    #[tokio::test]
    async fn open_lanes_take_turns_and_closed_ones_are_skipped() {
        let links = Links::default();
        let lanes = [lane(), lane(), lane()];
        links.up(CurrentLink::new(7, 1, lanes.to_vec()));
        let chosen = |avoid: &[u64]| {
            let (chosen, _) = links.lane(avoid)?;
            lanes.iter().position(|lane| Arc::ptr_eq(lane, &chosen))
        };
        assert_eq!([chosen(&[]), chosen(&[])], [Some(0), Some(1)]);
        lanes[2].close(&lost());
        assert_eq!(chosen(&[]), Some(0));
        assert_eq!(chosen(&[7]), None, "it was tried");
        links.leaving();
        assert_eq!(chosen(&[]), None, "the server drains");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_with_the_next_link() {
        let links = Arc::new(Links::default());
        links.up(CurrentLink::new(1, 1, vec![lane()]));
        links.leaving();
        let waiting = tokio::spawn({
            let links = links.clone();
            async move { links.wait(&[], Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        links.down();
        assert!(!links.is_up());
        tokio::task::yield_now().await;
        links.up(CurrentLink::new(2, 1, vec![lane()]));
        let (_, link) = waiting.await.unwrap().unwrap();
        assert_eq!(link.epoch, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_is_bounded_and_ends_with_the_client() {
        let links = Arc::new(Links::default());
        let begun = Instant::now();
        let waited = links.wait(&[], Duration::from_secs(5)).await;
        assert_eq!(waited.unwrap_err().reason, Reason::NoClient);
        assert_eq!(begun.elapsed(), Duration::from_secs(5));
        let waiting = tokio::spawn({
            let links = links.clone();
            async move { links.wait(&[], Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        links.over();
        assert_eq!(waiting.await.unwrap().unwrap_err().reason, Reason::NoClient);
        assert_eq!(begun.elapsed(), Duration::from_secs(5), "it ends at once");
        // The loss of the link after that does not announce another one.
        links.down();
        assert!(links.wait(&[], Duration::ZERO).await.is_err());
    }
}
