//! Open addressing for ids that come in dense runs.
//!
//! The home of an id is its multiple of the golden ratio (Knuth, The Art of Computer Programming,
//! vol. 3, section 6.4). Consecutive ids then fall farthest apart (the three-distance theorem), so a
//! run of running requests meets few collisions. The id itself as home would find a single run at
//! once, but each removal would walk to the end of the run, and a block of long-lived requests that
//! were opened together (a thousand WebSockets after a reconnect) would push every run that comes
//! around the ring behind it, by its full length.
//!
//! Collisions go to the next slot. Removal shifts the followers back (Knuth's algorithm R in the same
//! section) instead of leaving tombstones, so a table that has run for days is as fast as a new one.
//!
//! The hot functions take their arguments apart and ask to be inlined: an entry that is passed on as
//! a whole is written and read back in pieces of different sizes, which stalls the processor.

use std::time::Instant;

/// 2^64 divided by the golden ratio, odd.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The smallest allocation; below it, growing and shrinking would cost more than the memory.
pub(crate) const MIN_SLOTS: usize = 16;

/// A waiting request.
pub(crate) struct Entry<T> {
    pub(crate) id: u64,
    pub(crate) deadline: Option<Instant>,
    pub(crate) value: T,
}

/// Where an id is, or where it would go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Taken,
    Free(usize),
}

/// A map from id to entry. Empty, it owns no memory.
pub(crate) struct Slots<T> {
    /// None, or a power of two of at least [`MIN_SLOTS`].
    slots: Vec<Option<Entry<T>>>,
    len: usize,
    /// The low bits of an id that are the same for all ids of this map, and say nothing.
    skip_bits: u32,
    /// How far the spread id is shifted down to leave as many bits as count the slots.
    shift: u32,
}

impl<T> Slots<T> {
    pub(crate) fn new(skip_bits: u32) -> Self {
        Self {
            slots: Vec::new(),
            len: 0,
            skip_bits,
            // Any that is defined: with no slots, nothing is looked at.
            shift: u64::BITS - 1,
        }
    }

