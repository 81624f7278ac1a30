//! The end of a client: running requests finish, and then the client ends.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use adit_link::control::ControlMessage;
use adit_proto::{Drain, control::Kind};

use super::Client;

/// How often a drain checks whether everything has finished.
const DRAIN_CHECK: Duration = Duration::from_millis(20);

/// The time without a running request after which a drain ends: requests that the server sent before it received the
/// drain may still arrive.
const DRAIN_QUIET: Duration = Duration::from_millis(250);

impl Client {
    /// Announces to the server that the client drains, so that it sends no new requests, and waits for the running
    /// ones, at most for `timeouts.drain`.
    ///
    /// # Cancel safety
    /// The client continues to drain.
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
            // Without a control stream, the server learns of the drain from the refusals.
            drop(control.try_send(ControlMessage::new(0, drain)));
        }
        // WebSockets would not end by themselves; their peers connect again.
        self.state.egress.close_websockets();
        let finished = async {
            let mut idle_since = Instant::now();
            // No request arrives on a closed lane.
            while lanes.iter().any(|lane| !lane.is_closed()) && idle_since.elapsed() < DRAIN_QUIET {
                tokio::time::sleep(DRAIN_CHECK).await;
                // WebSockets that the server sent before it received the drain are closed as well.
                self.state.egress.close_websockets();
                let open: usize = lanes.iter().map(|lane| lane.open_requests()).sum();
                // UDP flows do not end by themselves.
                if open > self.state.egress.stats().udp.flows_open {
                    idle_since = Instant::now();
                }
            }
            // Responses to visitors of entries may not have been written yet.
            while !entries.is_idle() {
                tokio::time::sleep(DRAIN_CHECK).await;
            }
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("requests still run after `timeouts.drain`; they are reset");
        }
        self.state.egress.set_draining(true);
    }

    /// Ends all connections at once and waits for the data thread.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the data thread panicked");
        }
    }
}
