//! How long to wait before the next retry.
//!
//! The longest wait depends on the time that has been waited in this outage, not on the number of retries. Without
//! jitter that is the usual exponential backoff, because the sum of its delays grows by the same factor as they do.
//! With jitter it is not. The "full jitter" of Marc Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog,
//! 2015), draws between zero and a delay that doubles with each retry: after a few small draws, the delay is much
//! longer than the outage so far. Here a client is connected again within about as long as the server was unreachable.
//! The time of slow dials and of links that are lost at once does not count as waited: it separates dials by itself.
//!
//! The wait is drawn between half of the growth of the longest wait and the longest wait. The first wait thus has full
//! jitter, which spreads clients that lost the same server at the same instant; later waits are long enough that a long
//! outage costs no more dials than with a delay by number of retries. `docs/decisions/0014-delays-by-time.md` has the
//! comparison.

use std::time::Duration;

use crate::Config;

/// The progress of an outage.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    /// Retries since the last stable link.
    retries: u32,
    /// The total wait before these retries, without the waits after refused credentials. A float: it can hold every sum
    /// of delays, exact to a nanosecond up to a hundred days.
    waited_nanos: f64,
}

/// The shortest and the longest wait before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    least_nanos: u64,
    longest_nanos: u64,
}

impl Backoff {
    pub(crate) const fn new() -> Self {
        Self {
            retries: 0,
            waited_nanos: 0.0,
        }
    }

    pub(crate) const fn retries(&self) -> u32 {
        self.retries
    }

    /// Counts one more retry and returns the wait before it.
    #[inline]
    pub(crate) fn advance(&mut self, config: &Config, random: u64) -> Duration {
        self.count();
        let span = self.span(config);
        let nanos = if config.enable_jitter() {
            span.draw(random)
        } else {
            span.longest_nanos
        };
        self.waited_nanos += nanos as f64;
        Duration::from_nanos(nanos)
    }

    /// Counts one more retry whose wait is not part of this schedule.
    pub(crate) fn count(&mut self) {
        self.retries = self.retries.saturating_add(1);
    }

    #[inline]
    fn span(&self, config: &Config) -> Span {
        let initial_nanos = nanos(config.initial_delay());
        // With a factor of 2, the longest wait grows by the time that has been waited. A value too large for the
        // integer saturates.
        let growth = (config.backoff_factor() - 1.0) * self.waited_nanos;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let growth_nanos = (growth as u64).min(nanos(config.max_delay()) - initial_nanos);
        Span {
            least_nanos: growth_nanos / 2,
            longest_nanos: initial_nanos + growth_nanos,
        }
    }
}

/// A random wait from zero to `longest`, which is at most a day.
pub(crate) fn full_jitter(longest: Duration, random: u64) -> Duration {
    let span = Span {
        least_nanos: 0,
        longest_nanos: nanos(longest),
    };
    Duration::from_nanos(span.draw(random))
}

/// The nanoseconds of a duration that settings allow: at most a day.
#[inline]
const fn nanos(duration: Duration) -> u64 {
    duration.as_secs() * 1_000_000_000 + duration.subsec_nanos() as u64
}

impl Span {
    /// A random wait of the span, both ends included. `random` is scaled to the width of the span by the high word of a
    /// product (Lemire, "Fast Random Integer Generation in an Interval", 2019), without his rejection step, whose bias
    /// is far below a nanosecond here.
    #[inline]
    fn draw(self, random: u64) -> u64 {
        let width = u128::from(self.longest_nanos - self.least_nanos) + 1;
        let drawn = (u128::from(random) * width) >> u64::BITS;
        #[allow(clippy::cast_possible_truncation)] // less than the width, which is a day at most
        let drawn = drawn as u64;
        self.least_nanos + drawn
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn waits(config: &Config, retries: usize, random: u64) -> Vec<Duration> {
        let mut backoff = Backoff::new();
        (0..retries)
            .map(|_| backoff.advance(config, random))
            .collect()
    }

    #[test]
    fn without_jitter_it_is_exponential_backoff() -> Result<(), crate::ConfigError> {
        let config = Config::try_new(0, 100 * MS, 30_000 * MS, 2.0, false)?;
        let expected = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000,
        ];
        assert_eq!(waits(&config, 11, 0), expected.map(|millis| millis * MS));
        Ok(())
    }

    #[test]
    fn the_longest_wait_follows_the_time_and_not_the_retries() {
        let config = Config::default();
        let mut backoff = Backoff::new();
        for retry in 1..=20 {
            // Waits of zero leave the longest wait unchanged.
            assert_eq!(backoff.advance(&config, 0), Duration::ZERO);
            assert_eq!(backoff.retries(), retry);
        }
        backoff.waited_nanos = 5e9;
        let at = |random| backoff.clone().advance(&config, random);
        assert_eq!((at(0), at(u64::MAX)), (2_500 * MS, 5_100 * MS));
        backoff.waited_nanos = 1e18;
        let at = |random| backoff.clone().advance(&config, random);
        assert_eq!((at(0), at(u64::MAX)), (14_950 * MS, 30_000 * MS));
        // A wait after refused credentials counts as a retry, but not as time.
        let mut backoff = Backoff::new();
        backoff.count();
        assert_eq!(backoff.retries(), 1);
        assert_eq!(backoff.advance(&config, u64::MAX), 100 * MS);
    }

    #[test]
    fn the_factor_grows_the_delay_up_to_its_maximum() -> Result<(), crate::ConfigError> {
        let still = Config::try_new(0, 7 * MS, 9 * MS, 1.0, false)?;
        assert_eq!(waits(&still, 3, 0), [7 * MS; 3]);
        let huge = Config::try_new(0, 7 * MS, 9 * MS, f64::MAX, false)?;
        assert_eq!(waits(&huge, 3, 0), [7 * MS, 9 * MS, 9 * MS]);
        Ok(())
    }

    #[test]
    fn growth_below_a_nanosecond_is_not_lost() -> Result<(), crate::ConfigError> {
        let config = Config::try_new(0, Duration::from_nanos(1), MS, 1.2, false)?;
        assert_eq!(waits(&config, 100, 0).last(), Some(&MS));
        Ok(())
    }

    #[test]
    fn a_draw_covers_the_whole_span_evenly() {
        assert_eq!(full_jitter(100 * MS, 0), Duration::ZERO);
        assert_eq!(full_jitter(100 * MS, u64::MAX), 100 * MS);
        assert_eq!(full_jitter(100 * MS, 1 << 63), 50 * MS);
        assert_eq!(full_jitter(100 * MS, 1 << 62), 25 * MS);
        assert_eq!(full_jitter(Duration::ZERO, u64::MAX), Duration::ZERO);
        let span = Span {
            least_nanos: 60,
            longest_nanos: 99,
        };
        assert_eq!([0, 1 << 63, u64::MAX].map(|at| span.draw(at)), [60, 80, 99]);
    }
}
