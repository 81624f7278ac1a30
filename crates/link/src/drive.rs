//! Runs a lane over a connection.

use std::{future::poll_fn, pin::pin, sync::Arc};

use tokio::time::{MissedTickBehavior, interval};

use crate::{
    boxed::BoxFuture,
    clock::now,
    failure::{Failure, Reason},
    lane::{Connection, Lane},
    transport::TransportReader,
};

/// Runs a lane over its only connection until that is lost: reads, sends probes, runs the timers. Returns the reason.
/// Use [`Connection::drive`] for a lane that is given further connections.
///
/// # Cancel safety
/// Dropping it is the loss of the connection: nothing would be read any more.
pub fn drive(
    lane: &Arc<Lane>,
    reader: impl TransportReader + 'static,
) -> BoxFuture<'static, Failure> {
    lane.connection().drive(reader)
}

impl Connection {
    /// Runs the lane over this connection until the connection is lost, and detaches it (P-6.4). Returns the reason.
    ///
    /// # Cancel safety
    /// Dropping it is the loss of the connection: nothing would be read any more.
    pub fn drive(self, transport: impl TransportReader + 'static) -> BoxFuture<'static, Failure> {
        self.run(Box::new(transport))
    }

    fn run(self, mut transport: Box<dyn TransportReader>) -> BoxFuture<'static, Failure> {
        Box::pin(async move {
            let _detach = DetachOnDrop(&self);
            let mut reader = self.reader();
            let mut ticks = interval(self.tick_every());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut lost = pin!(self.wait_lost());
            let failure = loop {
                tokio::select! {
                    biased;
                    failure = lost.as_mut() => break failure,
                    _ = ticks.tick() => self.tick(now()),
                    bytes = poll_fn(|cx| transport.poll_bytes(cx)) => match bytes {
                        Some(Ok(bytes)) => {
                            reader.feed(bytes);
                            let handled = loop {
                                match reader.handle_some() {
                                    Ok(true) if self.is_attached() => reader.yield_if_over().await,
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
            self.detach(&failure);
            // If the connection was lost before, the first failure counts.
            self.failure().unwrap_or(failure)
        })
    }
}

/// Detaches the connection when the task that reads it is dropped.
struct DetachOnDrop<'c>(&'c Connection);

impl Drop for DetachOnDrop<'_> {
    fn drop(&mut self) {
        let failure = Failure::new(Reason::LinkLost, "the connection is no longer read");
        self.0.detach(&failure);
    }
}
