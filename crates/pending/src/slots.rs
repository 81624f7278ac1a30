//! A ring for dense ids, and a map for older ids whose place a newer one has taken.
//!
//! An id has one place in the ring, its number modulo the ring's length: no search, and no gap to close when it is
//! removed. The requests of one opener are numbered one after the other, so no two of them have the same place as long
//! as there are no more of them than places. The exception is a request that stays while the numbers go once around,
//! such as a WebSocket among short requests. The younger request then takes the place, and the older one is moved into
//! a tree, where it is found in logarithmic time, whatever its id. So each of a thousand WebSockets is moved once, and
//! later short requests find its place empty; with open addressing they would be moved each time. An opener that leaves
//! gaps on purpose has all of its requests in the tree, which is the worst case.

use std::{collections::BTreeMap, mem, time::Instant};

/// The smallest ring; below it, growing and shrinking would cost more than the memory.
pub(crate) const MIN_SLOTS: usize = 16;

/// A waiting request.
pub(crate) struct Entry<T> {
    pub(crate) id: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) value: T,
}

/// A map from the ids of one opener to entries. Empty and never used, it owns no memory.
pub(crate) struct Slots<T> {
    /// Empty, or a power of two of at least [`MIN_SLOTS`].
    ring: Vec<Option<Entry<T>>>,
    /// Entries whose place a younger request has.
    overtaken: BTreeMap<u64, Entry<T>>,
    /// No id of `overtaken` is greater. Ids grow, so a new one need not be searched for there.
    last_overtaken: u64,
    len: usize,
    /// With fewer entries than this, memory is released. It is far enough below the growth limit that a ring whose size
    /// varies around one value is not rebuilt again and again.
    shrink_below: usize,
}

