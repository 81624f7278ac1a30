//! The order of turns of one period, computed when members change.
//!
//! nginx keeps a running weight per peer and finds the next peer by a scan under a lock. Its order repeats with a
//! period of the sum of the weights, so it is computed once when the balancer is built; a turn is then one atomic
//! increment.

/// The longest period that is kept exactly. Above it weights are scaled down to about this sum, which bounds the memory
/// and the construction time of a period; shares are still exact to one part in two thousand.
const LONGEST_EXACT: u64 = 2_048;

/// The member for each ticket.
#[derive(Debug)]
pub(crate) struct Schedule {
    /// Number of turns before the order repeats; 1 without members.
    period: u32,
    /// 2^64 divided by the period, rounded up, modulo 2^64: a remainder is found with two multiplications by it instead
    /// of a division (Lemire, Kaser and Kurz, 2019), which holds for 32 bits.
    inverse: u64,
    /// Member indices in the order of their turns; empty when every member
    /// comes once, in order, so that the turn is the index.
    turns: Box<[u32]>,
}

impl Schedule {
    /// A period with each member once.
    pub(crate) fn even(members: usize) -> Self {
        Self::of(members, Box::default())
    }

    /// A period in which each member appears as often as its weight, divided by the weights' common divisor.
    pub(crate) fn weighted(weights: &[u32]) -> Self {
        let weights = reduced(weights);
        if weights.iter().all(|&weight| weight == 1) {
            return Self::even(weights.len());
        }
        let turns = smooth(&weights);
        Self::of(turns.len(), turns)
    }

    fn of(period: usize, turns: Box<[u32]>) -> Self {
        let period = u32::try_from(period).unwrap_or(u32::MAX).max(1);
        Self {
            period,
            inverse: (u64::MAX / u64::from(period)).wrapping_add(1),
            turns,
        }
    }

    /// The member whose turn `ticket` is, by its lower 32 bits: after 2^32 tickets the order starts over. 0 without
    /// members.
    #[inline]
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the lower bits are meant, and a turn is below the period"
    )]
    pub(crate) fn member_at(&self, ticket: u64) -> usize {
        let part = self.inverse.wrapping_mul(u64::from(ticket as u32));
        let turn = ((u128::from(part) * u128::from(self.period)) >> 64) as usize;
        self.turns.get(turn).map_or(turn, |&member| member as usize)
    }
}

/// The smallest weights with the proportions of `weights`; the proportions are approximate where the sum would exceed
/// [`LONGEST_EXACT`].
fn reduced(weights: &[u32]) -> Vec<u64> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, &weight| gcd(divisor, u64::from(weight)))
        .max(1);
    let mut small: Vec<u64> = weights
        .iter()
        .map(|&weight| u64::from(weight) / divisor)
        .collect();
    let total: u64 = small.iter().sum();
    if total > LONGEST_EXACT {
        // Both factors are below 2^32, so the product fits.
        for weight in &mut small {
            *weight = (*weight * LONGEST_EXACT / total).max(1);
        }
    }
    small
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// One period of nginx's smooth weighted round robin: at each turn every
/// member gains its weight; the one with the most (the first of equals) is
/// chosen and loses the total.
fn smooth(weights: &[u64]) -> Box<[u32]> {
    let total: u64 = weights.iter().sum();
    // The total is signed, because the gain of the member that was chosen last is below zero.
    let total = i64::try_from(total).unwrap_or(i64::MAX);
    let gains: Vec<i64> = weights
        .iter()
        .map(|&weight| i64::try_from(weight).unwrap_or(i64::MAX))
        .collect();
    let mut riches = vec![0_i64; weights.len()];
    let mut turns = Vec::new();
    for _ in 0..total {
        let mut richest = 0;
        let mut best = i64::MIN;
        for (index, (rich, gain)) in riches.iter_mut().zip(&gains).enumerate() {
            *rich += gain;
            if *rich > best {
                best = *rich;
                richest = index;
            }
        }
        if let Some(rich) = riches.get_mut(richest) {
            *rich -= total;
        }
        // An index that does not fit would select no member, and its turn would be skipped.
        turns.push(u32::try_from(richest).unwrap_or(u32::MAX));
    }
    turns.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let schedule = Schedule::weighted(weights);
        (0..count as u64)
            .map(|ticket| schedule.member_at(ticket))
            .collect()
    }

    #[test]
    fn the_order_is_that_of_nginx() {
        // The example of nginx commit 52327e0627f4: a a b a c a a.
        assert_eq!(turns(&[5, 1, 1], 8), [0, 0, 1, 0, 2, 0, 0, 0]);
        assert_eq!(turns(&[1, 2], 6), [1, 0, 1, 1, 0, 1]);
    }

    #[test]
    fn a_common_divisor_shortens_the_period() {
        assert_eq!(turns(&[500, 100, 100], 7), turns(&[5, 1, 1], 7));
        let level = Schedule::weighted(&[7, 7, 7]);
        assert_eq!((level.period, level.turns.len()), (3, 0));
        assert_eq!(turns(&[7, 7, 7], 4), [0, 1, 2, 0]);
    }

    #[test]
    fn a_long_period_is_scaled_with_every_member() {
        assert_eq!(reduced(&[2_047, 1]), [2_047, 1]);
        assert_eq!(reduced(&[2_048, 1]), [2_047, 1]);
        assert_eq!(reduced(&[u32::MAX, 1]), [2_047, 1]);
        assert_eq!(reduced(&[30_001, 10_000]), [1_536, 511]);
        assert_eq!(reduced(&[12, 18]), [2, 3]);
    }

    #[test]
    fn a_turn_is_the_remainder_of_the_ticket() {
        let periods = [
            1,
            2,
            3,
            7,
            64,
            641,
            65_537,
            2_147_483_648,
            4_294_967_295_usize,
        ];
        for period in periods {
            let schedule = Schedule::even(period);
            let near = [0, 1, period as u64, u64::from(u32::MAX)];
            for ticket in near.into_iter().flat_map(|to| [to.saturating_sub(1), to]) {
                assert_eq!(schedule.member_at(ticket) as u64, ticket % period as u64);
                assert_eq!(
                    schedule.member_at(ticket),
                    schedule.member_at(ticket | 1 << 32)
                );
            }
        }
    }

    #[test]
    fn no_members_have_no_turns() {
        assert_eq!(Schedule::even(0).member_at(3), 0);
        assert_eq!(Schedule::weighted(&[]).member_at(3), 0);
    }
}
