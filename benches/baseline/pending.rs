//! Tables of waiting requests that `adit_pending::Table` is compared with, behind one trait.
//!
//! [`SlabTable`] does the same except for its keys. The others have no limit, no deadlines, no counters and no close.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use adit_pending::{Config, Settled, Stats, Table};
use dashmap::DashMap;
use slab::Slab;
use uuid::Uuid;

use crate::case::Role;

/// The handle of the waiting request.
pub type Value = Arc<u64>;

/// The operations of a table.
pub trait Pending: Send + Sync {
    /// The key that the messages of a request carry.
    type Key: Send;
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;
    /// The bytes that a key uses on the heap.
    const KEY_HEAP_BYTES: usize = 0;
    /// An empty table.
    fn empty() -> Self;
    /// Inserts a request. `id` increases; a table with keys of another kind ignores it.
    fn insert(&self, id: u64, value: Value) -> Self::Key;
    /// Finds the value for a message.
    fn lookup(&self, key: &Self::Key) -> Option<Value>;
    /// Removes the request and returns its value.
    fn settle(&self, key: &Self::Key) -> Option<Value>;
}

/// The table of this project.
pub struct Ours(Table<Value>);

impl Pending for Ours {
    type Key = u64;
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn empty() -> Self {
        Self(Table::new(Config {
            max_entries: 1 << 20,
        }))
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        // If the table rejected the request, the later settle would find nothing.
        drop(self.0.insert(id, None, value));
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.lookup(*key)
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.settle(*key, Settled::Completed)
    }
}

/// The naive design: a map keyed by random UUIDs as text behind one lock.
pub struct MutexMap(Mutex<HashMap<String, Value>>);

impl Pending for MutexMap {
    type Key = String;
    const NAME: &'static str = "mutex_map";
    const ROLE: Role = Role::Naive;
    const KEY_HEAP_BYTES: usize = 36;

    fn empty() -> Self {
        Self(Mutex::default())
    }

    fn insert(&self, _id: u64, value: Value) -> String {
        let key = Uuid::new_v4().to_string();
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(key.clone(), value);
        key
    }

    fn lookup(&self, key: &String) -> Option<Value> {
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(key).cloned()
    }

    fn settle(&self, key: &String) -> Option<Value> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.remove(key)
    }
}

/// A general sharded map.
pub struct Dash(DashMap<u64, Value>);

impl Pending for Dash {
    type Key = u64;
    const NAME: &'static str = "dashmap_u64";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self(DashMap::new())
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        self.0.insert(id, value);
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.get(key).map(|value| Arc::clone(&value))
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.remove(key).map(|(_, value)| value)
    }
}

/// A `DashMap` keyed by random UUIDs as text, which separates the cost of the lock from the cost of the key.
pub struct DashUuid(DashMap<String, Value>);

impl Pending for DashUuid {
    type Key = String;
    const NAME: &'static str = "dashmap_uuid";
    const ROLE: Role = Role::Rival;
    const KEY_HEAP_BYTES: usize = 36;

    fn empty() -> Self {
        Self(DashMap::new())
    }

    fn insert(&self, _id: u64, value: Value) -> String {
        let key = Uuid::new_v4().to_string();
        self.0.insert(key.clone(), value);
        key
    }

    fn lookup(&self, key: &String) -> Option<Value> {
        self.0.get(key).map(|value| Arc::clone(&value))
    }

    fn settle(&self, key: &String) -> Option<Value> {
        self.0.remove(key).map(|(_, value)| value)
    }
}

/// A general lock-free map that is optimized for many more reads than writes.
pub struct Papaya(papaya::HashMap<u64, Value>);

impl Pending for Papaya {
    type Key = u64;
    const NAME: &'static str = "papaya";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self(papaya::HashMap::new())
    }

    fn insert(&self, id: u64, value: Value) -> u64 {
        self.0.pin().insert(id, value);
        id
    }

    fn lookup(&self, key: &u64) -> Option<Value> {
        self.0.pin().get(key).cloned()
    }

    fn settle(&self, key: &u64) -> Option<Value> {
        self.0.pin().remove(key).cloned()
    }
}

/// The least that a table behind a lock costs: slots are reused, and each link has one slab, because its opener and its
/// reader are two tasks. The id beside the slot identifies late messages. The table never rejects, never expires,
/// cannot be closed, and counts nothing.
pub struct SlabPerLink(Mutex<Slab<(u64, Value)>>);

impl Pending for SlabPerLink {
    type Key = (usize, u64);
    const NAME: &'static str = "slab_per_link";
    const ROLE: Role = Role::Limit;

    fn empty() -> Self {
        Self(Mutex::default())
    }

    fn insert(&self, id: u64, value: Value) -> (usize, u64) {
        let mut slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (slab.insert((id, value)), id)
    }

    fn lookup(&self, key: &(usize, u64)) -> Option<Value> {
        let slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (id, value) = slab.get(key.0)?;
        (*id == key.1).then(|| Arc::clone(value))
    }

    fn settle(&self, key: &(usize, u64)) -> Option<Value> {
        let mut slab = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slab.get(key.0)?.0 != key.1 {
            return None;
        }
        slab.try_remove(key.0).map(|(_, value)| value)
    }
}

/// The same slab with all features: a limit, deadlines, a close and consistent counters, all under the link's lock. Two
/// drawbacks remain. The key is a slot of its own choice, so an opener can send it together with the id, but the
/// accepting end needs another table. And the slab never releases the memory of its largest size.
pub struct SlabTable {
    slabs: Mutex<Slabs>,
    max_entries: usize,
}

struct Waiting {
    id: u64,
    deadline: Option<Instant>,
    value: Value,
}

