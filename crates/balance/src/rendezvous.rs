//! The winner of a hash: weighted rendezvous hashing behind a table of slots.
//!
//! A hash falls into one of [`SLOTS`] slots by its upper bits. For each slot every member draws a number from the slot
//! and its own key, and the highest number wins (Thaler and Ravishankar, 1998); weights adjust the number with a
//! logarithm (Schindelhauer and Schomaker, 2005). A member that leaves gives up exactly the slots that it won, since
//! the other numbers do not change; the same holds the other way for one that joins, and for a weight that changes. The
//! winner of a slot is computed when it is first needed and then remembered: a choice costs one access to the table,
//! and a change of members only an empty table.
//!
//! With independent draws, the error of a share would be the square root of its number of slots. So each member's draws
//! are a permutation over the slots ([`draw`]): every sixteen-thousandth of the range occurs once. That halves the
//! variance, as if there were twice as many slots.
//!
//! Instead of:
//! - *rendezvous without a table*: exact shares, but a number from every member
//!   for every key;
//! - *a ring of points* (Karger and others, 1997; ketama): it moves as few keys, but has 160 points of eight bytes for
//!   each unit of weight, all hashed and sorted at every change, and a search among them for every key. Its shares are
//!   less even than these while all weights, divided by the least, add up to less than about two hundred, and more even
//!   above that;
//! - *Maglev* (Eisenbud and others, 2016): it fills its table in turns, so shares differ by at most one slot; but a
//!   member that leaves changes the turns of all others, which moves other keys as well, and a table must be filled
//!   completely before the first choice.
//!
//! The number of slots does not depend on the number of members: a change of it would move every key.

use crate::{hash::mix, slots::Slots, sync::OnceLock};

/// The base-two logarithm of [`SLOTS`]; even, because [`shuffled`] splits a slot's number into two halves.
const SLOT_BITS: u32 = if cfg!(adit_loom) { 4 } else { 14 };

/// Number of slots. Measured between 2^12 and 2^16: at 2^14 the
/// shares are more even than ketama's up to some hundred members, and the table
/// smaller than its points from two members on.
const SLOTS: usize = 1 << SLOT_BITS;

/// The members as candidates, in their order.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    /// Each member's key after mixing: otherwise members with neighbouring keys and slots with neighbouring numbers
    /// would correlate.
    seeds: Box<[u64]>,
    /// Each member's weight; empty if all weights are equal and the draws decide without a logarithm.
    weights: Box<[u32]>,
    /// The winners known so far. Created at the first choice: most balancers of a large server are rarely used, and a
    /// replaced one perhaps never.
    slots: OnceLock<Slots>,
}

impl Rendezvous {
    /// Members by key and weight.
    pub(crate) fn new(members: impl Iterator<Item = (u64, u32)>) -> Self {
        let (seeds, mut weights): (Vec<u64>, Vec<u32>) =
            members.map(|(key, weight)| (mix(key), weight)).unzip();
        if weights.windows(2).all(|pair| pair[0] == pair[1]) {
            weights.clear();
        }
        Self {
            seeds: seeds.into_boxed_slice(),
            weights: weights.into_boxed_slice(),
            slots: OnceLock::new(),
        }
    }

    /// The winner of `hash` among all members, if it is known.
    #[inline]
    pub(crate) fn known(&self, hash: u64) -> Option<usize> {
        self.slots.get()?.owner(slot_of(hash))
    }

    /// Computes the winner of `hash` among all members, and stores it if there is more than one.
    #[cold]
    pub(crate) fn settle(&self, hash: u64) -> Option<usize> {
        let slot = slot_of(hash);
        let owner = self.winner(slot, |_| true)?;
        let members = self.seeds.len();
        if members > 1 {
            let slots = self.slots.get_or_init(|| Slots::new(SLOTS, members));
            slots.remember(slot, owner);
        }
        Some(owner)
    }

    /// The winner of `hash` among the eligible members.
    #[cold]
    pub(crate) fn heir(&self, hash: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        self.winner(slot_of(hash), eligible)
    }

    /// The eligible member with the highest number for a slot; of equals, the earlier. Calls `eligible` only for a
    /// member whose number is the highest so far, which is rare.
    fn winner(&self, slot: usize, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let draws = self.seeds.iter().map(|&seed| draw(slot, seed));
        if self.weights.is_empty() {
            best(draws, eligible)
        } else {
            best_weighted(draws.zip(self.weights.iter().copied()), eligible)
        }
    }
}

#[inline]
#[allow(
    clippy::cast_possible_truncation,
    reason = "fewer bits than any usize has"
)]
const fn slot_of(hash: u64) -> usize {
    (hash >> (u64::BITS - SLOT_BITS)) as usize
}

