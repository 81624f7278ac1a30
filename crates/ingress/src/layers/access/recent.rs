//! A table that forgets the entries that were used least recently.

use std::{collections::HashMap, hash::Hash};

/// A table with a bounded number of entries, which forgets those that were used least recently: when half of the bound
/// has been used since the last time, all other entries are forgotten.
///
/// # Complexity
/// Constant time for each operation, except that of dropping the forgotten entries.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// A table of at most `capacity` entries, at least two.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (capacity / 2).max(1),
        }
    }

    /// The entry of a key, which counts as used.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.insert(key, value);
        }
        self.young.get_mut(key)
    }

    /// Adds or replaces an entry.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let young = self.young.remove(key);
        young.or_else(|| self.old.remove(key))
    }

    /// The number of entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_number_is_bounded_and_recent_entries_stay(
            keys in prop::collection::vec(0_u8..40, 0..400),
            capacity in 2_usize..20,
        ) {
            let mut table = Recent::new(capacity);
            for (at, key) in keys.iter().enumerate() {
                table.insert(*key, at);
                prop_assert!(table.len() <= capacity);
                // The entries of the last `capacity / 2` uses are there.
                let recent = keys[..=at].iter().enumerate().rev().take(capacity / 2);
                for (_, key) in recent {
                    let last = keys[..=at].iter().rposition(|other| other == key);
                    let found = table.young.get(key).or_else(|| table.old.get(key));
                    prop_assert_eq!(found.copied(), last);
                }
            }
        }
    }

    #[test]
    fn used_entries_outlive_unused_ones() {
        let mut table = Recent::new(4);
        table.insert("kept", 1);
        for key in ["a", "b", "c", "d", "e", "f"] {
            table.insert(key, 2);
            assert_eq!(table.get_mut(&"kept"), Some(&mut 1), "{key}");
        }
        assert_eq!(table.get_mut(&"a"), None);
        assert_eq!(table.remove(&"kept"), Some(1));
        assert_eq!(table.get_mut(&"kept"), None);
    }
}
