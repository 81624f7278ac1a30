//! Visitors that do not read.

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::timeout::Timeout;
use crate::forward::{connection::Connection, pace::Pace};

/// The timeout of writes, which runs only while one is stuck.
pub(super) struct Stall {
    timeout: Timeout,
    within: Duration,
    /// The rate at which the visitor reads.
    pace: Pace,
}

impl Stall {
    pub(super) fn new(within: Duration, min_rate_bytes_per_sec: u64) -> Self {
        Self {
            timeout: Timeout::default(),
            within,
            pace: Pace::new(within, min_rate_bytes_per_sec),
        }
    }

    /// Lets a write be stuck for `within` from now on: one byte in that time is enough.
    pub(super) fn relax(&mut self, within: Duration) {
        self.within = within;
        self.pace = Pace::new(within, 0);
    }

    /// How long a write may be stuck.
    pub(super) const fn within(&self) -> Duration {
        self.within
    }

    /// Called while a write waits for the visitor: ready when it has waited too long.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
    ) -> Poll<io::Error> {
        connection.set_writing(true);
        self.timeout.arm_at(self.pace.wait());
        ready!(self.timeout.poll(cx));
        connection.set_stalled();
        connection.reset_on_drop();
        Poll::Ready(io::Error::new(
            io::ErrorKind::TimedOut,
            "the visitor reads nothing",
        ))
    }

    /// Called when a write continues. Adds the time for which it was stuck (F12).
    pub(super) fn end(&mut self, connection: &Connection) {
        if self.timeout.is_armed() {
            self.timeout.disarm();
            self.pace.pause();
            connection.set_writing(false);
        }
    }

    /// Called when bytes have been written.
    pub(super) fn moved(&mut self, bytes: u64) {
        self.pace.moved(bytes);
    }
}