#[derive(Default)]
struct Slabs {
    slab: Slab<Waiting>,
    /// A lower bound of all deadlines.
    earliest: Option<Instant>,
    closed: bool,
    /// The number of settled requests by [`Settled`].
    settled: [u64; 4],
    late: u64,
    peak: usize,
}

impl SlabTable {
    /// Creates a table for at most `max_entries` requests at once.
    #[must_use]
    pub fn new(max_entries: usize) -> Self {
        Self {
            slabs: Mutex::default(),
            max_entries,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slabs> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Inserts a request.
    ///
    /// # Errors
    /// Returns the value when the table is full or closed.
    pub fn try_insert(
        &self,
        id: u64,
        deadline: Option<Instant>,
        value: Value,
    ) -> Result<usize, Value> {
        let mut slabs = self.lock();
        if slabs.closed || slabs.slab.len() == self.max_entries {
            return Err(value);
        }
        if deadline.is_some_and(|new| slabs.earliest.is_none_or(|earliest| new < earliest)) {
            slabs.earliest = deadline;
        }
        let slot = slabs.slab.insert(Waiting {
            id,
            deadline,
            value,
        });
        slabs.peak = slabs.peak.max(slabs.slab.len());
        Ok(slot)
    }

    /// Removes a request and counts how it was settled.
    pub fn settle_as(&self, (slot, id): (usize, u64), how: Settled) -> Option<Value> {
        let mut slabs = self.lock();
        if slabs.slab.get(slot).is_none_or(|waiting| waiting.id != id) {
            slabs.late += 1;
            return None;
        }
        slabs.settled[how as usize] += 1;
        slabs.slab.try_remove(slot).map(|waiting| waiting.value)
    }

    /// Removes all requests whose deadline has passed.
    pub fn expire(&self, now: Instant, out: &mut Vec<(u64, Value)>) {
        let mut slabs = self.lock();
        if slabs.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        let due: Vec<usize> = { slabs.slab.iter() }
            .filter(|(_, waiting)| waiting.deadline.is_some_and(|deadline| deadline <= now))
            .map(|(slot, _)| slot)
            .collect();
        slabs.settled[Settled::Expired as usize] += due.len() as u64;
        for slot in due {
            let waiting = slabs.slab.remove(slot);
            out.push((waiting.id, waiting.value));
        }
        slabs.earliest = { slabs.slab.iter() }
            .filter_map(|(_, waiting)| waiting.deadline)
            .min();
    }

    /// Removes all requests, and rejects all later ones.
    pub fn close(&self) -> Vec<(u64, Value)> {
        let mut slabs = self.lock();
        slabs.closed = true;
        slabs.earliest = None;
        slabs.settled[Settled::Failed as usize] += slabs.slab.len() as u64;
        let lost = std::mem::take(&mut slabs.slab);
        drop(slabs);
        lost.into_iter()
            .map(|(_, waiting)| (waiting.id, waiting.value))
            .collect()
    }

    /// Counts what `adit_pending::Table` counts.
    pub fn stats(&self) -> Stats {
        let slabs = self.lock();
        let [completed, failed, cancelled, expired] = slabs.settled;
        let waiting = slabs.slab.len() as u64;
        Stats {
            inserted: completed + failed + cancelled + expired + waiting,
            completed,
            failed,
            cancelled,
            expired,
            late: slabs.late,
            waiting,
            peak: slabs.peak as u64,
            slots: slabs.slab.capacity() as u64,
        }
    }
}

impl Pending for SlabTable {
    type Key = (usize, u64);
    const NAME: &'static str = "slab_full_contract";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self::new(1 << 20)
    }

    fn insert(&self, id: u64, value: Value) -> (usize, u64) {
        // If the table rejected the request, the later settle would find nothing.
        (self.try_insert(id, None, value).unwrap_or(usize::MAX), id)
    }

    fn lookup(&self, key: &(usize, u64)) -> Option<Value> {
        let mut slabs = self.lock();
        match slabs.slab.get(key.0) {
            Some(waiting) if waiting.id == key.1 => Some(Arc::clone(&waiting.value)),
            _ => {
                slabs.late += 1;
                None
            }
        }
    }

    fn settle(&self, key: &(usize, u64)) -> Option<Value> {
        self.settle_as(*key, Settled::Completed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_slab_table_keeps_the_contract_of_ours() {
        let table = SlabTable::new(3);
        let (value, start) = (Value::new(0), Instant::now());
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let insert = |id, deadline| table.try_insert(id, deadline, Arc::clone(&value));
        let two = insert(2, at(5)).unwrap();
        let (four, six) = (insert(4, at(3)).unwrap(), insert(6, None).unwrap());
        assert!(insert(8, None).is_err(), "full");
        assert!(table.settle_as((six, 6), Settled::Completed).is_some());
        assert!(table.settle_as((six, 6), Settled::Cancelled).is_none());
        assert!(Pending::lookup(&table, &(two, 2)).is_some());
        let mut expired = Vec::new();
        table.expire(start + Duration::from_secs(2), &mut expired);
        assert!(expired.is_empty());
        table.expire(start + Duration::from_secs(4), &mut expired);
        assert_eq!(expired.pop().map(|(id, _)| id), Some(4));
        assert!(Pending::lookup(&table, &(four, 4)).is_none());
        assert_eq!(table.close().len(), 1);
        assert!(insert(10, None).is_err(), "closed");
        let stats = table.stats();
        assert_eq!((stats.inserted, stats.waiting, stats.late), (3, 0, 2));
        let ended = [stats.completed, stats.failed, stats.expired];
        assert_eq!((ended, stats.peak), ([1, 1, 1], 3));
    }
}
