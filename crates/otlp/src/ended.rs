//! A flag that the thread sets when it ends, and that a shutdown waits for.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// A flag that is set when the thread has ended, by a panic as well.
#[derive(Default)]
pub(super) struct Ended {
    ended: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    pub(super) fn set(&self) {
        *self.ended.lock() = true;
        self.changed.notify_all();
    }

    pub(super) fn wait_until(&self, until: Instant) {
        let mut ended = self.ended.lock();
        while !*ended && !self.changed.wait_until(&mut ended, until).timed_out() {}
    }
}
