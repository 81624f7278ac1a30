//! The end of a client: what runs may finish, then everything ends.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use adit_link::control::ControlMessage;
use adit_proto::{Drain, control::Kind};

use super::Client;

/// How often a drain looks whether everything has finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Nothing must have been running for this long: what the server sent before it heard of the drain may be on its way.
const DRAIN_QUIET: Duration = Duration::from_millis(250);

impl Client {
    /// Tells the server to send nothing new and lets running requests finish, at most for the time in the settings.
    pub async fn drain(&self) {
        let within = self.state.settings.timeouts.drain;
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
            // Without a control stream the server learns it from the refusals.
            drop(control.try_send(ControlMessage::new(0, drain)));
        }
        // They would never finish; whoever is at their ends comes back by another way.
        self.state.egress.close_websockets();
        let finished = async {
            let mut idle_since = Instant::now();
            // On a lane that is over nothing is on its way.
            while lanes.iter().any(|lane| !lane.is_closed()) && idle_since.elapsed() < DRAIN_QUIET {
                tokio::time::sleep(DRAIN_LOOK).await;
                // Those too that the server sent before it heard.
                self.state.egress.close_websockets();
                let open: usize = lanes.iter().map(|lane| lane.open_requests()).sum();
                // Flows of UDP have no end to wait for.
                if open > self.state.egress.stats().udp.flows_open {
                    idle_since = Instant::now();
                }
            }
            // Their answers have come, and may still be on their way to them.
            while !entries.is_idle() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        if tokio::time::timeout(within, finished).await.is_err() {
            tracing::warn!("broken off: the time to finish is over");
        }
        self.state.egress.set_draining(true);
    }

    /// Ends everything at once and waits for the thread.
    pub fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the data thread panicked");
        }
    }
}
