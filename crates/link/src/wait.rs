//! Small waits of the crates around links.

use std::future::pending;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Waits until `due`; for ever without a deadline.
///
/// # Cancel safety
/// Dropped, it loses nothing.
pub async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Waits until a flag is true, or its sender is dropped.
///
/// # Cancel safety
/// Dropped, it loses nothing.
pub async fn signalled(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|is_set| *is_set).await;
}