    /// An empty map for the same ids.
    pub(crate) fn emptied(&self) -> Self {
        Self::new(self.skip_bits)
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many slots are allocated.
    pub(crate) fn allocated(&self) -> usize {
        self.slots.len()
    }

    #[inline]
    pub(crate) fn find(&self, id: u64) -> Option<usize> {
        let mut at = self.home(id);
        // Ends: a quarter of the slots is free at least.
        loop {
            match self.slots.get(at)? {
                Some(entry) if entry.id == id => return Some(at),
                Some(_) => at = self.after(at),
                None => return None,
            }
        }
    }

    #[inline]
    pub(crate) fn at(&self, at: usize) -> Option<&Entry<T>> {
        self.slots.get(at)?.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, at: usize) -> Option<&mut Entry<T>> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// Where `id` would be inserted, unless it is here.
    #[inline]
    pub(crate) fn place(&self, id: u64) -> Place {
        let mut at = self.home(id);
        loop {
            match self.slots.get(at) {
                Some(Some(entry)) if entry.id == id => return Place::Taken,
                Some(Some(_)) => at = self.after(at),
                // No slot at all: the insert allocates, and places again.
                Some(None) | None => return Place::Free(at),
            }
        }
    }

    /// Puts an entry to the free place that [`Self::place`] gave for its id, growing when needed.
    #[inline]
    pub(crate) fn insert(&mut self, free: usize, id: u64, deadline: Option<Instant>, value: T) {
        self.len += 1;
        let free = if self.len * 4 > self.slots.len() * 3 {
            self.rebuild((self.slots.len() * 2).max(MIN_SLOTS));
            self.free(id)
        } else {
            free
        };
        let slot = &mut self.slots[free];
        debug_assert!(slot.is_none(), "the place was given as free");
        // It always is. Said once more for the compiler, which else makes ready to drop an old entry
        // and builds the new one aside.
        if slot.is_none() {
            *slot = Some(Entry {
                id,
                deadline,
                value,
            });
        }
    }

    /// Takes the entry out of a slot and closes the gap. Later entries may move, each to a slot that
    /// lies, going around, between this one and its old one.
    #[inline]
    pub(crate) fn remove(&mut self, at: usize) -> Option<Entry<T>> {
        let removed = self.slots.get_mut(at)?.take()?;
        self.len -= 1;
        let mask = self.mask();
        let mut gap = at;
        let mut next = self.after(at);
        while let Some(entry) = self.at(next) {
            let home = self.home(entry.id);
            // An entry may go back as far as its home, not before.
            if next.wrapping_sub(home) & mask >= next.wrapping_sub(gap) & mask {
                self.slots.swap(gap, next);
                gap = next;
            }
            next = self.after(next);
        }
        Some(removed)
    }

    /// Gives memory back when little of it is used. The distance to the growth limit keeps a table
    /// that swings around one size from rebuilding over and over.
    #[inline]
    pub(crate) fn shrink(&mut self) {
        let mut slots = self.slots.len();
        while slots > MIN_SLOTS && self.len * 8 <= slots {
            slots /= 2;
        }
        if slots < self.slots.len() {
            self.rebuild(slots);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry<T>> {
        self.slots.iter().flatten()
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = Entry<T>> {
        self.slots.into_iter().flatten()
    }

    #[cold]
    fn rebuild(&mut self, slots: usize) {
        self.shift = u64::BITS - slots.trailing_zeros();
        let mut fresh = Vec::with_capacity(slots);
        fresh.resize_with(slots, || None);
        for entry in std::mem::replace(&mut self.slots, fresh)
            .into_iter()
            .flatten()
        {
            let free = self.free(entry.id);
            self.slots[free] = Some(entry);
        }
    }

    /// The place of an id that is not here, when there is room.
    fn free(&self, id: u64) -> usize {
        let mut at = self.home(id);
        while self.slots[at].is_some() {
            at = self.after(at);
        }
        at
    }

    fn home(&self, id: u64) -> usize {
        // The high bits of the product are the well mixed ones: as many of them as there are slots.
        // With no slots, all answers are as good.
        let spread = (id >> self.skip_bits).wrapping_mul(GOLDEN);
        usize::try_from(spread >> self.shift).unwrap_or(0)
    }

    fn after(&self, at: usize) -> usize {
        at.wrapping_add(1) & self.mask()
    }

    fn mask(&self) -> usize {
        self.slots.len().wrapping_sub(1)
    }
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use super::*;

    fn insert(slots: &mut Slots<u64>, id: u64) {
        let Place::Free(free) = slots.place(id) else {
            panic!("{id} is here already");
        };
        slots.insert(free, id, None, id * 10);
    }

    fn remove(slots: &mut Slots<u64>, id: u64) {
        let at = slots.find(id).unwrap();
        let entry = slots.remove(at).unwrap();
        assert_eq!((entry.id, entry.value), (id, id * 10));
        slots.shrink();
    }

    /// How many slots a lookup has to look at.
    fn probes(slots: &Slots<u64>, id: u64) -> usize {
        let at = slots.find(id).unwrap();
        (at.wrapping_sub(slots.home(id)) & slots.mask()) + 1
    }

    fn worst(slots: &Slots<u64>) -> usize {
        slots.iter().map(|e| probes(slots, e.id)).max().unwrap_or(0)
    }

    #[test]
    fn homes_fill_the_whole_range() {
        let mut slots = Slots::new(3);
        for n in 0..1000 {
            insert(&mut slots, n << 3);
        }
        assert_eq!(slots.allocated(), 2048);
        let homes: Vec<usize> = (0..100_000_u64).map(|n| slots.home(n << 3)).collect();
        assert_eq!(homes.iter().min(), Some(&0));
        assert_eq!(homes.iter().max(), Some(&2047));
        // The bits that are skipped say nothing.
        assert_eq!(slots.home(8), slots.home(15));
        assert_ne!(slots.home(8), slots.home(16));
    }

    #[test]
    fn grows_past_three_quarters_and_shrinks_at_an_eighth() {
        let mut slots = Slots::new(0);
        assert_eq!((slots.allocated(), slots.find(1)), (0, None));
        assert!(slots.at(0).is_none() && slots.at_mut(0).is_none() && slots.remove(0).is_none());
        for id in 1..=12 {
            insert(&mut slots, id);
            assert_eq!(slots.allocated(), 16);
        }
        insert(&mut slots, 13);
        assert_eq!(slots.allocated(), 32);
        for id in 14..=25 {
            insert(&mut slots, id);
        }
        assert_eq!((slots.len(), slots.allocated()), (25, 64));
        for id in 1..=16 {
            remove(&mut slots, id);
        }
        assert_eq!((slots.len(), slots.allocated()), (9, 64));
        remove(&mut slots, 17);
        assert_eq!((slots.len(), slots.allocated()), (8, 32));
        for id in 18..=25 {
            remove(&mut slots, id);
        }
        // Never below the smallest allocation.
        assert_eq!((slots.len(), slots.allocated()), (0, 16));
    }

    #[test]
    fn a_dense_run_takes_about_one_probe() {
        let mut slots = Slots::new(3);
        let mut looked = 0;
        for n in 0..200_000_u64 {
            insert(&mut slots, n << 3);
            if n >= 1500 {
                remove(&mut slots, (n - 1500) << 3);
                looked += probes(&slots, (n - 700) << 3);
            }
        }
        assert_eq!((slots.len(), slots.allocated()), (1500, 2048));
        assert!(looked < 198_500 * 5 / 4, "{looked}");
        assert!(worst(&slots) <= 4, "{}", worst(&slots));
    }

    #[test]
    fn long_lived_blocks_do_not_push_the_runs_away() {
        // A thousand opened together stay; runs of five hundred pass by, around and around.
        let mut slots = Slots::new(0);
        for id in 0..1000 {
            insert(&mut slots, id);
        }
        let mut worst_probes = 0;
        for id in 1000..60_000_u64 {
            insert(&mut slots, id);
            worst_probes = worst_probes.max(probes(&slots, id));
            if id >= 1500 {
                remove(&mut slots, id - 500);
            }
        }
        assert_eq!((slots.len(), slots.allocated()), (1500, 2048));
        assert!(worst_probes <= 16, "{worst_probes}");
        assert!(worst(&slots) <= 16, "{}", worst(&slots));
    }

    #[test]
    fn removal_closes_gaps_around_the_end() {
        // Twelve ids whose home is the last slot: the chain goes around, and any of them may leave.
        let mut probe = Slots::new(0);
        insert(&mut probe, 1);
        let last: Vec<u64> = (0..).filter(|&id| probe.home(id) == 15).take(12).collect();
        for leaving in 0..last.len() {
            let mut slots = Slots::new(0);
            for &id in &last {
                insert(&mut slots, id);
            }
            assert_eq!(slots.find(last[11]), Some(10));
            remove(&mut slots, last[leaving]);
            assert_eq!(slots.find(last[leaving]), None);
            for (place, &id) in last.iter().filter(|&&id| id != last[leaving]).enumerate() {
                assert_eq!(slots.find(id), Some((15 + place) & 15), "without gaps");
            }
        }
    }

    #[test]
    fn removal_leaves_entries_at_home_where_they_are() {
        let mut slots = Slots::new(0);
        insert(&mut slots, 1);
        let with_home = |home| (2..).find(|&id| slots.home(id) == home).unwrap();
        let (a, b, c) = (with_home(4), with_home(5), with_home(6));
        let second_a = (a + 1..).find(|&id| slots.home(id) == 4).unwrap();
        remove(&mut slots, 1);
        insert(&mut slots, a);
        insert(&mut slots, b);
        insert(&mut slots, c);
        insert(&mut slots, second_a);
        assert_eq!(slots.find(second_a), Some(7));
        remove(&mut slots, a);
        assert_eq!(
            [second_a, b, c].map(|id| slots.find(id)),
            [Some(4), Some(5), Some(6)]
        );
        assert!(slots.at(7).is_none());
    }
}
