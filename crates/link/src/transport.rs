//! The seam between lanes and what carries them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use adit_codec::Batch;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    failure::{Failure, Reason},
    lane::state::LaneState,
};

/// Why a transport cannot go on.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Gives the bytes that arrive, in whatever pieces they come.
pub trait TransportReader: Send {
    /// The next piece; `None` when the peer has ended the stream.
    ///
    /// # Errors
    /// [`TransportError`] when the connection is lost.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>>;
}

/// Gives the bytes that are to leave. Dropping it ends the lane: nobody would write any more.
#[derive(Debug)]
pub struct TransportWriter {
    lane: Arc<LaneState>,
}

impl TransportWriter {
    pub(crate) const fn new(lane: Arc<LaneState>) -> Self {
        Self { lane }
    }

    /// Why the lane is over, if it is.
    pub fn failure(&self) -> Option<Failure> {
        self.lane.closed()
    }

    /// The next batch; `None` when the lane is over.
    ///
    /// # Cancel safety
    /// Nothing is taken unless it is returned.
    pub fn poll_batch(&mut self, cx: &mut Context<'_>) -> Poll<Option<Batch>> {
        loop {
            let Some(transmit) = std::task::ready!(self.lane.mux().poll_transmit(cx)) else {
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
        self.lane
            .close(&Failure::new(Reason::LinkLost, "the connection was closed"));
    }
}
