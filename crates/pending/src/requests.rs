//! The part of the table behind the lock.

use std::{mem, time::Instant};

use crate::error::InsertError;
use crate::slots::{Entry, Slots};
use crate::stats::{Settled, Stats};

/// The state that the lock guards. The counters are plain numbers under the same lock as the entries, so that a
/// snapshot of them always adds up, and the limit is exact.
pub(crate) struct Requests<T> {
    /// The requests of each opener: the ids of each are dense.
    sides: [Slots<T>; 2],
    max_entries: usize,
    /// The number of requests that may wait: the configured number, or 0 when the table is closed. Under the lock: with
    /// a separate flag an insert could slip in after a close.
    limit: usize,
    peak: usize,
    /// Not later than any deadline of an entry. It is only lowered while entries are inserted and settled, and made
    /// exact by a scan, so that settling need not search for the next one. Unused while the table is empty.
    earliest: Option<Instant>,
    closed: bool,
    /// Numbers of settled requests, by [`Settled`].
    settled: [u64; 4],
    late: u64,
}

impl<T> Requests<T> {
    pub(crate) const fn new(max_entries: usize) -> Self {
        Self {
            sides: [Slots::new(), Slots::new()],
            max_entries,
            limit: max_entries,
            peak: 0,
            earliest: None,
            closed: false,
            settled: [0; 4],
            late: 0,
        }
    }

    pub(crate) const fn max_entries(&self) -> usize {
        self.max_entries
    }

    pub(crate) const fn len(&self) -> usize {
        self.sides[0].len() + self.sides[1].len()
    }

    /// Inserts a request.
    ///
    /// # Errors
    /// The value; [`Self::why_not`] has the reason.
    #[inline]
    pub(crate) fn insert(&mut self, id: u64, deadline: Option<Instant>, value: T) -> Result<(), T> {
        let before = self.len();
        if before >= self.limit {
            return Err(value);
        }
        self.side_mut(id).insert(id, deadline, value)?;
        self.note(deadline, before == 0);
        if before >= self.peak {
            self.peak = before + 1;
        }
        Ok(())
    }

    /// Why a request was not inserted. The lock of the insertion is still held, so that nothing has changed since.
    #[cold]
    pub(crate) fn why_not(&self, id: u64, value: T) -> InsertError<T> {
        if self.closed {
            InsertError::Closed { value }
        } else if self.side(id).get(id).is_some() {
            InsertError::Duplicate { id, value }
        } else {
            InsertError::Full {
                max_entries: self.max_entries,
                value,
            }
        }
    }

    #[inline]
    pub(crate) fn lookup(&mut self, id: u64) -> Option<T>
    where
        T: Clone,
    {
        match self.side(id).get(id) {
            Some(entry) => Some(entry.value.clone()),
            None => {
                self.late += 1;
                None
            }
        }
    }

    #[inline]
    pub(crate) fn settle(&mut self, id: u64, how: Settled) -> Option<T> {
        match self.side_mut(id).remove(id) {
            Some(value) => {
                self.settled[how as usize] += 1;
                Some(value)
            }
            None => {
                self.late += 1;
                None
            }
        }
    }

    pub(crate) fn set_deadline(&mut self, id: u64, deadline: Option<Instant>) -> bool {
        match self.side_mut(id).get_mut(id) {
            Some(entry) => {
                entry.deadline = deadline;
                self.note(deadline, false);
                true
            }
            None => false,
        }
    }

    /// Adds a deadline; if the entry is the only one, the deadlines noted before are discarded.
    #[inline]
    fn note(&mut self, deadline: Option<Instant>, only: bool) {
        if deadline.is_some_and(|new| only || self.earliest.is_none_or(|earliest| new < earliest)) {
            self.earliest = deadline;
        }
    }

    pub(crate) const fn earliest(&self) -> Option<Instant> {
        if self.len() == 0 { None } else { self.earliest }
    }

    /// Moves the entries that are due at `now` to `out`.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut Vec<(u64, T)>) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let before = self.len();
        let mut earliest = None;
        for side in &mut self.sides {
            let due = |entry: &Entry<T>| {
                let due = entry.deadline.is_some_and(|deadline| deadline <= now);
                if !due {
                    earliest = sooner(earliest, entry.deadline);
                }
                due
            };
            side.remove_if(due, |entry| out.push((entry.id, entry.value)));
        }
        self.earliest = earliest;
        let expired = before - self.len();
        self.settled[Settled::Expired as usize] += expired as u64;
    }

    /// Refuses inserts from now on, and returns all entries as failed.
    pub(crate) fn close(&mut self) -> [Slots<T>; 2] {
        self.closed = true;
        self.limit = 0;
        self.settled[Settled::Failed as usize] += self.len() as u64;
        mem::replace(&mut self.sides, [Slots::new(), Slots::new()])
    }

    /// Allows inserts again after a close.
    pub(crate) const fn reopen(&mut self) {
        self.closed = false;
        self.limit = self.max_entries;
    }

    pub(crate) fn snapshot(&self, into: &mut Vec<(u64, T)>)
    where
        T: Clone,
    {
        for side in &self.sides {
            into.extend(side.iter().map(|e| (e.id, e.value.clone())));
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let of = |how: Settled| self.settled[how as usize];
        let waiting = self.len() as u64;
        Stats {
            // Each inserted request either waits or has been settled.
            inserted: self.settled.iter().sum::<u64>() + waiting,
            completed: of(Settled::Completed),
            failed: of(Settled::Failed),
            cancelled: of(Settled::Cancelled),
            expired: of(Settled::Expired),
            late: self.late,
            waiting,
            peak: self.peak as u64,
            slots: self.sides.iter().map(Slots::allocated).sum::<usize>() as u64,
        }
    }

    #[inline]
    fn side(&self, id: u64) -> &Slots<T> {
        &self.sides[usize::from(id & 1 == 1)]
    }

    #[inline]
    fn side_mut(&mut self, id: u64) -> &mut Slots<T> {
        &mut self.sides[usize::from(id & 1 == 1)]
    }
}

/// The earlier of two deadlines; `None` counts as later than any.
fn sooner(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
