//! A visitor of HTTP/1.1 that asked for `100 Continue` and sends its body without waiting for it (P-3.5).
//!
//! hyper sends the `100` when the body is read, and reads nothing of it before. Whether some of the body is there can
//! only be seen beneath hyper: the socket notes it in what it has read, and looks for it when it reads nothing.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Whether content of the requests of one connection has come.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// Of so many requests of the connection the content has begun to come.
    begun: AtomicU64,
    /// A request waits for its content.
    awaited: AtomicBool,
    came: Notify,
}

impl Expectation {
    /// Some of the content of the first `requests` requests has come, where they have any.
    pub(crate) fn on_content(&self, requests: u64) {
        if self.begun.fetch_max(requests, Ordering::AcqRel) < requests {
            self.came.notify_waiters();
        }
    }

    /// Whether a request waits for its content to come.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire)
    }

    /// Waits until some of the content of the request with this number has come.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn content(&self, request: u64) {
        let _awaited = Awaited::new(self);
        loop {
            let mut came = pin!(self.came.notified());
            // Registered before the question is asked.
            came.as_mut().enable();
            if self.begun.load(Ordering::Acquire) > request {
                return;
            }
            came.await;
        }
    }
}

/// Says that a request waits, as long as it does.
struct Awaited<'e>(&'e Expectation);

impl<'e> Awaited<'e> {
    fn new(expectation: &'e Expectation) -> Self {
        expectation.awaited.store(true, Ordering::Release);
        Self(expectation)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.awaited.store(false, Ordering::Release);
    }
}
