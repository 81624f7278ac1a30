//! The owner of each slot, stored when it is first computed.

use crate::sync::{AtomicU64, Ordering};

/// A member's index plus one for each slot, 0 while it is unknown, in fields of as few bits as the members need: four
/// for up to fifteen members, eight for up to 255. The whole table then fits into the fastest caches.
///
/// Every access is relaxed. A field changes once, from 0 to the value that every thread computes for it. So it does not
/// matter which thread writes it, or how often: a reader finds the value, or it finds 0 and computes the value.
#[derive(Debug)]
pub(crate) struct Slots {
    words: Box<[AtomicU64]>,
    /// The base-two logarithm of the bits of a field: fields do not cross words.
    log_bits: u32,
    /// A mask with all bits of one field set.
    mask: u64,
}

impl Slots {
    /// `slots` unknown slots for this many members.
    pub(crate) fn new(slots: usize, members: usize) -> Self {
        let needed = usize::BITS - members.leading_zeros();
        let bits = needed.next_power_of_two();
        let words = slots.div_ceil((u64::BITS / bits) as usize);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
            log_bits: bits.trailing_zeros(),
            mask: u64::MAX >> (u64::BITS - bits),
        }
    }

    /// The owner of a slot, once it is known.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what is remembered came from a usize"
    )]
    pub(crate) fn owner(&self, slot: usize) -> Option<usize> {
        let (word, shift) = self.place(slot);
        let field = (self.words.get(word)?.load(Ordering::Relaxed) >> shift) & self.mask;
        (field as usize).checked_sub(1)
    }

    /// Stores the owner of a slot, which is always the same.
    pub(crate) fn remember(&self, slot: usize, owner: usize) {
        let (word, shift) = self.place(slot);
        let field = (owner as u64 + 1) & self.mask;
        if let Some(word) = self.words.get(word) {
            word.fetch_or(field << shift, Ordering::Relaxed);
        }
    }

    #[inline]
    fn place(&self, slot: usize) -> (usize, usize) {
        let bit = slot << self.log_bits;
        (bit / 64, bit % 64)
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_as_wide_as_the_members_need() {
        let bytes = |members| Slots::new(64, members).words.len() * 8;
        assert_eq!([bytes(2), bytes(3)], [16; 2]);
        assert_eq!([bytes(4), bytes(15)], [32; 2]);
        assert_eq!([bytes(16), bytes(255)], [64; 2]);
        assert_eq!([bytes(256), bytes(65_535)], [128; 2]);
        assert_eq!(bytes(65_536), 256);
    }

    #[test]
    fn slots_keep_apart_whatever_the_width() {
        for members in [1, 2, 3, 4, 15, 16, 255, 256, 65_535, 65_536] {
            let slots = Slots::new(40, members);
            let owner = |slot: usize| (slot * 7_919 + members - 1) % members;
            for slot in (0..40).filter(|slot| slot % 3 != 0) {
                slots.remember(slot, owner(slot));
                slots.remember(slot, owner(slot));
            }
            for slot in 0..40 {
                let known = (slot % 3 != 0).then(|| owner(slot));
                assert_eq!(slots.owner(slot), known, "slot {slot} of {members}");
            }
        }
    }

    #[test]
    fn a_slot_past_the_end_has_no_owner() {
        let slots = Slots::new(16, 4);
        slots.remember(16, 1);
        assert_eq!(slots.owner(16), None);
    }
}
