//! Waits that several crates use.

use std::{
    future::{Future as _, pending},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

/// Waits until `due`; forever without a deadline.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Waits until a flag is true, or its sender is dropped.
///
/// # Cancel safety
/// Dropping the future loses nothing.
pub async fn signalled(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_set| *is_set).await;
}

/// Waits for a deadline that moves often. The runtime's timer is not reset each time: when it fires before the deadline, it
/// is set again, so that a later deadline costs nothing until then.
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Ready when `deadline` has passed.
    pub fn poll(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}
