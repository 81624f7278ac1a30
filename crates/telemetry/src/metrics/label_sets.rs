//! The label sets that requests are counted under: no more than so many.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};

use super::series::{Key, Series};

/// Data threads that look at the same moment seldom want the same lock.
const SHARDS: usize = 16;

/// Who finds no room looks for idle label sets, but all of them are walked no more often than this.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// By the hash of the key: borrowed texts are looked up without a copy of them.
type Shard = HashMap<u64, Vec<Arc<Series>>>;

pub(super) struct LabelSets {
    start: Instant,
    max: usize,
    keep_idle: Duration,
    hasher: RandomState,
    shards: [RwLock<Shard>; SHARDS],
    /// Without those of [`Key::other`], which are at most one for each edge, protocol and opener.
    count: AtomicUsize,
    swept: Mutex<Option<Instant>>,
}

impl LabelSets {
    pub(super) fn new(max: usize, keep_idle: Duration, start: Instant) -> Self {
        Self {
            start,
            max,
            keep_idle,
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| RwLock::default()),
            count: AtomicUsize::new(0),
            swept: Mutex::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Calls `then` with the counters of the key, or of its [`Key::other`] when there is no room.
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

    /// All of them, in the order of their labels.
    pub(super) fn sorted(&self) -> Vec<Arc<Series>> {
        let mut all = Vec::with_capacity(self.len());
        for shard in &self.shards {
            all.extend(shard.read().values().flatten().cloned());
        }
        all.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        all
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        // The remainder is smaller than 16.
        #[allow(clippy::cast_possible_truncation)]
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    fn find(&self, key: Key<'_>, then: impl Fn(&Series)) -> bool {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).read();
        let mut same_hash = shard.get(&hash).into_iter().flatten();
        let found = same_hash.find(|series| series.key() == key);
        if let Some(series) = found {
            then(series);
        }
        found.is_some()
    }

    /// Adds a place that was reserved, unless somebody was faster.
    fn add(&self, key: Key<'_>, then: impl Fn(&Series)) {
        let hash = self.hasher.hash_one(key);
        let mut shard = self.shard(hash).write();
        let same_hash = shard.entry(hash).or_default();
        if let Some(series) = same_hash.iter().find(|series| series.key() == key) {
            if !key.is_other() {
                self.count.fetch_sub(1, Ordering::Relaxed);
            }
            return then(series);
        }
        let series = Arc::new(Series::new(key));
        then(&series);
        same_hash.push(series);
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

    /// Forgets what was idle for too long. Says whether there was any.
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
            shard.write().retain(|_, same_hash| {
                let before = same_hash.len();
                same_hash.retain(live);
                removed += before - same_hash.len();
                !same_hash.is_empty()
            });
        }
        self.count.fetch_sub(removed, Ordering::Relaxed);
        removed > 0
    }
}
