//! Whether others wait for the permits that a request holds.

use std::{
    future::pending,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use adit_flow::{Gate, Permit};
use tokio::time::sleep;

use crate::layer::Held;

/// How often a slow holder of a permit looks whether others wait.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// The gates of a request's permits. Empty for one that holds none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand(Vec<Arc<Gate>>);

impl Demand {
    /// Of what the layers gave, and of the client's permit.
    pub(crate) fn of(holds: &[Held], permit: Option<&Permit>) -> Self {
        let held = holds.iter().filter_map(|held| held.downcast_ref());
        Self(
            held.chain(permit)
                .map(|permit: &Permit| permit.gate().clone())
                .collect(),
        )
    }

    /// A permit more.
    pub(crate) fn add(&mut self, permit: Option<&Permit>) {
        self.0.extend(permit.map(|permit| permit.gate().clone()));
    }

    /// Whether somebody waits now.
    pub(crate) fn is_there(&self) -> bool {
        self.0.iter().any(|gate| gate.waiting() > 0)
    }

    /// Waits until somebody waits, from `grace` on. Never ends once `has_moved`.
    ///
    /// # Cancel safety
    /// Yes; it begins anew.
    pub(crate) async fn comes(&self, grace: Duration, has_moved: &AtomicBool) {
        sleep(grace).await;
        loop {
            if self.0.is_empty() || has_moved.load(Ordering::Relaxed) {
                return pending().await;
            }
            if self.is_there() {
                return;
            }
            sleep(LOOK).await;
        }
    }
}
