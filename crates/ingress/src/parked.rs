//! Answers that h2 does not let go of after their exchanges have failed.
//!
//! A visitor may give a stream of HTTP/2 no window. Then no more of its answer is asked for, and what is there of it is
//! not dropped: a piece in h2's queue and one before it, up to a message of payload each. A failure is to stand behind
//! both (P-7.1), so that they go only when the visitor takes them, or with the connection. So the connection has to go
//! when that lasts.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};

use crate::connection::Connection;

/// The answer is on its way.
const HANDED_OVER: u8 = 1;
/// The exchange has failed.
const FAILED: u8 = 2;

/// One answer on its way through h2: shared by its body and every piece of it. Dropped when h2 has let go of all.
pub(crate) struct Parked {
    connection: Arc<Connection>,
    flags: AtomicU8,
}

impl Parked {
    pub(crate) fn new(connection: Arc<Connection>) -> Arc<Self> {
        connection.parked.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            connection,
            flags: AtomicU8::new(0),
        })
    }

    /// What the exchange is to hold, which drops it when it is over or has failed.
    pub(crate) fn held(self: &Arc<Self>) -> Held {
        Held(Arc::downgrade(self))
    }

    /// The answer is on its way from here on. Before that, a failure is followed by another try, or told.
    pub(crate) fn hand_over(&self) {
        self.set(HANDED_OVER, FAILED);
    }

    /// The exchange has failed.
    pub(crate) fn fail(&self) {
        self.set(FAILED, HANDED_OVER);
    }

    fn set(&self, this: u8, other: u8) {
        let before = self.flags.fetch_or(this, Ordering::AcqRel);
        if before == other {
            self.connection.left_over().add();
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.connection.parked.fetch_sub(1, Ordering::Relaxed);
        if *self.flags.get_mut() == HANDED_OVER | FAILED {
            self.connection.left_over().remove();
        }
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Parked").field(&self.flags).finish()
    }
}

/// Held by an exchange. An answer that is still there when this is dropped belongs to one that failed: bodies and pieces
/// drop their share in [`Parked`] before their share in the exchange.
pub(crate) struct Held(Weak<Parked>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(parked) = self.0.upgrade() {
            parked.fail();
        }
    }
}

/// How many answers of failed exchanges a connection still holds.
#[derive(Default)]
pub(crate) struct LeftOver {
    count: AtomicUsize,
    /// How often there have been none again.
    cleared: AtomicU64,
    added: Notify,
}

impl LeftOver {
    fn add(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.added.notify_one();
    }

    fn remove(&self) {
        if self.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.cleared.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Waits until there has been one without a break for this long.
    ///
    /// # Cancel safety
    /// Yes; it begins anew.
    pub(crate) async fn lasts(&self, within: Duration) {
        loop {
            while self.is_empty() {
                self.added.notified().await;
            }
            let cleared = self.cleared.load(Ordering::Acquire);
            sleep(within).await;
            if !self.is_empty() && cleared == self.cleared.load(Ordering::Acquire) {
                return;
            }
        }
    }
}

impl fmt::Debug for LeftOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LeftOver").field(&self.count).finish()
    }
}
