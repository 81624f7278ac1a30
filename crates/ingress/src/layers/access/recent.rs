//! A table that knows which of its entries were used least recently.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// A table whose entries can be forgotten in the order of their last use. Its owner bounds it, with [`Recent::forget_oldest`].
///
/// The order is updated lazily: each entry is in it at the time of its last use or before, and is moved to its current place
/// when it reaches the front.
///
/// # Complexity
/// Logarithmic time to add, remove and forget an entry; constant time for every other operation.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// The keys by the time at which they are listed.
    order: BTreeMap<u64, K>,
    /// Counts the uses.
    clock: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    used: u64,
    listed: u64,
}

impl<K: Eq + Hash + Clone, V> Recent<K, V> {
    /// An empty table.
    pub(super) fn new() -> Self {
        Self {
            entries: HashMap::new(),
            order: BTreeMap::new(),
            clock: 0,
        }
    }

    /// The entry of a key, which counts as used.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        entry.used = self.clock;
        Some(&mut entry.value)
    }

    /// The entry of a key, which does not count as used.
    pub(super) fn peek(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.remove(&key);
        self.clock += 1;
        self.order.insert(self.clock, key.clone());
        let entry = Entry {
            value,
            used: self.clock,
            listed: self.clock,
        };
        self.entries.insert(key, entry);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.listed);
        Some(entry.value)
    }

    /// Removes the entry that was used least recently. Returns whether there was one.
    pub(super) fn forget_oldest(&mut self) -> bool {
        while let Some((listed, key)) = self.order.pop_first() {
            match self.entries.get_mut(&key) {
                Some(entry) if entry.used > listed => {
                    entry.listed = entry.used;
                    self.order.insert(entry.used, key);
                }
                _ => return self.entries.remove(&key).is_some(),
            }
        }
        false
    }

    /// Keeps the entries that pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        let order = &mut self.order;
        self.entries.retain(|key, entry| {
            let is_kept = keep(key, &entry.value);
            if !is_kept {
                order.remove(&entry.listed);
            }
            is_kept
        });
    }

    /// The entries, in any order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Compares with a list in the order of the last use.
        #[test]
        fn the_entry_that_was_used_least_recently_is_forgotten(
            steps in prop::collection::vec((0_u8..5, 0_u8..12), 0..400),
        ) {
            let mut table = Recent::new();
            let mut plain: Vec<(u8, usize)> = Vec::new();
            for (at, (step, key)) in steps.into_iter().enumerate() {
                let known = plain.iter().position(|(other, _)| *other == key);
                match step {
                    0 => {
                        table.insert(key, at);
                        known.map(|known| plain.remove(known));
                        plain.push((key, at));
                    }
                    1 => {
                        let found = table.get_mut(&key).copied();
                        prop_assert_eq!(found, known.map(|known| plain[known].1));
                        if let Some(known) = known {
                            let used = plain.remove(known);
                            plain.push(used);
                        }
                    }
                    2 => {
                        let found = table.peek(&key).copied();
                        prop_assert_eq!(found, known.map(|known| plain[known].1));
                    }
                    3 => {
                        let removed = table.remove(&key);
                        prop_assert_eq!(removed, known.map(|known| plain.remove(known).1));
                    }
                    _ => {
                        prop_assert_eq!(table.forget_oldest(), !plain.is_empty());
                        if !plain.is_empty() {
                            plain.remove(0);
                        }
                    }
                }
                let mut entries: Vec<_> = table.iter().map(|(key, value)| (*key, *value)).collect();
                let mut expected = plain.clone();
                entries.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(entries, expected);
                prop_assert_eq!((table.len(), table.order.len()), (plain.len(), plain.len()));
            }
        }
    }

    #[test]
    fn entries_that_are_not_kept_leave_the_order() {
        let mut table = Recent::new();
        for key in 0..10 {
            table.insert(key, key);
        }
        table.retain(|key, _| key % 2 == 1);
        assert!(table.forget_oldest());
        assert_eq!((table.peek(&1), table.peek(&3)), (None, Some(&3)));
        assert_eq!((table.len(), table.order.len()), (4, 4));
    }
}
