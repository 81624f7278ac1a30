//! Room for entries that the tables of several layers share.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use crate::layers::access::recent::Recent;

/// A part of the largest table is forgotten at once, so that a flood does not search all tables for each of its entries.
const FORGOTTEN_PART: usize = 16;
/// Tables without a layer that are kept, beside one for each table with a layer: a tunnel may come back.
const KEPT_TABLES: usize = 64;

/// Distinguishes the table of a layer from every other.
pub(super) type TableId = [u8; 32];

/// Room for a number of entries, which the tables of all layers share. When it is used up, the largest table forgets the
/// entries that were used least recently. A table that takes no more than an equal share loses none: the visitors of one
/// tunnel cannot displace the entries of another (longest queue drop: Suter, Lakshman, Stiliadis and Choudhury, "Design
/// considerations for supporting TCP with per-flow queueing", 1998).
#[derive(Debug)]
pub(super) struct Shares<K, V> {
    max: usize,
    taken: AtomicUsize,
    tables: Mutex<HashMap<TableId, Arc<Table<K, V>>>>,
}

/// The entries of one layer. It outlives the layer, which a reload replaces.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// The list of the layer, for logs.
    place: Arc<str>,
    /// The number of entries, which can be read without the lock.
    len: AtomicUsize,
    entries: Mutex<Recent<K, V>>,
}

impl<K: Eq + Hash + Clone, V> Shares<K, V> {
    /// Room for at most this many entries.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: max.max(1),
            taken: AtomicUsize::new(0),
            tables: Mutex::default(),
        }
    }

    /// The table with this id; a new one if there is none.
    pub(super) fn table(&self, id: TableId, place: &Arc<str>) -> Arc<Table<K, V>> {
        let mut tables = self.tables.lock();
        if let Some(table) = tables.get(&id) {
            return table.clone();
        }
        let is_used = |table: &Arc<Table<K, V>>| Arc::strong_count(table) > 1;
        if tables.len() >= KEPT_TABLES && tables.len().is_power_of_two() {
            let used = tables.values().filter(|table| is_used(table)).count();
            if tables.len() - used > used + KEPT_TABLES / 2 {
                tables.retain(|_, table| {
                    let is_kept = is_used(table);
                    if !is_kept {
                        self.taken.fetch_sub(table.len(), Ordering::Relaxed);
                    }
                    is_kept
                });
            }
        }
        let table = Arc::new(Table {
            place: place.clone(),
            len: AtomicUsize::new(0),
            entries: Mutex::new(Recent::new()),
        });
        tables.insert(id, table.clone());
        table
    }

    /// Changes the entries of a table, then makes room if it has grown. `change` must not use another table.
    pub(super) fn change<R>(
        &self,
        table: &Table<K, V>,
        change: impl FnOnce(&mut Recent<K, V>) -> R,
    ) -> R {
        let mut entries = table.entries.lock();
        let before = entries.len();
        let result = change(&mut entries);
        let grown = self.count(table, before, entries.len());
        drop(entries);
        if grown {
            self.make_room();
        }
        result
    }

    /// Counts the entries of a table that had `before`, under its lock. Returns whether there may be too many now.
    fn count(&self, table: &Table<K, V>, before: usize, now: usize) -> bool {
        table.len.store(now, Ordering::Relaxed);
        match now.checked_sub(before) {
            Some(0) => false,
            Some(more) => self.taken.fetch_add(more, Ordering::Relaxed) + more > self.max,
            None => {
                self.taken.fetch_sub(before - now, Ordering::Relaxed);
                false
            }
        }
    }

    fn make_room(&self) {
        let tables = self.tables.lock();
        while self.len() > self.max {
            let Some(largest) = tables.values().max_by_key(|table| table.len()) else {
                return;
            };
            let mut entries = largest.entries.lock();
            let before = entries.len();
            for _ in 0..(before / FORGOTTEN_PART).max(1) {
                entries.forget_oldest();
            }
            self.count(largest, before, entries.len());
        }
    }

    /// The number of entries of all tables.
    pub(super) fn len(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Changes the entries of each table, which are in the list with this name.
    pub(super) fn change_all(&self, mut change: impl FnMut(&Arc<str>, &mut Recent<K, V>)) {
        let tables = self.tables.lock();
        for table in tables.values().filter(|table| table.len() > 0) {
            let mut entries = table.entries.lock();
            let before = entries.len();
            change(&table.place, &mut entries);
            self.count(table, before, entries.len());
        }
    }
}

impl<K, V> Table<K, V> {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> TableId {
        *blake3::hash(&number.to_le_bytes()).as_bytes()
    }

    fn add(shares: &Shares<u32, ()>, table: &Table<u32, ()>, key: u32) {
        shares.change(table, |entries| {
            if entries.get_mut(&key).is_none() {
                entries.insert(key, ());
            }
        });
    }

    fn has(table: &Table<u32, ()>, key: u32) -> bool {
        table.entries.lock().peek(&key).is_some()
    }

    #[test]
    fn p_15_8_a_flood_at_one_layer_takes_nothing_of_another() {
        let (shares, place) = (Shares::new(100), "test".into());
        let (quiet, flooded) = (shares.table(id(0), &place), shares.table(id(1), &place));
        for key in 0..50 {
            add(&shares, &quiet, key);
        }
        for key in 0..100_000 {
            // One that visits all the time is not forgotten.
            add(&shares, &flooded, 7);
            add(&shares, &flooded, key);
            assert!(shares.len() <= 100);
        }
        assert_eq!(quiet.len(), 50);
        assert!((0..50).all(|key| has(&quiet, key)));
        assert!(has(&flooded, 7) && has(&flooded, 99_999) && !has(&flooded, 1));
        // Another layer finds room at once, at the expense of the largest.
        let third = shares.table(id(2), &place);
        for key in 0..30 {
            add(&shares, &third, key);
        }
        assert_eq!((third.len(), shares.len() <= 100), (30, true));
        assert!(quiet.len() >= 100 / 3, "{}", quiet.len());
    }

    #[test]
    fn tables_without_a_layer_are_kept_and_bounded() {
        let (shares, place) = (Shares::new(1_000), "test".into());
        let first = shares.table(id(0), &place);
        add(&shares, &first, 1);
        drop(first);
        // A layer that comes back finds its entries.
        assert_eq!(shares.table(id(0), &place).len(), 1);
        for number in 0..10_000 {
            let table = shares.table(id(number), &place);
            add(&shares, &table, 1);
            assert!(shares.tables.lock().len() <= 2 * KEPT_TABLES);
        }
        let sizes = shares.tables.lock();
        let entries: usize = sizes.values().map(|table| table.len()).sum();
        assert_eq!(entries, shares.len());
    }
}
