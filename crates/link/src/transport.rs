//! The interface between lanes and the connections that carry them.

use std::{
    sync::Arc,
    task::{Context, Poll, ready},
};

use adit_codec::Batch;
use adit_mux::Attachment;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    failure::{Failure, Reason},
    lane::state::LaneState,
};

/// Why a transport cannot continue.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// The bytes that arrive over one connection, in pieces of any size.
pub trait TransportReader: Send {
    /// The next piece; `None` when the peer has ended the stream.
    ///
    /// # Errors
    /// [`TransportError`] when the connection is lost.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>>;
}

/// The bytes that a lane sends over one connection. Dropping it counts as the loss of the connection: nothing more
/// could be sent.
#[derive(Debug)]
pub struct TransportWriter {
    lane: Arc<LaneState>,
    connection: Attachment,
}

impl TransportWriter {
    pub(crate) const fn new(lane: Arc<LaneState>, connection: Attachment) -> Self {
        Self { lane, connection }
    }

    /// Why the lane has lost this connection, if it has.
    pub fn failure(&self) -> Option<Failure> {
        self.lane.lost(self.connection)
    }

    /// The next batch; `None` when the lane has lost this connection.
    ///
    /// # Cancel safety
    /// A batch is taken only when it is returned.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        loop {
            let transmit = ready!(self.lane.mux().poll_transmit(self.connection, cx));
            let Some(transmit) = transmit else {
                return Poll::Ready(None);
            };
            for id in transmit.writable {
                self.lane.writable(id);
            }
            if let Some(batch) = transmit.batch {
                return Poll::Ready(Some(batch));
            }
        }
    }
}

impl Drop for TransportWriter {
    fn drop(&mut self) {
        let failure = Failure::new(Reason::LinkLost, "the connection was closed");
        self.lane.detach(self.connection, &failure);
    }
}
