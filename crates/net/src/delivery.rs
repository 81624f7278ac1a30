//! The wait between the last write and a reset: a reset discards what the system has not sent yet.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// The first check of the connection is after this time; each later pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two checks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Waits until the system has sent what was written to a connection, and the peer has acknowledged all but the last
/// segment. No event that safe code can wait for reports this, so the connection is checked, at growing intervals.
#[derive(Debug)]
pub struct Delivery {
    until: Instant,
    pause: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delivery {
    /// Creates a wait of at most `within`.
    pub(crate) fn new(within: Duration) -> Self {
        Self {
            until: Instant::now() + within,
            pause: FIRST_PAUSE,
            sleep: None,
        }
    }

    /// Ready when everything has been sent, the connection has failed, or the time is over.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        is_delivered: impl Fn() -> bool,
    ) -> Poll<()> {
        loop {
            if let Some(sleep) = &mut self.sleep {
                ready!(sleep.as_mut().poll(cx));
            }
            let now = Instant::now();
            if is_delivered() || now >= self.until {
                return Poll::Ready(());
            }
            let next = (now + self.pause).min(self.until);
            self.pause = (2 * self.pause).min(LONGEST_PAUSE);
            match &mut self.sleep {
                Some(sleep) => sleep.as_mut().reset(next),
                none => *none = Some(Box::pin(sleep_until(next))),
            }
        }
    }
}
