//! Who wins a hash: weighted rendezvous hashing.
//!
//! Every member draws a number from the hash and its own key, the highest
//! number wins (Thaler and Ravishankar, 1998); weights bend the number with a
//! logarithm (Schindelhauer and Schomaker, 2005). A member that leaves gives up
//! exactly the hashes that it won, since nobody else's number changes; the same
//! holds the other way for one that joins, and for a weight that changes.
//!
//! A ring of points (ketama) would find the winner in logarithmic time, but it
//! costs a hundred or more points for each unit of weight, is rebuilt and
//! sorted at every change, and its shares are only as even as the points are
//! many. Groups and upstreams have few members, so we pay one short mix per
//! member and keep exact shares and no state.

use crate::hash::mix;

/// Who may win, in the order of the members.
#[derive(Debug)]
pub(crate) struct Rendezvous {
    /// Each member's key, mixed alone first: members with neighbouring keys and
    /// hashes with neighbouring values would otherwise meet.
    seeds: Box<[u64]>,
    /// Each member's weight, or nothing when all weigh the same and the draws
    /// decide without a logarithm.
    weights: Box<[u32]>,
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
        }
    }

    /// The eligible member with the highest number for `hash`; the earlier of
    /// equals.
    pub(crate) fn winner(&self, hash: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let draws = self.seeds.iter().map(|&seed| draw(hash, seed));
        if self.weights.is_empty() {
            best(draws, eligible)
        } else {
            let scores = draws
                .zip(&self.weights)
                .map(|(draw, &weight)| score(draw, weight));
            best(scores, eligible)
        }
    }
}

/// The place of the first greatest number among the eligible. Asks about a
/// member only when it would lead, which is rarely.
fn best<N: PartialOrd>(
    numbers: impl Iterator<Item = N>,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut leader: Option<(usize, N)> = None;
    for (index, number) in numbers.enumerate() {
        let leads = leader.as_ref().is_none_or(|(_, best)| number > *best);
        if leads && eligible(index) {
            leader = Some((index, number));
        }
    }
    leader.map(|(index, _)| index)
}

/// A number drawn for a member, of 52 bits so that it and its half step up are exact in
/// a float: it orders alike with and without weights.
fn draw(hash: u64, seed: u64) -> u64 {
    mix(hash ^ seed) >> 12
}

/// The draw bent by a weight: the highest score wins with a probability
/// proportional to its weight.
///
/// The logarithm comes from the platform's maths library; two platforms may
/// round it apart, which matters only to a hash whose two best scores agree to
/// the last bit.
#[expect(
    clippy::cast_precision_loss,
    reason = "52 bits, which a float holds exactly"
)]
fn score(draw: u64, weight: u32) -> f64 {
    const UNIT: f64 = 1.0 / (1_u64 << 52) as f64;
    // Half a step up keeps the argument off 0 and below 1.
    let uniform = (draw as f64 + 0.5) * UNIT;
    -f64::from(weight) / uniform.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_grows_with_the_draw_and_with_the_weight() {
        let top = (1_u64 << 52) - 1;
        assert!(score(0, 1) > 0.0);
        assert!(score(1, 1) > score(0, 1));
        assert!(score(top, 1).is_finite());
        assert!(score(top, 1) > score(top - 1, 1));
        assert!((score(1 << 51, 4) / score(1 << 51, 2) - 2.0).abs() < 1e-9);
        // The middle of the unit: -1 / ln(1/2).
        assert!((score(1 << 51, 1) - std::f64::consts::LN_2.recip()).abs() < 1e-9);
    }

    #[test]
    fn a_draw_is_the_upper_52_bits_of_the_mix() {
        assert_eq!(draw(1, 0), 0xb456_bcfc_34c2_cb2c >> 12);
        assert_eq!(draw(6, 9), mix(6 ^ 9) >> 12);
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
    fn equals_go_to_the_first_and_the_absent_never_win() {
        assert_eq!(best([3, 9, 9, 1].into_iter(), |_| true), Some(1));
        assert_eq!(best([3, 9, 9, 1].into_iter(), |index| index != 1), Some(2));
        assert_eq!(best([3, 9, 9, 1].into_iter(), |index| index == 3), Some(3));
        assert_eq!(best([3, 9].into_iter(), |_| false), None);
    }
}
