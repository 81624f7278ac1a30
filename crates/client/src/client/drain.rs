//! The end of a client: running requests finish, then everything ends.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use adit_link::control::ControlMessage;
use adit_proto::{Drain, control::Kind};

use super::Client;

/// How often a drain checks whether everything has finished.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

/// Nothing must have been running for this long: requests that the server sent before it received the drain may still
/// arrive.
const DRAIN_QUIET: Duration = Duration::from_millis(250);

impl Client {
    /// Requests that the server send no new requests, and waits for the running ones, at most for `timeouts.drain`.
    ///
    /// # Cancel safety
    /// The client goes on draining.
    pub async fn drain(&self) {
        let within = self.state.settings().timeouts.drain;
        let (control, lanes) = {
            let live = self.state.lock();
            (live.control.clone(), live.lanes.clone())
        };
        self.state.draining.store(true, Ordering::Relaxed);
        self.state.cell.set(adit_reconnect::Status::Draining);
        let entries = &self.state.entries;
        entries.drain();
        if let Some(control) = control {
            let drain = Kind::Drain(Drain {
                reason: "the client is stopping".into(),
                grace_millis: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            });
            // Without a control stream the refusals inform the server.
            drop(control.try_send(ControlMessage::new(0, drain)));
        }
        // They would not end by themselves; their ends reconnect.
        self.state.egress.close_websockets();
        let finished = async {
            let mut idle_since = Instant::now();
            // On a closed lane nothing more arrives.
            while lanes.iter().any(|lane| !lane.is_closed()) && idle_since.elapsed() < DRAIN_QUIET {
                tokio::time::sleep(DRAIN_CHECK).await;
                // Also those that the server sent before it received the drain.
                self.state.egress.close_websockets();
                let open: usize = lanes.iter().map(|lane| lane.open_requests()).sum();
                // UDP flows do not end by themselves.
                if open > self.state.egress.stats().udp.flows_open {
                    idle_since = Instant::now();
                }
            }
            // Responses may still be on their way to the visitors of entries.
            while !entries.is_idle() {
                tokio::time::sleep(DRAIN_CHECK).await;
            }
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("requests still run after `timeouts.drain`; they are reset");
        }
        self.state.egress.set_draining(true);
    }

    /// Ends everything at once and waits for the data thread.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the data thread panicked");
        }
    }
}
