//! How long to wait before the next retry.
//!
//! The delay is drawn evenly between zero and a ceiling that grows with each retry: "full jitter" of Marc Brooker,
//! "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015), which spreads clients that lost the same server at the
//! same instant better than a delay with a little noise, and costs the server the fewest calls.

use std::time::Duration;

use crate::Config;

/// Where an outage stands.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    /// Retries since the last stable link.
    retries: u32,
    /// Ceiling of the next retry in seconds. A float, because rounding to nanoseconds at each step would hold a slow
    /// growth in place; multiplied step by step, because a product with a factor of at least one never falls.
    ceiling: f64,
}

impl Backoff {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            retries: 0,
            ceiling: config.initial_delay().as_secs_f64(),
        }
    }

    pub(crate) fn retries(&self) -> u32 {
        self.retries
    }

    /// Counts one more retry and returns the longest delay before it.
    pub(crate) fn advance(&mut self, config: &Config) -> Duration {
        let longest = config.max_delay();
        let ceiling = Duration::from_secs_f64(self.ceiling).min(longest);
        self.ceiling = (self.ceiling * config.backoff_factor()).min(longest.as_secs_f64());
        self.retries = self.retries.saturating_add(1);
        ceiling
    }
}

/// A delay between zero and `ceiling`, both included, by the place of `random` among all 64-bit words: the product's high
/// word (Lemire, "Fast Random Integer Generation in an Interval", 2019), without his rejection step, whose bias is far
/// below a nanosecond here.
pub(crate) fn full_jitter(ceiling: Duration, random: u64) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    let drawn = (u128::from(random) * (u128::from(nanos) + 1)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(nanos))
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_ceiling_doubles_from_the_first_delay_to_the_longest() {
        let config = Config::default();
        let mut backoff = Backoff::new(&config);
        let ceilings: Vec<_> = (0..11)
            .map(|_| backoff.advance(&config).as_millis())
            .collect();
        assert_eq!(
            ceilings,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(backoff.retries(), 11);
    }

    #[test]
    fn a_factor_of_one_holds_still_and_a_huge_one_stops_at_the_longest()
    -> Result<(), crate::ConfigError> {
        let still = Config::try_new(0, 7 * MS, 9 * MS, 1.0, false)?;
        let mut backoff = Backoff::new(&still);
        assert_eq!(backoff.advance(&still), 7 * MS);
        assert_eq!(backoff.advance(&still), 7 * MS);
        let huge = Config::try_new(0, 7 * MS, 9 * MS, f64::MAX, false)?;
        let mut backoff = Backoff::new(&huge);
        assert_eq!(backoff.advance(&huge), 7 * MS);
        assert_eq!(backoff.advance(&huge), 9 * MS);
        assert_eq!(backoff.advance(&huge), 9 * MS);
        Ok(())
    }

    #[test]
    fn growth_below_a_nanosecond_is_not_lost() -> Result<(), crate::ConfigError> {
        let config = Config::try_new(0, Duration::from_nanos(1), MS, 1.2, false)?;
        let mut backoff = Backoff::new(&config);
        let last = (0..100).map(|_| backoff.advance(&config)).last();
        assert_eq!(last, Some(MS));
        Ok(())
    }

    #[test]
    fn jitter_covers_the_whole_range_evenly() {
        assert_eq!(full_jitter(100 * MS, 0), Duration::ZERO);
        assert_eq!(full_jitter(100 * MS, u64::MAX), 100 * MS);
        assert_eq!(full_jitter(100 * MS, 1 << 63), 50 * MS);
        assert_eq!(full_jitter(100 * MS, 1 << 62), 25 * MS);
        assert_eq!(full_jitter(Duration::ZERO, u64::MAX), Duration::ZERO);
    }
}
