//! Whether other requests wait for the permits that a request holds.

use std::{
    future::pending,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use adit_flow::{Gate, Permit};
use tokio::time::sleep;

use crate::forward::layer::Held;

/// How often a slow holder of a permit checks whether other requests wait for it.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The gates of a request's permits. Empty for a request without permits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand(Vec<Arc<Gate>>);

impl Demand {
    /// The gates of the permits in `holds`, and of the client's permit.
    pub(crate) fn of(holds: &[Held], permit: Option<&Permit>) -> Self {
        let held = holds.iter().filter_map(|held| held.downcast_ref());
        Self(
            held.chain(permit)
                .map(|permit: &Permit| permit.gate().clone())
                .collect(),
        )
    }

    /// Adds the gate of a permit.
    pub(crate) fn add(&mut self, permit: Option<&Permit>) {
        self.0.extend(permit.map(|permit| permit.gate().clone()));
    }

    /// Whether other requests wait now.
    pub(crate) fn exists(&self) -> bool {
        self.0.iter().any(|gate| gate.waiting() > 0)
    }

    /// Waits `grace`, and then until other requests wait. Never ends once `has_moved` is set.
    ///
    /// # Cancel safety
    /// Yes; the grace starts again.
    pub(crate) async fn arises(&self, grace: Duration, has_moved: &AtomicBool) {
        sleep(grace).await;
        loop {
            if self.0.is_empty() || has_moved.load(Ordering::Relaxed) {
                return pending().await;
            }
            if self.exists() {
                return;
            }
            sleep(CHECK_INTERVAL).await;
        }
    }
}
