//! The part of the table behind one lock.

use std::time::Instant;

use crate::slots::{Place, Slots};
use crate::stats::{Settled, Stats};

/// What one lock guards. The counters are plain numbers under the same lock as the entries, which
/// is why a snapshot of them always adds up.
pub(crate) struct Shard<T> {
    slots: Slots<T>,
    /// Not after any deadline in here. It is only lowered while entries come and go, and made exact
    /// by a scan, so that settling never has to look for the next one.
    earliest: Option<Instant>,
    /// Per shard, under its lock: a flag beside the locks would let an insert slip in behind a close.
    closed: bool,
    stats: Stats,
}

/// Why [`Shard::insert`] gives the value back.
pub(crate) enum Refused {
    Closed,
    Duplicate,
    Full,
}

impl<T> Shard<T> {
    pub(crate) fn new(skip_bits: u32) -> Self {
        Self {
            slots: Slots::new(skip_bits),
            earliest: None,
            closed: false,
            stats: Stats::default(),
        }
    }

    /// Takes a request in, once `reserve` has found room in the whole table; it answers how many then
    /// wait.
    #[inline]
    pub(crate) fn insert(
        &mut self,
        id: u64,
        deadline: Option<Instant>,
        value: T,
        reserve: impl FnOnce() -> Option<usize>,
    ) -> Result<(), (Refused, T)> {
        if self.closed {
            return Err((Refused::Closed, value));
        }
        let Place::Free(free) = self.slots.place(id) else {
            return Err((Refused::Duplicate, value));
        };
        let Some(waiting) = reserve() else {
            return Err((Refused::Full, value));
        };
        self.earliest = sooner(self.earliest, deadline);
        self.slots.insert(free, id, deadline, value);
        self.stats.inserted += 1;
        self.stats.peak = self.stats.peak.max(waiting as u64);
        Ok(())
    }

    #[inline]
    pub(crate) fn lookup(&mut self, id: u64) -> Option<T>
    where
        T: Clone,
    {
        match self.slots.find(id).and_then(|at| self.slots.at(at)) {
            Some(entry) => Some(entry.value.clone()),
            None => {
                self.stats.late += 1;
                None
            }
        }
    }

    #[inline]
    pub(crate) fn settle(&mut self, id: u64, how: Settled) -> Option<T> {
        match self.slots.find(id).and_then(|at| self.slots.remove(at)) {
            Some(entry) => {
                self.stats.count(how, 1);
                self.after_removals();
                Some(entry.value)
            }
            None => {
                self.stats.late += 1;
                None
            }
        }
    }

    pub(crate) fn set_deadline(&mut self, id: u64, deadline: Option<Instant>) -> bool {
        match self.slots.find(id).and_then(|at| self.slots.at_mut(at)) {
            Some(entry) => {
                entry.deadline = deadline;
                self.earliest = sooner(self.earliest, deadline);
                true
            }
            None => false,
        }
    }

    pub(crate) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Moves what is due at `now` to `out`, and answers how many.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut Vec<(u64, T)>) -> usize {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return 0;
        }
        let before = self.slots.len();
        let mut earliest = None;
        let mut at = 0;
        // A removal moves entries only towards this slot, never from ahead to behind it, so each is
        // seen; the slot is looked at again, as another entry may have moved in.
        while at < self.slots.allocated() {
            match self.slots.at(at) {
                Some(entry) if entry.deadline.is_some_and(|deadline| deadline <= now) => {
                    out.extend(self.slots.remove(at).map(|entry| (entry.id, entry.value)));
                }
                Some(entry) => {
                    earliest = sooner(earliest, entry.deadline);
                    at += 1;
                }
                None => at += 1,
            }
        }
        self.earliest = earliest;
        let expired = before - self.slots.len();
        self.stats.count(Settled::Expired, expired as u64);
        self.after_removals();
        expired
    }

    /// Refuses inserts from now on, and gives up all entries as failed.
    pub(crate) fn close(&mut self) -> Slots<T> {
        self.closed = true;
        self.earliest = None;
        self.stats.count(Settled::Failed, self.slots.len() as u64);
        let empty = self.slots.emptied();
        std::mem::replace(&mut self.slots, empty)
    }

    pub(crate) fn snapshot(&self, into: &mut Vec<(u64, T)>)
    where
        T: Clone,
    {
        into.extend(self.slots.iter().map(|e| (e.id, e.value.clone())));
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            waiting: self.slots.len() as u64,
            slots: self.slots.allocated() as u64,
            ..self.stats
        }
    }

    fn after_removals(&mut self) {
        if self.slots.len() == 0 {
            self.earliest = None;
        }
        self.slots.shrink();
    }
}

/// The earlier of two deadlines; none is later than any.
pub(crate) fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
