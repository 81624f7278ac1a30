//! The table: the operations on the requests, each under one short lock.

use std::fmt;
use std::sync::PoisonError;
use std::time::Instant;

use crate::config::Config;
use crate::error::InsertError;
use crate::requests::Requests;
use crate::slots::Slots;
use crate::stats::{Settled, Stats};
use crate::sync::{Mutex, MutexGuard};

/// The requests of one data stream that wait to be settled; shared as `Arc<Table<T>>`.
///
/// One lock protects everything. A data stream has one lock anyway, that of its mux; and under one lock the limit and
/// the counters are plain numbers. Shards would need a counter that all threads write to, which costs as much as the
/// shards save.
///
/// `T` is a handle to a waiting task, cheap to clone. Its `clone` runs under the lock and must not call the table. A
/// poisoned lock is used all the same: every step under it leaves the requests consistent.
pub struct Table<T> {
    requests: Mutex<Requests<T>>,
}

impl<T> Table<T> {
    /// An empty table. Allocates at the first insert.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            requests: Mutex::new(Requests::new(config.max_entries)),
        }
    }

    /// Inserts request `id`, which waits until it is settled or `deadline` passes.
    ///
    /// # Errors
    ///
    /// [`InsertError::Closed`] after [`Self::close`], else [`InsertError::Duplicate`] when a request with this id waits
    /// already, else [`InsertError::Full`]. Each returns the value, and nothing is changed.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids, amortised over the growth of the table; else logarithmic.
    pub fn insert(
        &self,
        id: u64,
        deadline: Option<Instant>,
        value: T,
    ) -> Result<(), InsertError<T>> {
        let mut requests = self.lock();
        let refused = requests.insert(id, deadline, value);
        refused.map_err(|value| requests.why_not(id, value))
    }

    /// Settles request `id`: its value is returned to exactly one of all callers, [`Self::expire`] and [`Self::close`]
    /// among them. `None` if another caller was first, or no request with this id waited.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids, amortised over the shrinking of the table; else logarithmic.
    pub fn settle(&self, id: u64, how: Settled) -> Option<T> {
        self.lock().settle(id, how)
    }

    /// Changes the deadline of request `id`, or removes it. False if the request does not wait any more.
    pub fn set_deadline(&self, id: u64, deadline: Option<Instant>) -> bool {
        self.lock().set_deadline(id, deadline)
    }

    /// Settles as expired all requests whose deadline is `now` or earlier, and appends them to `out`
    /// in no particular order.
    ///
    /// # Complexity
    ///
    /// One short lock; the table is scanned only when one of the deadlines added since the last scan is due.
    pub fn expire(&self, now: Instant, out: &mut Vec<(u64, T)>) {
        self.lock().expire(now, out);
    }

    /// The time of the next call of [`Self::expire`] that may expire a request; `None` if no request has a deadline. It
    /// may be too early, since deadlines of requests settled meanwhile still count, but never too late. Right after an
    /// expire it is exact, except for concurrent changes.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.lock().earliest()
    }

    /// The data stream or its epoch is lost: settles all requests as failed, returns them in no particular order, and
    /// refuses later inserts, until [`Self::reopen`]. An insert during this call is either refused or among the
    /// returned requests. A second call returns nothing.
    #[must_use = "the tasks that wait for these requests must be notified"]
    pub fn close(&self) -> Vec<(u64, T)> {
        let lost = self.lock().close();
        let entries = lost.into_iter().flat_map(Slots::into_entries);
        entries.map(|entry| (entry.id, entry.value)).collect()
    }

    /// Allows inserts again after [`Self::close`]: the data stream has another connection. The counters continue.
    ///
    /// The caller must not reuse an id: a handle to a request from before the close would settle the new one.
    pub fn reopen(&self) {
        self.lock().reopen();
    }

    /// Number of waiting requests.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        self.lock().stats()
    }

    fn lock(&self) -> MutexGuard<'_, Requests<T>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Table<T> {
    /// The value of request `id` if it waits. Called for each message that arrives.
    ///
    /// A miss happens after the request was settled: it sees all writes that the settler made before.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids; else logarithmic.
    pub fn lookup(&self, id: u64) -> Option<T> {
        self.lock().lookup(id)
    }

    /// Calls `f` with every waiting request, in no particular order, for sweeps such as the check of progress. `f` runs
    /// without the lock, on copies: it may settle a request, and may receive one that another caller has just settled.
    pub fn for_each(&self, mut f: impl FnMut(u64, &T)) {
        // The copies are dropped after the guard, so that they are never dropped under the lock, not even by a panic.
        let mut copies = Vec::new();
        self.lock().snapshot(&mut copies);
        for (id, value) in copies {
            f(id, &value);
        }
    }
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = self.lock();
        let (waiting, max_entries) = (requests.len(), requests.max_entries());
        drop(requests);
        f.debug_struct("Table")
            .field("waiting", &waiting)
            .field("max_entries", &max_entries)
            .finish_non_exhaustive()
    }
}

/// A table that still holds requests has tasks that would wait forever. Builds with debug assertions panic, as the
/// store of h2 does (`src/proto/streams/store.rs` there).
impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking() || self.is_empty(),
            "a request table was dropped with {} requests unsettled; close it first",
            self.len()
        );
    }
}
