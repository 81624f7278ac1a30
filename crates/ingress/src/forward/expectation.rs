//! Visitors of HTTP/1.1 that send `Expect: 100-continue` and then their body without waiting (P-3.5).
//!
//! hyper sends the `100` when the body is read, and reads no byte of the body before. Only the socket under hyper can
//! determine whether a part of the body has arrived: from the bytes that it has read, and by a peek while it does not
//! read.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

/// Whether body bytes of the requests of one connection have arrived.
#[derive(Debug, Default)]
pub(crate) struct Expectation {
    /// The number of requests whose body has begun to arrive.
    begun: AtomicU64,
    /// A request waits for its body.
    awaited: AtomicBool,
    arrived: Notify,
}

impl Expectation {
    /// Notes that a part of the bodies of the first `requests` requests has arrived, if they have bodies.
    pub(crate) fn on_content(&self, requests: u64) {
        if self.begun.fetch_max(requests, Ordering::AcqRel) < requests {
            self.arrived.notify_waiters();
        }
    }

    /// Whether a request waits for its body to arrive.
    pub(crate) fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire)
    }

    /// Waits until a part of the body of the request with this number has arrived.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn content(&self, request: u64) {
        let _awaited = Awaited::new(self);
        loop {
            let mut arrived = pin!(self.arrived.notified());
            // The waker is registered before the count is read, so that a change in between is not missed.
            arrived.as_mut().enable();
            if self.begun.load(Ordering::Acquire) > request {
                return;
            }
            arrived.await;
        }
    }
}

/// Sets `awaited` while a request waits.
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
