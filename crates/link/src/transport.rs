//! The seam between lanes and what carries them.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use adit_codec::Batch;
use bytes::Bytes;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval};

use crate::{
    failure::{Failure, Reason},
    lane::{Lane, now},
};

/// Why a transport cannot go on.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct TransportError(pub String);

/// Gives the bytes that arrive, in whatever pieces they come.
pub trait Source: Send {
    /// The next piece; `None` when the peer has ended the stream.
    ///
    /// # Errors
    /// [`TransportError`] when the connection is lost.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>>;
}

/// Gives the bytes that are to leave. Dropping it ends the lane: nobody would write any more.
#[derive(Debug)]
pub struct Outbound {
    lane: Arc<Lane>,
}

impl Outbound {
    pub(crate) const fn new(lane: Arc<Lane>) -> Self {
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

impl Drop for Outbound {
    fn drop(&mut self) {
        self.lane
            .close(&Failure::new(Reason::LinkLost, "the connection was closed"));
    }
}

/// Ends the lane when whoever reads for it is gone.
struct Deaf<'l>(&'l Lane);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0
            .close(&Failure::new(Reason::LinkLost, "nobody reads any more"));
    }
}

/// Runs a lane until it is over: reads, probes, watches the clock. Returns why it ended; the lane is closed then.
///
/// # Cancel safety
/// Dropping it ends the lane: nobody would read any more.
pub async fn drive(lane: &Arc<Lane>, mut source: impl Source) -> Failure {
    let _deaf = Deaf(lane);
    let mut reader = lane.reader();
    let mut ticks = interval(lane.tick_every());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut closed = std::pin::pin!(lane.wait_closed());
    let failure = loop {
        tokio::select! {
            biased;
            failure = closed.as_mut() => break failure,
            _ = ticks.tick() => lane.tick(now()),
            bytes = std::future::poll_fn(|cx| source.poll_bytes(cx)) => match bytes {
                Some(Ok(bytes)) => {
                    reader.feed(bytes);
                    let handled = loop {
                        match reader.handle_some() {
                            Ok(true) if !lane.is_closed() => reader.go_on().await,
                            Ok(_) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    if let Err(error) = handled {
                        break Failure::new(Reason::ProtocolError, error.to_string());
                    }
                    reader.go_on().await;
                }
                Some(Err(error)) => break Failure::new(Reason::LinkLost, error.to_string()),
                None if reader.is_between_messages() => {
                    break Failure::end_of_peer();
                }
                None => {
                    break Failure::new(Reason::LinkLost, "the data stream ended inside a message");
                }
            },
        }
    };
    lane.close(&failure);
    lane.closed().unwrap_or(failure)
}
