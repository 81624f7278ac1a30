//! Ends a connection with a reset. An orderly end would wait behind bytes that cannot be sent.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Resets one connection. Clones reset the same one.
#[derive(Debug, Clone, Default)]
pub(super) struct Abort(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    aborted: AtomicBool,
    wake: Notify,
}

impl Abort {
    /// Called when the peer is silent. On a path that is dead in one direction a reset arrives at once, while the end
    /// of a stream waits for acknowledgements that do not arrive.
    pub(super) fn abort(&self) {
        self.0.aborted.store(true, Ordering::Relaxed);
        self.0.wake.notify_one();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.0.aborted.load(Ordering::Relaxed)
    }

    pub(super) async fn aborted(&self) {
        self.0.wake.notified().await;
    }
}
