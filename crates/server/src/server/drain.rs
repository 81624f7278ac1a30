//! The end of a server: running requests may finish, then everything ends.

use std::time::Duration;

use adit_link::{Failure, Reason, control::ControlMessage};
use adit_proto::{Drain, control::Kind};

use tokio::{task, time::timeout};

use super::Server;

/// How often a drain checks whether the requests that clients opened have finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Datagrams of UDP flows may still be in transit when everything else has finished: flows have no end to wait for.
const FLOWS_GRACE: Duration = Duration::from_millis(500);

/// The last responses to clients may not have been written yet when they are no longer in the request table. Responses
/// to visitors are awaited by their connections.
const RESPONSES_GRACE: Duration = Duration::from_millis(250);

/// The connections may take this long to close after the last request has ended.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// The disk may take this long to store the last uses of credentials.
const KEEP_GRACE: Duration = Duration::from_secs(2);

impl Server {
    /// Accepts no more visitors and lets running requests finish, at most for `timeouts.drain`.
    pub async fn drain(&self) {
        let drain_within = self.drain_within();
        self.drain.send_replace(true);
        self.inner.ports.close();
        self.inner.upstreams.drain();
        for link in self.inner.registry.links() {
            let drain = Kind::Drain(Drain {
                reason: "the server is stopping".into(),
                grace_millis: u64::try_from(drain_within.as_millis()).unwrap_or(u64::MAX),
            });
            link.send_control(ControlMessage::new(0, drain));
        }
        self.visitors.close();
        let left = self.visitors.len();
        if left > 0 {
            tracing::info!(connections = left, within = ?drain_within, "waiting for running requests to finish");
        }
        if let Some(issued) = &self.inner.issued {
            issued.stop();
        }
        let finished = async {
            self.visitors.wait().await;
            while self.inner.upstreams.in_flight() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
                // Requests that were in transit are included.
                self.inner.upstreams.close_websockets();
            }
            if self.inner.entries.udp().stats().flows_open > 0 {
                tokio::time::sleep(FLOWS_GRACE).await;
            } else if !self.inner.upstreams.is_empty() {
                tokio::time::sleep(RESPONSES_GRACE).await;
            }
        };
        let finished = async {
            finished.await;
            if let Some(issued) = &self.inner.issued {
                issued.stopped().await;
            }
        };
        if timeout(drain_within, finished).await.is_err() {
            tracing::warn!(
                connections = self.visitors.len(),
                entries = self.inner.upstreams.in_flight(),
                "requests still run after `timeouts.drain`; they are reset"
            );
        }
    }

    /// Ends everything at once and waits for the threads.
    pub async fn stop(mut self) {
        self.drain.send_replace(true);
        self.inner.ports.close();
        self.inner
            .registry
            .close(&Failure::new(Reason::Draining, "the server is stopping"));
        self.clients.close();
        self.visitors.close();
        let closed = async {
            self.clients.wait().await;
            self.visitors.wait().await;
        };
        let identities = self.inner.identities.clone();
        // The disk may not respond: the end does not depend on it.
        let kept = task::spawn_blocking(move || identities.keep_uses());
        if timeout(KEEP_GRACE, kept).await.is_err() {
            tracing::warn!(within = ?KEEP_GRACE, "the last uses of credentials are not stored: the disk does not respond");
        }
        // The end of the server's runtime ends all remaining connections.
        let _ = timeout(CLOSE_GRACE, closed).await;
        self.stop.send_replace(true);
        self.threads.join();
        if self.worker.join().is_err() {
            tracing::error!("the directory's thread panicked");
        }
    }
}
