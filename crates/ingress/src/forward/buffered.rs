//! Responses in the send buffer of h2.
//!
//! A visitor of HTTP/2 may give a stream no window. Then no more of its response is read from the lane, and the part
//! that has been read stays in memory: one piece in h2's queue and one before it, up to a message of payload each. A
//! failure must be sent after both (P-7.1), so that they are released only when the visitor reads them, or with the
//! connection. So the connection is ended when that takes too long (`stuck.rs`).

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::forward::connection::Connection;

/// The response has been passed to h2.
const HANDED_OVER: u8 = 1;
/// The exchange has failed.
const FAILED: u8 = 2;

/// A response on its way through h2, shared by its body and every piece of it. Dropped when h2 has dropped all of them.
pub(crate) struct BufferedResponse {
    connection: Arc<Connection>,
    flags: AtomicU8,
}

impl BufferedResponse {
    pub(crate) fn new(connection: Arc<Connection>) -> Arc<Self> {
        connection.buffered.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            connection,
            flags: AtomicU8::new(0),
        })
    }

    /// A value for the exchange to hold, which the exchange drops when it is over or has failed.
    pub(crate) fn on_exchange_end(self: &Arc<Self>) -> FailOnDrop {
        FailOnDrop(Arc::downgrade(self))
    }

    /// Called when the response begins to be sent. An earlier failure is followed by another attempt or an error
    /// response.
    pub(crate) fn hand_over(&self) {
        self.set(HANDED_OVER, FAILED);
    }

    /// Called when the exchange has failed.
    fn fail(&self) {
        self.set(FAILED, HANDED_OVER);
    }

    fn set(&self, this: u8, other: u8) {
        let before = self.flags.fetch_or(this, Ordering::AcqRel);
        if before == other {
            self.connection.stuck_responses().add();
        }
    }
}

impl Drop for BufferedResponse {
    fn drop(&mut self) {
        self.connection.buffered.fetch_sub(1, Ordering::Relaxed);
        if *self.flags.get_mut() == HANDED_OVER | FAILED {
            self.connection.stuck_responses().remove();
        }
    }
}

impl fmt::Debug for BufferedResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BufferedResponse")
            .field(&self.flags)
            .finish()
    }
}

/// Held by an exchange. A response that still exists when this is dropped belongs to an exchange that failed: bodies and
/// pieces drop their share in [`BufferedResponse`] before their share in the exchange.
pub(crate) struct FailOnDrop(Weak<BufferedResponse>);

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        if let Some(response) = self.0.upgrade() {
            response.fail();
        }
    }
}
