//! Ends a connection with a reset. An orderly end waits behind bytes that cannot leave.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;

/// Resets one connection. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Abort(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    aborted: AtomicBool,
    wake: Notify,
}

impl Abort {
    /// The peer is silent: on a path that is dead in one direction a reset passes at once, where the end of a stream
    /// waits for acknowledgements that do not come.
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
