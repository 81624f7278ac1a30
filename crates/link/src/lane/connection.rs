//! One connection of a lane, from attach to loss.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_mux::Attachment;

use super::{reader::LaneReader, state::LaneState};
use crate::{dispatch::Dispatch, failure::Failure, transport::TransportWriter};

/// One connection of a lane: a writer, a reader ([`Connection::drive`]) and their end.
pub struct Connection {
    lane: Arc<LaneState>,
    dispatch: Arc<dyn Dispatch>,
    attachment: Attachment,
}

impl Connection {
    pub(super) fn new(
        lane: Arc<LaneState>,
        dispatch: Arc<dyn Dispatch>,
        attachment: Attachment,
    ) -> Self {
        Self {
            lane,
            dispatch,
            attachment,
        }
    }

    /// The bytes that are sent over the connection. One writer only.
    pub fn writer(&self) -> TransportWriter {
        TransportWriter::new(self.lane.clone(), self.attachment)
    }

    /// Called when the connection is lost: its requests fail once each with `failure` (P-6.4). The lane is over, or
    /// waits for another connection, as chosen at its creation ([`crate::Lane::new`], [`crate::Lane::reattachable`]).
    /// Only the first call counts.
    pub fn detach(&self, failure: &Failure) {
        self.lane.detach(self.attachment, failure);
    }

    /// Whether the lane has this connection.
    pub fn is_attached(&self) -> bool {
        self.lane.has(self.attachment)
    }

    /// Why the lane has lost this connection, if it has.
    pub fn failure(&self) -> Option<Failure> {
        self.lane.lost(self.attachment)
    }

    /// Waits until the lane has lost this connection.
    pub(crate) async fn wait_lost(&self) -> Failure {
        self.lane.wait_lost(self.attachment).await
    }

    pub(crate) fn reader(&self) -> LaneReader {
        LaneReader::new(self.lane.clone(), self.attachment, self.dispatch.clone())
    }

    /// The interval at which [`Connection::tick`] must be called.
    pub(crate) fn tick_every(&self) -> Duration {
        self.lane.tick_every()
    }

    /// Runs all timers: probes, deadlines, stalled requests.
    pub(crate) fn tick(&self, now: Instant) {
        self.lane.tick(self.attachment, now);
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("lane", &self.lane)
            .field("attachment", &self.attachment)
            .finish_non_exhaustive()
    }
}
