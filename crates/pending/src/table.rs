//! The table: shards, and the limit that they share.

use std::fmt;
use std::sync::PoisonError;
use std::time::Instant;

use crate::config::Config;
use crate::error::InsertError;
use crate::shard::{Refused, Shard, sooner};
use crate::stats::{Settled, Stats};
use crate::sync::{AtomicUsize, Mutex, MutexGuard, Ordering};

/// The low bits of an id that choose its shard. The lowest says who opened the request, so a shard
/// holds ids of one side only, which are dense; the next ones deal neighbours out to different
/// locks. Loom makes do with one shard per side, to keep its search short.
const SHARD_BITS: u32 = if cfg!(adit_loom) { 1 } else { 3 };
const SHARDS: usize = 1 << SHARD_BITS;

/// One lock per pair of cache lines, as processors fetch lines in pairs: threads that work on
/// different shards do not slow each other down.
#[repr(align(128))]
struct Padded<T>(Mutex<Shard<T>>);

/// The requests of one data stream that wait to be settled; shared as `Arc<Table<T>>`.
///
/// `T` is a handle to whoever waits, cheap to clone. Its `clone` runs under a lock and must not call
/// the table. A poisoned lock is taken over: every step under it leaves the shard whole.
pub struct Table<T> {
    shards: [Padded<T>; SHARDS],
    /// How many wait in all shards. Raised before an entry is put in and lowered after it is taken
    /// out, both under the entry's lock, so it is never less than what is there.
    waiting: AtomicUsize,
    max_entries: usize,
}

impl<T> Table<T> {
    /// An empty table. Allocates when the first request comes.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            shards: std::array::from_fn(|_| Padded(Mutex::new(Shard::new(SHARD_BITS)))),
            waiting: AtomicUsize::new(0),
            max_entries: config.max_entries,
        }
    }

    /// Lets request `id` wait, until it is settled or `deadline` passes.
    ///
    /// # Errors
    ///
    /// [`InsertError::Closed`] after [`Self::close`], else [`InsertError::Duplicate`] when the id
    /// waits already, else [`InsertError::Full`]. Each gives the value back, and changes nothing.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids, amortised over the growth of the shard.
    pub fn insert(
        &self,
        id: u64,
        deadline: Option<Instant>,
        value: T,
    ) -> Result<(), InsertError<T>> {
        let inserted = self
            .shard(id)
            .insert(id, deadline, value, || self.reserve());
        inserted.map_err(|(refused, value)| match refused {
            Refused::Closed => InsertError::Closed { value },
            Refused::Duplicate => InsertError::Duplicate { id, value },
            Refused::Full => InsertError::Full {
                max_entries: self.max_entries,
                value,
            },
        })
    }

    /// Settles request `id`: its value goes to exactly one of all callers, [`Self::expire`] and
    /// [`Self::close`] among them. `None` when another was first, or nothing waited under this id.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids, amortised over the shrinking of the shard.
    pub fn settle(&self, id: u64, how: Settled) -> Option<T> {
        let mut shard = self.shard(id);
        let value = shard.settle(id, how)?;
        self.release(1);
        Some(value)
    }

    /// Moves the deadline of request `id`, or takes it away. False when it no longer waits.
    pub fn set_deadline(&self, id: u64, deadline: Option<Instant>) -> bool {
        self.shard(id).set_deadline(id, deadline)
    }

    /// Settles as expired all requests whose deadline is `now` or earlier, and appends them to `out`
    /// in no particular order.
    ///
    /// # Complexity
    ///
    /// One short lock per shard; a shard is scanned only when one of the deadlines that it was given
    /// since the last scan has come.
    pub fn expire(&self, now: Instant, out: &mut Vec<(u64, T)>) {
        for shard in self.shards() {
            let mut shard = shard;
            let expired = shard.expire(now, out);
            self.release(expired);
        }
    }

    /// When [`Self::expire`] may next have something to do; `None`: never, as things stand. It may be
    /// too early, as it remembers requests settled since, but never too late. Right after an expire it
    /// is exact, but for what others have done since.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.shards()
            .fold(None, |earliest, shard| sooner(earliest, shard.earliest()))
    }

    /// The data stream or its epoch is lost: settles all requests as failed, gives them back in no
    /// particular order, and refuses all later inserts. An insert that races this is either among
    /// the failed or refused. Once more does no harm, and finds nothing.
    #[must_use = "whoever waits for these requests must be told"]
    pub fn close(&self) -> Vec<(u64, T)> {
        let mut failed = Vec::new();
        for shard in self.shards() {
            let mut shard = shard;
            let lost = shard.close();
            self.release(lost.len());
            drop(shard);
            failed.extend(lost.into_entries().map(|entry| (entry.id, entry.value)));
        }
        failed
    }

    /// How many requests wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Whether no request waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What has happened so far. Takes each shard's lock in turn.
    pub fn stats(&self) -> Stats {
        self.shards()
            .fold(Stats::default(), |sum, shard| sum.merge(shard.stats()))
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, Shard<T>> {
        let low = usize::from(id.to_le_bytes()[0]);
        lock(&self.shards[low & (SHARDS - 1)])
    }

    /// The shards one after the other, each locked while it is held.
    fn shards(&self) -> impl Iterator<Item = MutexGuard<'_, Shard<T>>> {
        self.shards.iter().map(lock)
    }

    /// Room for one more, and how many then wait.
    fn reserve(&self) -> Option<usize> {
        // Relaxed: a count only, it publishes nothing. A compare-and-swap rather than add-and-undo,
        // whose passing excess would refuse others for no reason.
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < self.max_entries).then_some(waiting + 1)
            })
            .ok()
            .map(|before| before + 1)
    }

    fn release(&self, requests: usize) {
        if requests > 0 {
            self.waiting.fetch_sub(requests, Ordering::Relaxed);
        }
    }
}

impl<T: Clone> Table<T> {
    /// The value of request `id` if it waits: for each message that arrives.
    ///
    /// A miss happens after the settling: it sees all that the settler did before.
    ///
    /// # Complexity
    ///
    /// Constant for dense ids.
    pub fn lookup(&self, id: u64) -> Option<T> {
        self.shard(id).lookup(id)
    }

    /// Calls `f` with every waiting request, in no particular order, for sweeps such as the check of
    /// progress. `f` runs without a lock, on copies taken shard by shard: it may settle what it is
    /// given, and may be given what another has just settled.
    pub fn for_each(&self, mut f: impl FnMut(u64, &T)) {
        // Outlives the guards, so that copies are never dropped under a lock, not even by a panic.
        let mut copies = Vec::new();
        for shard in &self.shards {
            lock(shard).snapshot(&mut copies);
            for (id, value) in copies.drain(..) {
                f(id, &value);
            }
        }
    }
}

fn lock<T>(shard: &Padded<T>) -> MutexGuard<'_, Shard<T>> {
    shard.0.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("waiting", &self.len())
            .field("max_entries", &self.max_entries)
            .finish_non_exhaustive()
    }
}

/// A table that still holds requests has waiters that nobody will ever answer. As h2's store does,
/// tests are told (`src/proto/streams/store.rs` there).
impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking() || self.is_empty(),
            "a request table was dropped with {} requests unsettled; close it first",
            self.len()
        );
    }
}
