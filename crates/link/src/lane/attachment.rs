//! The states of a lane: which connection carries it, and the effect of a lost connection.
//!
//! ```text
//!                 attach                    detach(reason): requests fail once each
//!   (new) ------> Attached(connection) ------------------------------+
//!                   ^        |                                       |
//!                   |        | close(failure)          OnLoss::Close | OnLoss::Detach
//!                   |        v                                       v         v
//!                   |      Closed(failure) <-------------------------+     Detached(reason)
//!                   |                                                          |
//!                   +------------------------------ attach --------------------+
//! ```
//!
//! A new lane is already attached to its first connection: requests that are opened before the connection is
//! established are sent when it is. [`LaneState`] keeps the mux, the request table, the credit and the gauges; a
//! connection has a reader, a writer and a number. The loss of a connection is one event, [`LaneState::detach`], of the
//! reader, the writer or the clock, whichever detects it first. Its effect is decided under one lock, so that each
//! request fails once, and a reader or writer of a connection that has been replaced has no effect.
//!
//! In this version requests do not survive the loss of their connection (P-6.4). All other state survives, and the ids
//! continue: a lane that is attached again has the same two ends as before.

use std::sync::{Arc, atomic::Ordering};

use adit_mux::Attachment;

use super::{
    phase::{OnLoss, Phase},
    state::LaneState,
};
use crate::{
    clock::now,
    failure::{Failure, Reason},
    inbox::Inbox,
};

impl LaneState {
    /// The connection that the lane has.
    pub(super) fn attached(&self) -> Option<Attachment> {
        match &*self.phase.borrow() {
            Phase::Attached(connection) => Some(*connection),
            Phase::Detached(_) | Phase::Closed(_) => None,
        }
    }

    /// Whether the lane has this connection.
    pub(super) fn has(&self, connection: Attachment) -> bool {
        matches!(&*self.phase.borrow(), Phase::Attached(current) if *current == connection)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.phase.borrow(), Phase::Closed(_))
    }

    /// Why the lane is over, if it is.
    pub(super) fn closed(&self) -> Option<Failure> {
        match &*self.phase.borrow() {
            Phase::Closed(failure) => Some(failure.clone()),
            Phase::Attached(_) | Phase::Detached(_) => None,
        }
    }

    /// Why the lane does not have this connection, if it does not.
    pub(crate) fn lost(&self, connection: Attachment) -> Option<Failure> {
        match &*self.phase.borrow() {
            Phase::Attached(current) if *current == connection => None,
            Phase::Attached(_) => Some(Failure::new(Reason::LinkLost, REPLACED)),
            Phase::Detached(failure) | Phase::Closed(failure) => Some(failure.clone()),
        }
    }

    /// Waits until the lane does not have this connection.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn wait_lost(&self, connection: Attachment) -> Failure {
        let mut phase = self.phase.subscribe();
        loop {
            phase.borrow_and_update();
            if let Some(failure) = self.lost(connection) {
                return failure;
            }
            if phase.changed().await.is_err() {
                return Failure::new(Reason::LinkLost, "the lane was dropped");
            }
        }
    }

    /// Waits until the lane is over.
    ///
    /// # Cancel safety
    /// Yes.
    pub(super) async fn wait_closed(&self) -> Failure {
        let mut phase = self.phase.subscribe();
        loop {
            if let Phase::Closed(failure) = &*phase.borrow_and_update() {
                return failure.clone();
            }
            if phase.changed().await.is_err() {
                return Failure::new(Reason::LinkLost, "the lane was dropped");
            }
        }
    }

    /// Gives the lane another connection. The current one, if there is one, is lost.
    ///
    /// # Errors
    /// The failure that ended the lane.
    pub(super) fn attach(&self) -> Result<Attachment, Failure> {
        if let Some(connection) = self.attached() {
            self.detach(connection, &Failure::new(Reason::LinkLost, REPLACED));
        }
        let mut attached = Err(Failure::new(Reason::LinkLost, REPLACED));
        self.phase.send_if_modified(|phase| {
            match phase {
                Phase::Closed(failure) => attached = Err(failure.clone()),
                // Another call of `attach` was first.
                Phase::Attached(_) => {}
                Phase::Detached(_) => {
                    let connection = self.mux.attach();
                    self.table.reopen();
                    attached = Ok(connection);
                }
            }
            if let Ok(connection) = &attached {
                *phase = Phase::Attached(*connection);
            }
            attached.is_ok()
        });
        if attached.is_ok() {
            // The time without a connection does not count as silence of the peer.
            self.lock_liveness().on_received(now());
            self.silent.store(false, Ordering::Relaxed);
        }
        attached
    }

    /// A connection is lost: its requests fail once each with `failure`, and nothing is opened until the lane has another
    /// one (P-6.4). Only the first call for a connection counts.
    pub(crate) fn detach(&self, connection: Attachment, failure: &Failure) {
        let mut requests = Vec::new();
        self.phase.send_if_modified(|phase| {
            if !matches!(phase, Phase::Attached(current) if *current == connection) {
                return false;
            }
            match self.on_loss {
                OnLoss::Close => {
                    self.mux.close();
                    *phase = Phase::Closed(failure.clone());
                }
                OnLoss::Detach => {
                    self.mux.detach();
                    *phase = Phase::Detached(failure.clone());
                }
            }
            requests = self.table.close();
            true
        });
        fail_all(requests, failure);
    }

    /// Ends the lane: every request fails once with `failure`, nothing is opened any more (P-6.4). Only the first call
    /// counts.
    pub(crate) fn close(&self, failure: &Failure) {
        let mut requests = Vec::new();
        self.phase.send_if_modified(|phase| {
            if matches!(phase, Phase::Closed(_)) {
                return false;
            }
            self.mux.close();
            *phase = Phase::Closed(failure.clone());
            requests = self.table.close();
            true
        });
        fail_all(requests, failure);
    }
}

const REPLACED: &str = "the lane has another connection";

/// Called without the lock: it wakes tasks and drops the values that the requests held.
fn fail_all(requests: Vec<(u64, Arc<Inbox>)>, failure: &Failure) {
    for (_, inbox) in requests {
        inbox.fail(failure.clone());
    }
}
