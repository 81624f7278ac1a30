//! The reconnect settings (F18), checked together once.

use std::time::Duration;

/// The longest wait is a day; `max_retries` ends the retries. The bound also keeps every sum of a time and a
/// delay inside what an `Instant` can hold.
const LONGEST_DELAY: Duration = Duration::from_secs(24 * 60 * 60);

/// When to dial again after a loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    max_retries: u32,
    initial_delay: Duration,
    max_delay: Duration,
    backoff_factor: f64,
    enable_jitter: bool,
    stable_after: Duration,
    stop_when_unauthenticated: bool,
}

/// Why settings were rejected.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Retries without a delay would flood the server.
    #[error("initial_delay must be longer than zero, for example 100ms")]
    ZeroDelay,
    /// The delay could not grow to its maximum.
    #[error(
        "max_delay ({max:?}) is shorter than initial_delay ({initial:?}): raise max_delay or lower initial_delay"
    )]
    MaxBelowInitial {
        /// The first delay.
        initial: Duration,
        /// The longest delay.
        max: Duration,
    },
    /// The longest delay is too long.
    #[error("max_delay ({max:?}) is longer than a day: shorten it")]
    MaxTooLong {
        /// The longest delay.
        max: Duration,
    },
    /// The factor is less than 1, or not finite.
    #[error("backoff_factor ({factor}) must be a finite number of at least 1, for example 2.0")]
    Factor {
        /// The rejected factor.
        factor: f64,
    },
}

impl Config {
    /// Checks the settings together. `max_retries` of 0 means no limit. By default `stable_after` is 5 s and refused
    /// credentials are retried slowly; [`with_stable_after`](Self::with_stable_after) and
    /// [`with_stop_when_unauthenticated`](Self::with_stop_when_unauthenticated) change that.
    ///
    /// # Errors
    /// [`ConfigError`] with the first invalid setting and its value.
    pub fn try_new(
        max_retries: u32,
        initial_delay: Duration,
        max_delay: Duration,
        backoff_factor: f64,
        enable_jitter: bool,
    ) -> Result<Self, ConfigError> {
        if initial_delay.is_zero() {
            return Err(ConfigError::ZeroDelay);
        }
        if max_delay < initial_delay {
            return Err(ConfigError::MaxBelowInitial {
                initial: initial_delay,
                max: max_delay,
            });
        }
        if max_delay > LONGEST_DELAY {
            return Err(ConfigError::MaxTooLong { max: max_delay });
        }
        if !backoff_factor.is_finite() || backoff_factor < 1.0 {
            return Err(ConfigError::Factor {
                factor: backoff_factor,
            });
        }
        Ok(Self {
            max_retries,
            initial_delay,
            max_delay,
            backoff_factor,
            enable_jitter,
            ..Self::default()
        })
    }

    /// How long a link must live before its loss counts as a new outage. A link that is lost sooner continues the
    /// outage before it, so that a server that accepts and drops links at once is not dialled at full speed. Zero:
    /// every link counts.
    #[must_use]
    pub fn with_stable_after(self, stable_after: Duration) -> Self {
        Self {
            stable_after,
            ..self
        }
    }

    /// Whether refused credentials end the attempts. By default they do not, because a server may be restarted with the
    /// right ones while the client runs unattended: the next try then comes after `max_delay` or more.
    #[must_use]
    pub fn with_stop_when_unauthenticated(self, stop: bool) -> Self {
        Self {
            stop_when_unauthenticated: stop,
            ..self
        }
    }

    /// The number of retries since the last stable link after which the machine stops; 0 sets no limit.
    #[must_use]
    pub fn max_retries(&self) -> u32 {
        self.max_retries
    }

    /// Upper bound of the delay of the first retry.
    #[must_use]
    pub fn initial_delay(&self) -> Duration {
        self.initial_delay
    }

    /// Upper bound of the delay of any retry, except after refused credentials.
    #[must_use]
    pub fn max_delay(&self) -> Duration {
        self.max_delay
    }

    /// The factor by which the longest delay grows from one retry to the next without jitter. With and without jitter,
    /// the longest delay is `initial_delay` plus (factor − 1) times the time that has been waited since the loss.
    #[must_use]
    pub fn backoff_factor(&self) -> f64 {
        self.backoff_factor
    }

    /// Whether delays are drawn between half of the growth of the longest delay and the longest delay; otherwise each
    /// is the longest one.
    #[must_use]
    pub fn enable_jitter(&self) -> bool {
        self.enable_jitter
    }

    /// How long a link must live for the delays to start from the beginning.
    #[must_use]
    pub fn stable_after(&self) -> Duration {
        self.stable_after
    }

    /// Whether refused credentials end the attempts.
    #[must_use]
    pub fn stop_when_unauthenticated(&self) -> bool {
        self.stop_when_unauthenticated
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_retries: 0,
            // A server that was killed is often up again within a second: the first retries must follow quickly.
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            backoff_factor: 2.0,
            enable_jitter: true,
            // A link that is lost every five seconds costs a server one handshake in that time, which it can afford.
            stable_after: Duration::from_secs(5),
            stop_when_unauthenticated: false,
        }
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_defaults_are_documented_and_valid() {
        let config = Config::default();
        assert_eq!(
            Ok(config.clone()),
            Config::try_new(0, 100 * MS, 30_000 * MS, 2.0, true)
        );
        assert_eq!(config.stable_after(), 5_000 * MS);
        assert!(!config.stop_when_unauthenticated());
    }

    #[test]
    fn accessors_return_what_was_given() {
        let config = Config::try_new(7, 3 * MS, 9 * MS, 1.5, false)
            .unwrap_or_default()
            .with_stable_after(4 * MS)
            .with_stop_when_unauthenticated(true);
        assert_eq!(config.max_retries(), 7);
        assert_eq!(config.initial_delay(), 3 * MS);
        assert_eq!(config.max_delay(), 9 * MS);
        assert!((config.backoff_factor() - 1.5).abs() < f64::EPSILON);
        assert!(!config.enable_jitter());
        assert_eq!(config.stable_after(), 4 * MS);
        assert!(config.stop_when_unauthenticated());
        assert!(Config::default().enable_jitter());
    }

    #[test]
    fn each_refusal_names_its_setting() {
        let refused = |initial, max, factor| Config::try_new(0, initial, max, factor, true).err();
        assert_eq!(
            refused(Duration::ZERO, MS, 2.0),
            Some(ConfigError::ZeroDelay)
        );
        assert_eq!(
            refused(2 * MS, MS, 2.0),
            Some(ConfigError::MaxBelowInitial {
                initial: 2 * MS,
                max: MS
            })
        );
        let too_long = LONGEST_DELAY + Duration::from_nanos(1);
        assert_eq!(
            refused(MS, too_long, 2.0),
            Some(ConfigError::MaxTooLong { max: too_long })
        );
        for factor in [0.99, 0.0, -2.0, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                refused(MS, MS, factor),
                Some(ConfigError::Factor { factor })
            );
        }
        assert!(matches!(
            refused(MS, MS, f64::NAN),
            Some(ConfigError::Factor { .. })
        ));
    }

    #[test]
    fn the_bounds_themselves_are_allowed() {
        assert_eq!(LONGEST_DELAY, Duration::from_secs(86_400));
        assert!(Config::try_new(0, Duration::from_nanos(1), LONGEST_DELAY, 1.0, true).is_ok());
        assert!(Config::try_new(0, LONGEST_DELAY, LONGEST_DELAY, f64::MAX, true).is_ok());
    }
}
