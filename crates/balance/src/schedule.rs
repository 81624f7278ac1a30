//! The order of turns of one period, worked out when members change.
//!
//! nginx keeps a running weight per peer and finds the next peer by a scan
//! under a lock. Its order repeats with a period of the sum of the weights, so
//! we run it once at build; a turn is then one atomic step along the period.

/// The longest period that is kept exactly. Beyond it weights are scaled down
/// to about this sum: it bounds the memory of a period and the time to build
/// it, and a share is still right to one part in two thousand.
const LONGEST_EXACT: u64 = 2_048;

/// Whose turn it is, for any ticket.
#[derive(Debug)]
pub(crate) enum Schedule {
    /// Every member once, in order.
    Even { members: usize },
    /// Member indices in the order of their turns.
    Weighted { turns: Box<[usize]> },
}

impl Schedule {
    /// Every member once in a period.
    pub(crate) fn even(members: usize) -> Self {
        Self::Even { members }
    }

    /// Every member as often in a period as its weight, over the weights'
    /// common divisor, says.
    pub(crate) fn weighted(weights: &[u32]) -> Self {
        let weights = reduced(weights);
        if weights.iter().all(|&weight| weight == 1) {
            return Self::even(weights.len());
        }
        Self::Weighted {
            turns: smooth(&weights),
        }
    }

    /// The member whose turn `ticket` is; 0 when there are none.
    pub(crate) fn member_at(&self, ticket: usize) -> usize {
        match self {
            Self::Even { members } => ticket.checked_rem(*members).unwrap_or(0),
            Self::Weighted { turns } => ticket
                .checked_rem(turns.len())
                .and_then(|turn| turns.get(turn).copied())
                .unwrap_or(0),
        }
    }
}

/// The same proportions in the smallest numbers, their sum bounded.
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

/// One period of nginx's smooth weighted round robin: at each turn everybody
/// gains his weight, the richest goes (the first of equals) and pays the total.
fn smooth(weights: &[u64]) -> Box<[usize]> {
    let total: u64 = weights.iter().sum();
    // Signed, because whoever just went is below zero.
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
        turns.push(richest);
    }
    turns.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(weights: &[u32], count: usize) -> Vec<usize> {
        let schedule = Schedule::weighted(weights);
        (0..count)
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
        assert!(matches!(
            Schedule::weighted(&[7, 7, 7]),
            Schedule::Even { members: 3 }
        ));
        assert_eq!(turns(&[7, 7, 7], 4), [0, 1, 2, 0]);
    }

    #[test]
    fn a_long_period_is_scaled_and_nobody_is_forgotten() {
        assert_eq!(reduced(&[2_047, 1]), [2_047, 1]);
        assert_eq!(reduced(&[2_048, 1]), [2_047, 1]);
        assert_eq!(reduced(&[u32::MAX, 1]), [2_047, 1]);
        assert_eq!(reduced(&[30_001, 10_000]), [1_536, 511]);
        assert_eq!(reduced(&[12, 18]), [2, 3]);
    }

    #[test]
    fn no_members_have_no_turns() {
        assert_eq!(Schedule::even(0).member_at(3), 0);
        assert_eq!(Schedule::weighted(&[]).member_at(3), 0);
    }
}
