//! Which requests are traced.

use std::fmt;

use crate::context::{TraceContext, TraceId};

/// Follows the decision of whoever began the trace; of the traces that begin here a share is recorded, chosen by their
/// ids (OpenTelemetry, `ParentBased(TraceIdRatioBased)`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Ids whose lower 63 bits are below this are sampled.
    below: u64,
}

/// The share is none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioError(pub f64);

impl fmt::Display for RatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a share of requests is a number from 0 to 1, not {}",
            self.0
        )
    }
}

impl std::error::Error for RatioError {}

/// Bits of an id that decide.
const BITS: u32 = 63;

impl Sampler {
    /// Samples this share of the traces that begin here, from 0.0 to 1.0.
    ///
    /// # Errors
    /// Any other number.
    // The product is at most 2^63, and a part of a trace lost to rounding is none that anybody misses.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss
    )]
    pub fn ratio(ratio: f64) -> Result<Self, RatioError> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(RatioError(ratio));
        }
        let below = (ratio * (1_u64 << BITS) as f64) as u64;
        Ok(Self { below })
    }

    /// Whether a request is traced whose visitor sent `parent`, and which begins the trace `id` where there is none.
    #[allow(clippy::cast_possible_truncation)] // the lower half decides
    pub fn samples(self, parent: Option<TraceContext>, id: TraceId) -> bool {
        parent.map_or_else(
            || self.samples_new(id.0.get() as u64),
            |parent| parent.sampled,
        )
    }

    /// Whether a trace is recorded that begins here, by the lower half of its id: the other half of one that is not need
    /// not be drawn.
    pub const fn samples_new(self, lower_half: u64) -> bool {
        const MASK: u64 = (1 << BITS) - 1;
        lower_half & MASK < self.below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(ratio: f64) -> usize {
        let sampler = Sampler::ratio(ratio).unwrap();
        // Ids spread evenly (Weyl, with the golden ratio).
        let ids = (1..=10_000_u128).map(|n| TraceId::from_random(n * 0x9e37_79b9_7f4a_7c15));
        ids.filter(|id| sampler.samples(None, *id)).count()
    }

    #[test]
    fn a_share_is_sampled() {
        assert_eq!(share(0.0), 0);
        assert_eq!(share(1.0), 10_000);
        assert!((90..=110).contains(&share(0.01)), "{}", share(0.01));
        assert!((4_900..=5_100).contains(&share(0.5)), "{}", share(0.5));
    }

    #[test]
    fn the_parent_decides() {
        let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let sampled: TraceContext = context.parse().unwrap();
        let not = TraceContext {
            sampled: false,
            ..sampled
        };
        for ratio in [0.0, 1.0] {
            let sampler = Sampler::ratio(ratio).unwrap();
            assert!(sampler.samples(Some(sampled), sampled.trace_id));
            assert!(!sampler.samples(Some(not), not.trace_id));
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Sampler::ratio(ratio).is_err(), "{ratio}");
        }
    }
}
