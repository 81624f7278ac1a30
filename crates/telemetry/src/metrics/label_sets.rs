//! The label sets of requests, bounded in number.

use std::{
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use parking_lot::{Mutex, RwLock};

use super::series::{Key, Series};

/// Number of locks, so that data threads seldom need the same one.
const SHARDS: usize = 16;

/// Shortest time between two searches for idle label sets, which visit all of them.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// A table rather than a map: it is searched with borrowed texts.
type Shard = HashTable<Arc<Series>>;

pub(super) struct LabelSets {
    start: Instant,
    max: usize,
    keep_idle: Duration,
    /// A hash for short keys, with a seed of its own in each process: `SipHash` of the standard maps takes many times the
    /// instructions, and each request is looked up once. Colliding names cost a search along one place of a bounded
    /// table.
    hasher: DefaultHashBuilder,
    shards: [RwLock<Shard>; SHARDS],
    /// The number of label sets, without those of [`Key::other`], which are at most one for each edge, protocol and
    /// opener.
    count: AtomicUsize,
    swept: Mutex<Option<Instant>>,
}

impl LabelSets {
    pub(super) fn new(max: usize, keep_idle: Duration, start: Instant) -> Self {
        Self {
            start,
            max,
            keep_idle,
            hasher: DefaultHashBuilder::default(),
            shards: std::array::from_fn(|_| RwLock::default()),
            count: AtomicUsize::new(0),
            swept: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Calls `then` with the counters of the key, or of its [`Key::other`] beyond the bound.
    pub(super) fn with(&self, key: Key<'_>, now: Instant, then: impl Fn(&Series)) {
        let now_millis = now.saturating_duration_since(self.start).as_millis();
        let now_millis = u64::try_from(now_millis).unwrap_or(u64::MAX);
        let used = |series: &Series| {
            series.used_at.store(now_millis, Ordering::Relaxed);
            then(series);
        };
        if self.find(key, used) {
            return;
        }
        if key.is_other() || self.reserve(now) {
            return self.add(key, used);
        }
        let other = key.other();
        if !self.find(other, used) {
            self.add(other, used);
        }
    }

    /// All label sets, in the order of their labels.
    pub(super) fn sorted(&self) -> Vec<Arc<Series>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.read().iter().cloned());
        }
        all.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        all
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // These are other bits of the hash than those from which a map chooses its places. The remainder is smaller
        // than 16.
        #[allow(clippy::cast_possible_truncation)]
        &self.shards[((hash >> 32) % SHARDS as u64) as usize]
    }

    fn find(&self, key: Key<'_>, then: impl Fn(&Series)) -> bool {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).read();
        let found = shard.find(hash, |series| series.key() == key);
        if let Some(series) = found {
            then(series);
        }
        found.is_some()
    }

    /// Adds the key at a reserved place, unless another thread has added it.
    fn add(&self, key: Key<'_>, then: impl Fn(&Series)) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).write();
        let hash_of = |series: &Arc<Series>| self.hasher.hash_one(series.key());
        match shard.entry(hash, |series| series.key() == key, hash_of) {
            Entry::Occupied(series) => {
                if !key.is_other() {
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
                then(series.get());
            }
            Entry::Vacant(place) => {
                let series = Arc::new(Series::new(key));
                then(&series);
                place.insert(series);
            }
        }
    }

    fn reserve(&self, now: Instant) -> bool {
        let one_more = |count| (count < self.max).then_some(count + 1);
        let reserve = || {
            self.count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
                .is_ok()
        };
        reserve() || (self.sweep(now) && reserve())
    }

    /// Removes the idle label sets. Returns whether there were any.
    fn sweep(&self, now: Instant) -> bool {
        {
            let mut swept = self.swept.lock();
            let recent = |at: &Instant| now.saturating_duration_since(*at) < SWEEP_EVERY;
            if swept.as_ref().is_some_and(recent) {
                return false;
            }
            *swept = Some(now);
        }
        let mut removed = 0;
        let live = |series: &Arc<Series>| {
            let used_at = Duration::from_millis(series.used_at.load(Ordering::Relaxed));
            let idle = now.saturating_duration_since(self.start + used_at);
            series.key().is_other() || idle < self.keep_idle
        };
        for shard in &self.shards {
            let mut shard = shard.write();
            let before = shard.len();
            shard.retain(|series| live(series));
            removed += before - shard.len();
        }
        self.count.fetch_sub(removed, Ordering::Relaxed);
        removed > 0
    }
}
