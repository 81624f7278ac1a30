//! Repeatable random numbers.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): small, seeded,
/// the same on every machine. Not for secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Creates a generator from a seed, by which a run can be repeated.
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = bound.max(1) as u128;
        // The upper half of the product is evenly spread (Lemire, 2019); the bias is below 2^-32 for the bounds of tests.
        usize::try_from((u128::from(self.next_u64()) * bound) >> 64).unwrap_or(0)
    }

    /// A number from `from` up to and with `to`.
    pub fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from).saturating_add(1))
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Returns one of several values.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// Another generator, so that the numbers that one part of a test draws do not affect those of another part.
    pub fn split(&mut self) -> Self {
        Self(self.next_u64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_paper() {
        let mut rng = Rng::from_seed(1_234_567);
        let numbers: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn every_number_within_the_bounds_is_drawn_and_none_beside() {
        let mut rng = Rng::from_seed(7);
        let mut seen = [0; 4];
        for _ in 0..4000 {
            seen[rng.within(2, 5) - 2] += 1;
        }
        assert!(
            seen.iter().all(|&count| (850..1150).contains(&count)),
            "{seen:?}"
        );
        assert_eq!((rng.below(0), rng.below(1), rng.within(9, 9)), (0, 0, 9));
        assert_eq!(rng.pick::<u8>(&[]), None);
        let hits = (0..3000).filter(|_| rng.one_in(3)).count();
        assert!((900..1100).contains(&hits), "{hits}");
    }

    #[test]
    fn a_split_does_not_follow_its_source() {
        let mut one = Rng::from_seed(1);
        let mut split = one.split();
        assert_ne!(one.next_u64(), split.next_u64());
    }
}
