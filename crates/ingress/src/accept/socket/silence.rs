//! Visitors that send nothing: a head that does not end, or a connection without a request.

use std::{
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use super::timeout::Timeout;
use crate::{accept::framing::Framing, forward::connection::Connection};

/// The timeouts of heads and of idle connections.
pub(super) struct Silence {
    timeout: Timeout,
    head: Duration,
    idle: Duration,
    /// Number of requests of an HTTP/2 connection at its last check.
    requests: u64,
}

impl Silence {
    /// The timeouts of a connection that has just been accepted: its first head is awaited.
    pub(super) fn new(head: Duration, idle: Duration) -> Self {
        let mut timeout = Timeout::default();
        timeout.arm(head);
        Self {
            timeout,
            head,
            idle,
            requests: 0,
        }
    }

    /// Ends the timeout that runs.
    pub(super) const fn end(&mut self) {
        self.timeout.disarm();
    }

    /// Called while hyper waits for bytes of HTTP/1: ready when it has waited too long.
    pub(super) fn poll_http1(
        &mut self,
        cx: &mut Context<'_>,
        framing: &Framing,
        connection: &Connection,
    ) -> Poll<()> {
        if framing.is_in_head() || framing.heads() == 0 {
            self.timeout.arm(self.head);
        } else if framing.is_between_requests() && connection.open.load(Ordering::Relaxed) == 0 {
            self.timeout.arm(self.idle);
        } else {
            // A body is awaited: its reader has a timeout of its own.
            self.timeout.disarm();
        }
        self.timeout.poll(cx)
    }

    /// Called while h2 waits for frames: notifies the connection when it has been idle for too long. Pings keep an
    /// HTTP/2 connection busy: only requests count.
    pub(super) fn poll_http2(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let requests = connection.requests();
        let is_idle = connection.open.load(Ordering::Relaxed) == 0;
        if !is_idle || requests != self.requests {
            self.requests = requests;
            self.timeout.disarm();
        }
        if is_idle {
            self.timeout.arm(self.idle);
            if self.timeout.poll_once(cx).is_ready() {
                connection.idle.notify_one();
            }
        }
    }
}
