//! Which requests are traced.

use std::fmt;

use crate::context::{TraceContext, TraceId};

/// Follows the decision of the hop that began the trace; of the traces that begin here a share is recorded, chosen by
/// their ids (OpenTelemetry, `ParentBased(TraceIdRatioBased)`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampler {
    /// Ids whose lower 63 bits are below this are sampled.
    below: u64,
    follows_parent: bool,
}

/// The share is out of range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatioError(pub f64);

impl fmt::Display for RatioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "invalid share of requests {}, expected a number from 0 to 1",
            self.0
        )
    }
}

impl std::error::Error for RatioError {}

/// Number of bits of an id that decide.
const BITS: u32 = 63;

impl Sampler {
    /// Samples this share of the traces that begin here, from 0.0 to 1.0.
    ///
    /// # Errors
    /// Any other number.
    // The product is at most 2^63, and rounding changes the share by less than one trace in 2^52.
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
        Ok(Self {
            below,
            follows_parent: true,
        })
    }

    /// The id alone decides, also for requests with a trace context (OpenTelemetry, `TraceIdRatioBased`).
    #[must_use]
    pub const fn without_parent(self) -> Self {
        Self {
            follows_parent: false,
            ..self
        }
    }

    /// Whether a request of the trace `id` is recorded. `parent` is the trace context of the request, if it has one.
    #[allow(clippy::cast_possible_truncation)] // the lower half decides
    pub fn samples(self, parent: Option<TraceContext>, id: TraceId) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.sampled,
            _ => self.samples_new(id.0.get() as u64),
        }
    }

    /// Whether a trace that begins here is recorded. The lower half of its id decides, so that the upper half need not be
    /// drawn for a trace that is not recorded.
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
    fn without_the_parent_the_id_decides() {
        let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let parent: TraceContext = context.parse().unwrap();
        for (ratio, expected) in [(0.0, false), (1.0, true)] {
            let sampler = Sampler::ratio(ratio).unwrap().without_parent();
            assert_eq!(sampler.samples(Some(parent), parent.trace_id), expected);
        }
    }

    #[test]
    fn invalid_shares_are_rejected() {
        for ratio in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Sampler::ratio(ratio).is_err(), "{ratio}");
        }
    }
}
