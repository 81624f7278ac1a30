//! The load of members relative to their weights, compared without a division.

use crate::Member;

/// The load that one request adds to each member: a common multiple of all weights divided by the member's weight.
///
/// These are the smallest whole numbers whose ratios are the inverse ratios of the weights. If they do not fit, they
/// are scaled to the largest number that does, with a relative error of about the member's weight over the lightest
/// weight times 2^-24.
pub(crate) fn scales(weights: &[u32]) -> impl Iterator<Item = u32> {
    /// With this bound a sum of loads cannot overflow: that would take more guards than fit into eight tebibytes.
    const LARGEST: u64 = (1 << 24) - 1;
    let lightest = weights.iter().copied().min().map_or(1, u64::from);
    let multiple = weights
        .iter()
        .try_fold(1, |multiple, &weight| lcm(multiple, u64::from(weight)))
        .filter(|multiple| multiple / lightest <= LARGEST)
        .unwrap_or(LARGEST * lightest);
    weights.iter().map(move |&weight| {
        let scale = multiple / u64::from(weight);
        // The result is not 0, which is the load of an idle member.
        u32::try_from(scale).unwrap_or(u32::MAX).max(1)
    })
}

/// The least common multiple, if it fits.
fn lcm(a: u64, b: u64) -> Option<u64> {
    let (mut divisor, mut rest) = (a, b);
    while rest != 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    (a / divisor).checked_mul(b)
}

/// The member that would be less loaded with one more request. To count that request prefers the heavier of two idle
/// members. Among equal members the first is chosen.
pub(crate) fn less_filled<'a, Id>(first: &'a Member<Id>, second: &'a Member<Id>) -> &'a Member<Id> {
    // The loads are multiplied instead of divided, in a type that is wide enough not to overflow.
    let fill = |one: &Member<Id>, other: &Member<Id>| {
        (one.load().in_flight() as u128 + 1) * u128::from(other.weight())
    };
    if fill(second, first) < fill(first, second) {
        second
    } else {
        first
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use proptest::prelude::*;

    fn scales(weights: &[u32]) -> Vec<u32> {
        super::scales(weights).collect()
    }

    #[test]
    fn scales_are_the_smallest_that_are_exact() {
        assert_eq!(scales(&[]), []);
        assert_eq!(scales(&[7]), [1]);
        assert_eq!(scales(&[5, 5, 5]), [1, 1, 1]);
        assert_eq!(scales(&[1, 2, 3, 4]), [12, 6, 4, 3]);
        assert_eq!(scales(&[300, 100]), [1, 3]);
        assert_eq!(scales(&[(1 << 24) - 1, 1]), [1, (1 << 24) - 1]);
    }

    #[test]
    fn scales_that_do_not_fit_are_near() {
        // The weights are three primes.
        let weights = [1_000_003, 1_000_033, 1_000_037];
        for (scale, weight) in scales(&weights).into_iter().zip(weights) {
            let due = f64::from((1 << 24) - 1) * f64::from(weights[0]) / f64::from(weight);
            assert!(
                (f64::from(scale) - due).abs() <= 1.0,
                "{scale} for {weight}"
            );
        }
        assert_eq!(scales(&[u32::MAX, u32::MAX - 1, 1]), [1, 1, (1 << 24) - 1]);
    }

    proptest! {
        /// Any two loads compare as their fractions do.
        #[test]
        fn fills_compare_as_fractions(
            weights in prop::collection::vec(1_u32..60, 2..4),
            loads in prop::collection::vec(0_u32..1_000, 2),
        ) {
            let scales = scales(&weights);
            let fills = (loads[0] * scales[0]).cmp(&(loads[1] * scales[1]));
            let crosswise = (loads[0] * weights[1]).cmp(&(loads[1] * weights[0]));
            prop_assert_eq!(fills, crosswise);
        }
    }
}