/// The index of the first greatest draw among the eligible members.
fn best(draws: impl Iterator<Item = u64>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
    let mut leader: Option<(usize, u64)> = None;
    for (index, draw) in draws.enumerate() {
        let leads = leader.is_none_or(|(_, best)| draw > best);
        if leads && eligible(index) {
            leader = Some((index, draw));
        }
    }
    leader.map(|(index, _)| index)
}

/// The index of the first greatest [`score`] among the eligible members.
fn best_weighted(
    draws: impl Iterator<Item = (u64, u32)>,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    let (mut leader, mut best) = (None, 0.0);
    for (index, (draw, weight)) in draws.enumerate() {
        // -ln(u) is at least 1 - u, so that a score is at most weight / (1 - u):
        // few members need the logarithm.
        if (1.0 - uniform(draw)) * best > f64::from(weight) {
            continue;
        }
        let score = score(draw, weight);
        if score > best && eligible(index) {
            (leader, best) = (Some(index), score);
        }
    }
    leader
}

/// A number drawn for a member, of 52 bits so that it, and it plus a half, are exact in a float: the order is the same
/// with and without weights.
///
/// The upper bits are the slot's number [`shuffled`], so that over all slots each of their values occurs once; the
/// lower ones decide between equal draws.
fn draw(slot: usize, seed: u64) -> u64 {
    let slot = slot as u64;
    let lower = seed.wrapping_mul(2 * slot + 1) >> (12 + SLOT_BITS);
    (shuffled(slot, seed) << (52 - SLOT_BITS)) | lower
}

/// The number of another slot, a different one for each slot: a permutation that the seed determines, made of
/// reversible steps.
const fn shuffled(mut slot: u64, seed: u64) -> u64 {
    const MASK: u64 = (1 << SLOT_BITS) - 1;
    let mut key = seed;
    let mut round = 0;
    while round < 2 {
        slot ^= key & MASK;
        key >>= SLOT_BITS;
        slot = slot.wrapping_mul(key | 1) & MASK;
        key >>= SLOT_BITS;
        slot ^= slot >> (SLOT_BITS / 2);
        round += 1;
    }
    slot
}

/// The draw as a fraction, neither 0 nor 1.
#[allow(
    clippy::cast_precision_loss,
    reason = "52 bits, which a float holds exactly"
)]
fn uniform(draw: u64) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 52) as f64;
    // A half is added, so that the argument is above 0 and below 1.
    (draw as f64 + 0.5) * UNIT
}

