//! A timeout of a socket, which starts and ends together with a wait.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_link::Timer;
use tokio::time::Instant;

/// A timeout that runs while it is armed.
#[derive(Default)]
pub(super) struct Timeout {
    deadline: Option<Instant>,
    timer: Timer,
}

impl Timeout {
    /// Starts the timeout, unless it runs.
    pub(super) fn arm(&mut self, after: Duration) {
        if self.deadline.is_none() {
            self.deadline = Some(Instant::now() + after);
        }
    }

    /// Starts the timeout with a point in time, unless it runs.
    pub(super) fn arm_at(&mut self, deadline: Instant) {
        self.deadline.get_or_insert(deadline);
    }

    pub(super) const fn is_armed(&self) -> bool {
        self.deadline.is_some()
    }

    pub(super) const fn disarm(&mut self) {
        self.deadline = None;
    }

    /// Ready when the deadline has passed; pending while it is not armed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.deadline {
            Some(deadline) => self.timer.poll(cx, deadline),
            None => Poll::Pending,
        }
    }

    /// Polls like `poll`, and disarms the timeout when it is ready.
    pub(super) fn poll_once(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll(cx));
        self.disarm();
        Poll::Ready(())
    }
}