impl<T> Slots<T> {
    pub(crate) const fn new() -> Self {
        Self {
            ring: Vec::new(),
            overtaken: BTreeMap::new(),
            last_overtaken: 0,
            len: 0,
            shrink_below: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Number of entries for which memory is allocated.
    pub(crate) fn allocated(&self) -> usize {
        self.ring.len() + self.overtaken.len()
    }

    #[inline]
    pub(crate) fn get(&self, id: u64) -> Option<&Entry<T>> {
        match self.ring.get(self.home(id)) {
            Some(Some(entry)) if entry.id == id => Some(entry),
            _ => self.get_aside(id),
        }
    }

    #[inline(never)]
    fn get_aside(&self, id: u64) -> Option<&Entry<T>> {
        self.overtaken.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut Entry<T>> {
        let home = self.home(id);
        match self.ring.get_mut(home) {
            Some(Some(entry)) if entry.id == id => Some(entry),
            _ => self.overtaken.get_mut(&id),
        }
    }

    /// Inserts an entry.
    ///
    /// # Errors
    /// The value, if the id is in use.
    #[inline]
    pub(crate) fn insert(&mut self, id: u64, deadline: Option<Instant>, value: T) -> Result<(), T> {
        let home = self.home(id);
        match self.ring.get_mut(home) {
            Some(slot) if slot.is_none() && (id > self.last_overtaken) => {
                *slot = Some(Entry {
                    id,
                    deadline,
                    value,
                });
                self.len += 1;
                Ok(())
            }
            _ => self.insert_aside(id, deadline, value),
        }
    }

    /// Inserts an entry where the place is taken, the ring does not exist yet, or the id may have been overtaken.
    #[inline(never)]
    fn insert_aside(&mut self, id: u64, deadline: Option<Instant>, value: T) -> Result<(), T> {
        if self.get(id).is_some() {
            return Err(value);
        }
        let free = matches!(self.ring.get(self.home(id)), Some(None));
        // Dense ids never collide before the ring is full; if many of them stay, growing at three quarters keeps the
        // tree small.
        if !free && self.len * 4 >= self.ring.len() * 3 {
            self.rebuild((self.ring.len() * 2).max(MIN_SLOTS));
        }
        self.len += 1;
        self.put(Entry {
            id,
            deadline,
            value,
        });
        Ok(())
    }

    #[inline]
    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        // This shrinks the table for the previous removal, which could not do so while it held an entry.
        if self.len < self.shrink_below {
            self.shrink();
        }
        let home = self.home(id);
        let removed = match self.ring.get_mut(home) {
            Some(slot) if slot.as_ref().is_some_and(|entry| entry.id == id) => slot.take()?.value,
            _ => self.remove_aside(id)?,
        };
        self.len -= 1;
        Some(removed)
    }

    #[inline(never)]
    fn remove_aside(&mut self, id: u64) -> Option<T> {
        Some(self.overtaken.remove(&id)?.value)
    }

    /// Removes all entries that `out` selects.
    pub(crate) fn remove_if(
        &mut self,
        mut wanted: impl FnMut(&Entry<T>) -> bool,
        mut out: impl FnMut(Entry<T>),
    ) {
        for slot in &mut self.ring {
            if let Some(entry) = slot.take_if(|entry| wanted(entry)) {
                self.len -= 1;
                out(entry);
            }
        }
        for (_, entry) in self.overtaken.extract_if(.., |_, entry| wanted(entry)) {
            self.len -= 1;
            out(entry);
        }
        if self.len < self.shrink_below {
            self.shrink();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.ring.iter().flatten().chain(self.overtaken.values())
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry<T>> {
        let ring = self.ring.into_iter().flatten();
        ring.chain(self.overtaken.into_values())
    }

    #[cold]
    fn shrink(&mut self) {
        let mut slots = self.ring.len();
        while slots > MIN_SLOTS && self.len * 8 <= slots {
            slots /= 2;
        }
        self.rebuild(slots);
    }

    #[cold]
    fn rebuild(&mut self, slots: usize) {
        let mut fresh = Vec::with_capacity(slots);
        fresh.resize_with(slots, || None);
        self.shrink_below = if slots > MIN_SLOTS { slots / 8 + 1 } else { 0 };
        self.last_overtaken = 0;
        let entries = mem::replace(&mut self.ring, fresh).into_iter().flatten();
        for entry in mem::take(&mut self.overtaken).into_values().chain(entries) {
            self.put(entry);
        }
    }

    /// Stores an entry with a new id in its place, unless a younger entry is there.
    fn put(&mut self, entry: Entry<T>) {
        let home = self.home(entry.id);
        let older = match &mut self.ring[home] {
            Some(kept) if kept.id > entry.id => entry,
            slot => match slot.replace(entry) {
                Some(older) => older,
                None => return,
            },
        };
        self.last_overtaken = self.last_overtaken.max(older.id);
        self.overtaken.insert(older.id, older);
    }

    /// The place of an id. The lowest bit is that of the opener, and is the same for all ids in one `Slots`.
    #[inline]
    fn home(&self, id: u64) -> usize {
        // Without a ring the mask has all bits, and no place is accessed. The low bits are sufficient if a `usize` is
        // short.
        #[allow(clippy::cast_possible_truncation)]
        let number = (id >> 1) as usize;
        number & self.ring.len().wrapping_sub(1)
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use super::*;

    fn insert(slots: &mut Slots<u64>, id: u64) {
        slots.insert(id, None, id * 10).unwrap();
    }

    fn remove(slots: &mut Slots<u64>, id: u64) {
        assert_eq!(slots.remove(id), Some(id * 10));
    }

    /// The nth id of the opener with even ids.
    fn even(n: u64) -> u64 {
        2 * n
    }

    #[test]
    fn a_dense_run_fills_the_ring_completely() {
        let mut slots = Slots::new();
        assert_eq!((slots.allocated(), slots.len()), (0, 0));
        assert!(slots.get(2).is_none() && slots.get_mut(2).is_none() && slots.remove(2).is_none());
        for n in 1..=16 {
            insert(&mut slots, even(n));
            assert_eq!(slots.allocated(), 16);
        }
        insert(&mut slots, even(17));
        assert_eq!(slots.allocated(), 32);
        for n in 18..200_000 {
            insert(&mut slots, even(n));
            if n > 1500 {
                remove(&mut slots, even(n - 1500));
                assert_eq!(slots.get(even(n - 700)).unwrap().id, even(n - 700));
            }
            assert!(slots.overtaken.is_empty());
        }
        assert_eq!((slots.len(), slots.allocated()), (1500, 2048));
    }

    #[test]
    fn shrinks_at_an_eighth_and_never_below_the_smallest_ring() {
        let mut slots = Slots::new();
        for n in 1..=33 {
            insert(&mut slots, even(n));
        }
        assert_eq!(slots.allocated(), 64);
        for n in 1..=24 {
            remove(&mut slots, even(n));
        }
        assert_eq!((slots.len(), slots.allocated()), (9, 64));
        remove(&mut slots, even(25));
        assert_eq!(
            (slots.len(), slots.allocated()),
            (8, 64),
            "with the next one"
        );
        remove(&mut slots, even(26));
        assert_eq!((slots.len(), slots.allocated()), (7, 32));
        for n in 27..=33 {
            remove(&mut slots, even(n));
        }
        assert_eq!((slots.len(), slots.allocated()), (0, 16));
    }

    #[test]
    fn long_requests_move_aside_once_and_are_found() {
        // A thousand requests that were opened together stay, while series of five hundred others pass around the ring.
        let mut slots = Slots::new();
        for n in 0..1000 {
            insert(&mut slots, even(n));
        }
        assert_eq!(slots.allocated(), 1024);
        for n in 1000..60_000 {
            insert(&mut slots, even(n));
            if n >= 1500 {
                remove(&mut slots, even(n - 500));
                let newest_500 = slots.ring.iter().flatten().filter(|e| e.id > even(n - 500));
                assert!(
                    n % 1000 != 0 || newest_500.count() == 500,
                    "at their places"
                );
            }
            let stays = even(n % 1000);
            assert_eq!(slots.get(stays).unwrap().value, stays * 10);
        }
        assert_eq!((slots.len(), slots.ring.len()), (1500, 2048));
        assert_eq!(slots.overtaken.len(), 1000);
        // The requests return to the ring when it is rebuilt.
        for n in 59_500..60_000 {
            remove(&mut slots, even(n));
        }
        for n in 257..1000 {
            remove(&mut slots, even(n));
        }
        assert_eq!((slots.len(), slots.allocated()), (257, 2048 + 257));
        remove(&mut slots, even(256));
        remove(&mut slots, even(255));
        assert_eq!((slots.ring.len(), slots.overtaken.len()), (1024, 0));
        assert!((0..255).all(|n| slots.get(even(n)).is_some()));
    }

    #[test]
    fn ids_with_gaps_are_kept_and_taken_once() {
        // All ids have the same place.
        let id = |n: u64| n << 40;
        let mut slots = Slots::new();
        for n in 0..1000 {
            insert(&mut slots, id(n));
            assert_eq!(slots.insert(id(n), None, 1), Err(1), "here already");
            assert_eq!(slots.insert(id(n / 2), None, 1), Err(1), "here already");
        }
        assert_eq!((slots.len(), slots.overtaken.len()), (1000, 999));
        assert!(slots.ring.len() <= 2048);
        assert_eq!(slots.iter().count(), 1000);
        // An older id does not displace a younger one.
        remove(&mut slots, id(5));
        insert(&mut slots, id(5));
        assert_eq!(slots.get(id(999)).unwrap().id, id(999));
        slots.get_mut(id(5)).unwrap().value = 7;
        assert_eq!(slots.remove(id(5)), Some(7));
        for n in (0..1000).filter(|&n| n != 5) {
            remove(&mut slots, id(n));
            assert!(slots.remove(id(n)).is_none());
        }
        assert_eq!((slots.len(), slots.allocated()), (0, 16));
    }

    #[test]
    fn removal_covers_the_ring_and_the_tree() {
        let mut slots = Slots::new();
        for n in (1..=7).chain(33..=36) {
            insert(&mut slots, even(n));
        }
        assert_eq!((slots.ring.len(), slots.overtaken.len()), (16, 4));
        let mut taken = Vec::new();
        slots.remove_if(|entry| entry.id % 4 == 0, |entry| taken.push(entry.id / 2));
        taken.sort_unstable();
        assert_eq!(taken, [2, 4, 6, 34, 36]);
        let mut left: Vec<_> = slots.iter().map(|entry| entry.id / 2).collect();
        left.sort_unstable();
        assert_eq!((slots.len(), &left[..]), (6, &[1, 3, 5, 7, 33, 35][..]));
        let mut given: Vec<_> = slots.into_entries().map(|entry| entry.id / 2).collect();
        given.sort_unstable();
        assert_eq!(given, left);
    }
}
