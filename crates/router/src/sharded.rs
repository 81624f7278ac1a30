//! A map with cheap copies, which copies only the changed part on a change.

use std::{
    borrow::Borrow,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::Arc,
};

use hashbrown::{HashTable, hash_table::Entry};

/// Average number of entries of a shard, at most: a change copies one shard.
const PER_SHARD: usize = 32;

type Shard<K, V> = Arc<HashTable<(K, V)>>;

/// A hash map in shards. A clone shares all shards with the original; the first change to a shard after that copies the
/// shard. With `n` entries a clone costs `n / 32` reference counts and a change some tens of entries, where a plain map
/// costs `n` entries for each copy.
pub struct ShardedMap<K, V> {
    hasher: RandomState,
    /// The shards; their number is a power of two.
    shards: Box<[Shard<K, V>]>,
    len: usize,
}

impl<K, V> Clone for ShardedMap<K, V> {
    fn clone(&self) -> Self {
        Self {
            hasher: self.hasher.clone(),
            shards: self.shards.clone(),
            len: self.len,
        }
    }
}

impl<K, V> Default for ShardedMap<K, V> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: Box::new([Arc::default()]),
            len: 0,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for ShardedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl<K, V> ShardedMap<K, V> {
    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the map is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All entries, in any order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.iter().map(|(key, value)| (key, value)))
    }
}

impl<'m, K, V> IntoIterator for &'m ShardedMap<K, V> {
    type Item = (&'m K, &'m V);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'm>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// The place of a shard. The tables inside take the lowest and the highest bits of the hash.
fn place(hash: u64, shards: usize) -> usize {
    usize::try_from((hash >> 24) & 0xFFFF_FFFF).unwrap_or_default() & (shards - 1)
}

impl<K: Hash + Eq + Clone, V: Clone> ShardedMap<K, V> {
    /// The value of a key.
    #[must_use]
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get(place(hash, self.shards.len()))?;
        let found = shard.find(hash, |(known, _)| known.borrow() == key)?;
        Some(&found.1)
    }

    /// The value of a key, to be changed.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        // A shard is not copied for a key that it does not have.
        self.get(key)?;
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get_mut(place(hash, self.shards.len()))?;
        let found = Arc::make_mut(shard).find_mut(hash, |(known, _)| known.borrow() == key)?;
        Some(&mut found.1)
    }

    /// The value of a key, made by `make` if it is absent.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.len >= PER_SHARD * self.shards.len() {
            self.grow();
        }
        let hash = self.hasher.hash_one(&key);
        let place = place(hash, self.shards.len());
        let hasher = self.hasher.clone();
        let shard = Arc::make_mut(&mut self.shards[place]);
        let entry = shard.entry(
            hash,
            |(known, _)| *known == key,
            |(known, _)| hasher.hash_one(known),
        );
        let entry = match entry {
            Entry::Occupied(found) => found,
            Entry::Vacant(free) => {
                self.len += 1;
                free.insert((key, make()))
            }
        };
        &mut entry.into_mut().1
    }

    /// Sets the value of a key. Returns the old value.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.get_mut(&key) {
            Some(known) => Some(std::mem::replace(known, value)),
            None => {
                self.get_or_insert_with(key, || value);
                None
            }
        }
    }

    /// Removes a key. Returns its value.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.get(key)?;
        let hash = self.hasher.hash_one(key);
        let shard = self.shards.get_mut(place(hash, self.shards.len()))?;
        let found = Arc::make_mut(shard).find_entry(hash, |(known, _)| known.borrow() == key);
        let ((_, value), _) = found.ok()?.remove();
        self.len -= 1;
        Some(value)
    }

    /// Doubles the number of shards.
    fn grow(&mut self) {
        let count = self.shards.len() * 2;
        let mut tables: Vec<HashTable<(K, V)>> = Vec::new();
        tables.resize_with(count, HashTable::new);
        for (key, value) in self.iter() {
            let hash = self.hasher.hash_one(key);
            if let Some(table) = tables.get_mut(place(hash, count)) {
                table.insert_unique(hash, (key.clone(), value.clone()), |(known, _)| {
                    self.hasher.hash_one(known)
                });
            }
        }
        self.shards = tables.into_iter().map(Arc::new).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_keeps_what_it_had() {
        let mut map: ShardedMap<usize, usize> = ShardedMap::default();
        for number in 0..1_000 {
            assert_eq!(map.insert(number, number), None);
        }
        let copy = map.clone();
        assert_eq!(map.insert(7, 0), Some(7));
        assert_eq!(map.remove(&8), Some(8));
        assert_eq!((map.get(&7), map.get(&8), map.len()), (Some(&0), None, 999));
        assert_eq!((copy.get(&7), copy.get(&8)), (Some(&7), Some(&8)));
        assert_eq!((copy.len(), copy.iter().count()), (1_000, 1_000));
    }

    #[test]
    fn a_change_copies_one_shard() {
        let mut map: ShardedMap<usize, usize> = ShardedMap::default();
        for number in 0..1_000 {
            map.insert(number, number);
        }
        let copy = map.clone();
        let shared = |map: &ShardedMap<_, _>| {
            let both = map.shards.iter().zip(&copy.shards);
            both.filter(|(a, b)| Arc::ptr_eq(a, b)).count()
        };
        assert_eq!(shared(&map), map.shards.len());
        assert_eq!(map.remove(&1_000), None);
        assert_eq!(map.get_mut(&1_000), None);
        assert_eq!(shared(&map), map.shards.len());
        map.insert(3, 4);
        assert_eq!(shared(&map), map.shards.len() - 1);
        assert!(map.shards.iter().all(|shard| shard.len() < 4 * PER_SHARD));
    }
}
