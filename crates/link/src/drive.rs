//! Runs a lane over a transport.

use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    clock::now,
    failure::{Failure, Reason},
    lane::Lane,
    transport::TransportReader,
};

/// Runs a lane until it is over: reads, probes, watches the clock. Returns why it ended; the lane is closed then.
///
/// # Cancel safety
/// Dropping it ends the lane: nobody would read any more.
pub async fn drive(lane: &Arc<Lane>, mut source: impl TransportReader) -> Failure {
    let _close = CloseOnDrop(lane);
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
                            Ok(true) if !lane.is_closed() => reader.yield_if_over().await,
                            Ok(_) => break Ok(()),
                            Err(error) => break Err(error),
                        }
                    };
                    if let Err(error) = handled {
                        break Failure::new(Reason::ProtocolError, error.to_string());
                    }
                    reader.yield_if_over().await;
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

/// Ends the lane when the task that reads for it is gone.
struct CloseOnDrop<'l>(&'l Lane);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0
            .close(&Failure::new(Reason::LinkLost, "nobody reads any more"));
    }
}
