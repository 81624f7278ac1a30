//! The status of the link, for watchers.

use std::{
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    mem,
    sync::PoisonError,
    task::{Context, Poll, Waker},
    time::Instant,
};

use crate::{
    StopReason,
    sync::{Arc, Mutex, MutexGuard},
};

/// The status of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// The client has not been started.
    #[default]
    Idle,
    /// A dial runs.
    Connecting {
        /// 0 for the first dial, then the number of the retry.
        attempt: u32,
    },
    /// The link lives.
    Connected {
        /// The epoch issued by the server.
        epoch: u64,
    },
    /// The client waits between two dials.
    Waiting {
        /// The number of the next retry.
        attempt: u32,
        /// The time at which the retry is due.
        until: Instant,
    },
    /// The link lives but accepts no new requests. Set by the draining caller, not by the machine.
    Draining,
    /// Stopped; this status is final.
    Stopped {
        /// Why.
        reason: StopReason,
    },
}

/// The number of a status: grows by one with every change. The default is older than every status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(u64);

/// A status that many threads read and set; clones share it.
///
/// One lock for the status, its version and the wakers: reading and registering must be one step, or a change between the
/// two is missed. The lock is held for a few instructions, and never while a waker runs.
#[derive(Clone)]
pub struct StatusCell {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    status: Status,
    version: Version,
    /// Wakers by watcher. Empty between a change and the next poll; ids are not reused, so a late removal cannot affect
    /// another watcher.
    waiting: BTreeMap<u64, Waker>,
    next_watcher: u64,
}

impl StatusCell {
    /// A cell that holds `status`.
    #[must_use]
    pub fn new(status: Status) -> Self {
        Self {
            shared: Arc::new(Mutex::new(Shared {
                status,
                version: Version(1),
                waiting: BTreeMap::new(),
                next_watcher: 0,
            })),
        }
    }

    /// The status now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.lock().status
    }

    /// The status now and its version, to wait for the one after it.
    #[must_use]
    pub fn versioned(&self) -> (Status, Version) {
        let shared = self.lock();
        (shared.status, shared.version)
    }

    /// Replaces the status and wakes every watcher. Returns whether it changed: the same status again does not, and
    /// nothing replaces [`Status::Stopped`], so that a late report of a dial cannot restart a stopped link.
    ///
    /// # Complexity
    /// Linear in the watchers that wait.
    pub fn set(&self, status: Status) -> bool {
        let wakers = {
            let mut shared = self.lock();
            if shared.status == status || matches!(shared.status, Status::Stopped { .. }) {
                return false;
            }
            shared.status = status;
            shared.version.0 += 1;
            mem::take(&mut shared.waiting)
        };
        // The wakers are woken outside the lock: a waker may run the task at once, and the task may use the cell.
        wakers.into_values().for_each(Waker::wake);
        true
    }

    /// A handle to wait with.
    #[must_use]
    pub fn watch(&self) -> Watcher {
        let mut shared = self.lock();
        let id = shared.next_watcher;
        shared.next_watcher += 1;
        drop(shared);
        Watcher {
            cell: self.clone(),
            id,
        }
    }

    /// Number of watchers that wait; each costs the memory of one waker.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing inside the lock can panic half-way, so a poisoned lock still guards a whole status.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for StatusCell {
    fn default() -> Self {
        Self::new(Status::Idle)
    }
}

impl fmt::Debug for StatusCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (status, version) = self.versioned();
        f.debug_struct("StatusCell")
            .field("status", &status)
            .field("version", &version.0)
            .finish_non_exhaustive()
    }
}

/// Waits for changes of one [`StatusCell`]. Dropping it removes its waker.
#[derive(Debug)]
pub struct Watcher {
    cell: StatusCell,
    id: u64,
}

impl Watcher {
    /// The status now and its version.
    #[must_use]
    pub fn versioned(&self) -> (Status, Version) {
        self.cell.versioned()
    }

    /// The newest status if it is newer than `seen`; otherwise the task is woken at the next change. Only the waker of the
    /// last poll is kept.
    pub fn poll_changed(
        &mut self,
        seen: Version,
        context: &mut Context<'_>,
    ) -> Poll<(Status, Version)> {
        let mut shared = self.cell.lock();
        // The replaced waker is dropped after the lock: to drop the last waker of a task drops the task, which may hold
        // another watcher of this cell.
        let (poll, gone) = if shared.version > seen {
            let gone = shared.waiting.remove(&self.id);
            (Poll::Ready((shared.status, shared.version)), gone)
        } else {
            let waker = context.waker();
            let gone = match shared.waiting.get(&self.id) {
                Some(kept) if kept.will_wake(waker) => None,
                _ => shared.waiting.insert(self.id, waker.clone()),
            };
            (Poll::Pending, gone)
        };
        drop(shared);
        drop(gone);
        poll
    }

    /// Waits for a status newer than `seen`; at once when there is one. A status that was replaced meanwhile is skipped.
    ///
    /// # Cancel safety
    /// Nothing is lost: the caller keeps the version.
    pub async fn changed(&mut self, seen: Version) -> (Status, Version) {
        poll_fn(|context| self.poll_changed(seen, context)).await
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let gone = self.cell.lock().waiting.remove(&self.id);
        drop(gone);
    }
}
