//! The state that the handles on one request share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use adit_codec::{RequestId, ResetCode};
use adit_pending::Settled;

use crate::{
    failure::{Failure, Reason},
    inbox::Inbox,
    lane::state::LaneState,
};

/// Shared by both halves. The request settles when the last of them is dropped.
pub(crate) struct Request {
    pub(super) lane: Arc<LaneState>,
    pub(super) id: RequestId,
    pub(super) inbox: Arc<Inbox>,
    pub(super) sent_all: AtomicBool,
    pub(super) received_all: AtomicBool,
    /// This side sent `StopSending` before the end of the peer's direction.
    pub(super) gave_up_reading: AtomicBool,
}

impl Request {
    pub(super) const fn new(
        lane: Arc<LaneState>,
        id: RequestId,
        inbox: Arc<Inbox>,
        sent_all: bool,
    ) -> Self {
        Self {
            lane,
            id,
            inbox,
            sent_all: AtomicBool::new(sent_all),
            received_all: AtomicBool::new(false),
            gave_up_reading: AtomicBool::new(false),
        }
    }

    pub(crate) fn consume(&self, cost: u64) {
        self.inbox.consumed(cost);
        self.lane.consumed(self.id, cost);
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.inbox.lock().broken().cloned()
    }

    /// Both directions have ended; payload may still wait to be written to a socket.
    pub(super) fn is_over(&self) -> bool {
        self.sent_all.load(Ordering::Relaxed) && self.received_all.load(Ordering::Relaxed)
    }

    pub(super) fn is_opener(&self) -> bool {
        self.id.opener() == self.lane.mux().side()
    }

    pub(super) fn reset(&self, code: ResetCode, reason: &str) {
        self.lane.mux().reset(self.id, code, reason);
        self.inbox
            .fail(Failure::new(Reason::Cancelled, "ended by this side"));
    }

    pub(super) fn abort(&self, code: ResetCode, reason: &str) {
        self.lane.mux().abort(self.id, code, reason);
        self.inbox
            .fail(Failure::new(Reason::Cancelled, "ended by this side"));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        // An opener that has stopped the response has nothing to wait for. It must not rely on the peer to end its
        // direction: a peer that never does would leave the request in the mux forever.
        let given_up = self.is_opener() && self.gave_up_reading.load(Ordering::Relaxed);
        let whole = self.is_over() && !given_up;
        let failed = self.failure().map(|failure| failure.reason);
        let how = match failed {
            Some(Reason::Cancelled) => Settled::Cancelled,
            Some(_) => Settled::Failed,
            None if whole => Settled::Completed,
            None => Settled::Cancelled,
        };
        // After an abort no more messages are sent, but unread parts are still charged.
        if self.inbox.lock().failure.is_none() && how != Settled::Completed {
            self.lane
                .mux()
                .reset(self.id, ResetCode::Cancelled, "the other side left");
        }
        self.lane.settle(self.id, how, &self.inbox);
    }
}

/// The failure of a direction for which the peer sent `StopSending`.
pub(super) fn stopped() -> Failure {
    Failure::new(Reason::Cancelled, "the other side stopped reading")
}