/// The draw adjusted by a weight: the highest score wins with a probability proportional to its weight.
///
/// The logarithm comes from the platform's maths library; two platforms may round it differently, which matters only
/// for a slot whose two best scores differ in the last bit at most.
fn score(draw: u64, weight: u32) -> f64 {
    -f64::from(weight) / uniform(draw).ln()
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// A hash that falls into a slot, and is not the slot's first one.
    fn hash_of(slot: usize) -> u64 {
        ((slot as u64) << (u64::BITS - SLOT_BITS)) | 0x1234
    }

    /// Rendezvous hashing by its definition: the score of every member, without a table.
    fn plain(members: &[(u64, u32)], slot: usize, out: &HashSet<usize>) -> Option<usize> {
        let mut winner: Option<(usize, f64)> = None;
        for (index, &(key, weight)) in members.iter().enumerate() {
            let score = score(draw(slot, mix(key)), weight);
            if !out.contains(&index) && winner.is_none_or(|(_, best)| score > best) {
                winner = Some((index, score));
            }
        }
        winner.map(|(index, _)| index)
    }

    proptest! {
        #[test]
        fn a_slot_is_owned_by_the_plain_winner(
            members in prop::collection::vec((any::<u64>(), 1_u32..1_000), 0..40),
            even in any::<bool>(),
            out in prop::collection::hash_set(0_usize..40, 0..20),
            slots in prop::collection::vec(0..SLOTS, 1..100),
        ) {
            let mut members = members;
            if even {
                members.iter_mut().for_each(|member| member.1 = 7);
            }
            let rendezvous = Rendezvous::new(members.iter().copied());
            let none = HashSet::new();
            for &slot in slots.iter().chain(&slots) {
                let hash = hash_of(slot);
                let owner = rendezvous.known(hash).or_else(|| rendezvous.settle(hash));
                prop_assert_eq!(owner, plain(&members, slot, &none));
                let kept = owner.filter(|_| members.len() > 1);
                prop_assert_eq!(rendezvous.known(hash), kept);
                let heir = rendezvous.heir(hash, |index| !out.contains(&index));
                prop_assert_eq!(heir, plain(&members, slot, &out));
            }
        }

        #[test]
        fn every_seed_shuffles(seed in any::<u64>()) {
            let seen: HashSet<u64> = (0..SLOTS as u64).map(|slot| shuffled(slot, seed)).collect();
            prop_assert_eq!(seen.len(), SLOTS);
            prop_assert!(seen.iter().all(|&slot| slot < SLOTS as u64));
        }
    }

    #[test]
    fn the_table_is_allocated_at_the_first_choice() {
        let two = Rendezvous::new([(1, 1), (2, 1)].into_iter());
        assert!(two.slots.get().is_none());
        assert_eq!(two.known(7), None);
        assert!(two.slots.get().is_none());
        let owner = two.settle(7);
        assert!(owner.is_some());
        assert_eq!(two.known(7), owner);
        let one = Rendezvous::new([(1, 1)].into_iter());
        assert_eq!((one.settle(7), one.settle(u64::MAX)), (Some(0), Some(0)));
        assert!(one.slots.get().is_none());
        let empty = Rendezvous::new([].into_iter());
        assert_eq!(empty.settle(7), None);
        assert!(empty.slots.get().is_none());
    }

    /// The root mean square error of the shares. Independent draws have 3.1 and 3.4 % here, and ketama's points 7.6 and
    /// 5.5 %.
    #[test]
    fn shares_are_more_even_than_by_independent_draws() {
        for (weights, bound) in [([1; 4], 0.025), ([1, 2, 3, 4], 0.028)] {
            let (mut squares, mut looks) = (0.0, 0.0);
            for set in 0..8_u64 {
                let members = (0..16_usize).map(|id| (set * 100 + id as u64, weights[id % 4]));
                let rendezvous = Rendezvous::new(members.clone());
                let total: u32 = members.clone().map(|(_, weight)| weight).sum();
                let mut counts = [0_u32; 16];
                for slot in 0..SLOTS {
                    counts[rendezvous.settle(hash_of(slot)).unwrap()] += 1;
                }
                for (count, (_, weight)) in counts.into_iter().zip(members) {
                    let due = SLOTS as f64 * f64::from(weight) / f64::from(total);
                    squares += (f64::from(count) / due - 1.0).powi(2);
                    looks += 1.0;
                }
            }
            let off = f64::sqrt(squares / looks);
            assert!(off < bound, "{off} for {weights:?}");
        }
    }

    #[test]
    fn a_score_grows_with_the_draw_and_with_the_weight() {
        let top = (1_u64 << 52) - 1;
        assert!(score(0, 1) > 0.0);
        assert!(score(1, 1) > score(0, 1));
        assert!(score(top, 1).is_finite());
        assert!(score(top, 1) > score(top - 1, 1));
        assert!((score(1 << 51, 4) / score(1 << 51, 2) - 2.0).abs() < 1e-9);
        // The middle of the unit interval: -1 / ln(1/2).
        assert!((score(1 << 51, 1) - std::f64::consts::LN_2.recip()).abs() < 1e-9);
    }

    #[test]
    fn a_draw_is_a_shuffled_slot_and_a_tail() {
        // The value was computed separately, in another language.
        assert_eq!(draw(0, mix(1)), 0x7_aeed_15af_3f0d);
        assert_eq!(draw(9_999, mix(2)), 0xa_7056_fefe_2d0d);
    }

    #[test]
    fn weights_are_kept_only_when_they_differ() {
        let even = Rendezvous::new([(1, 7), (2, 7), (3, 7)].into_iter());
        assert!(even.weights.is_empty());
        assert_eq!(*even.seeds, [mix(1), mix(2), mix(3)]);
        let uneven = Rendezvous::new([(1, 7), (2, 7), (3, 8)].into_iter());
        assert_eq!(*uneven.weights, [7, 7, 8]);
    }

    #[test]
    fn equal_scores_go_to_the_first_member() {
        for weight in [None, Some(1), Some(5)] {
            let best = |draws: &[u64], eligible: fn(usize) -> bool| match weight {
                None => best(draws.iter().copied(), eligible),
                Some(weight) => best_weighted(draws.iter().map(|&draw| (draw, weight)), eligible),
            };
            assert_eq!(best(&[3, 9, 9, 1], |_| true), Some(1));
            assert_eq!(best(&[3, 9, 9, 1], |index| index != 1), Some(2));
            assert_eq!(best(&[3, 9, 9, 1], |index| index == 3), Some(3));
            assert_eq!(best(&[3, 9], |_| false), None);
        }
    }
}
