//! The numbers of a schedule.

use std::time::Duration;

use thiserror::Error;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// At most so many events in a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The number of events.
    pub most: usize,
    /// The period, which ends now.
    pub period: Duration,
}

/// The time after which the CA is asked again for a renewal window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskAfter {
    /// If the CA names none.
    pub default: Duration,
    /// The shortest that a CA can name.
    pub shortest: Duration,
    /// The longest that a CA can name.
    pub longest: Duration,
}

/// The numbers of a schedule. The defaults stay below the limits of Let's Encrypt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The waits after failures.
    pub retries: Retries,
    /// Certificates for the same name. The CA allows 5 in 7 days; the default stops at 3.
    pub orders: Quota,
    /// Failed validations of the same name. The CA allows 5 in an hour; the default stops at 4.
    pub failed_validations: Quota,
    /// Orders of the account, for all names. The CA allows 300 in 3 hours; the default stops at 250.
    pub account_orders: Quota,
    /// Names of one owner that are ordered for the first time, such as the hosts of a user.
    pub owner_names: Quota,
    /// Names of one registered domain that are ordered for the first time. The CA allows 50 in 7 days; the default stops at
    /// 45.
    pub domain_names: Quota,
    /// Whether there is a staging CA.
    pub staging: bool,
    /// For so long a certificate is used before a renewal window replaces it, or for 1/24 of its lifetime if that is less.
    pub youngest: Duration,
    /// The time between two questions about the renewal window.
    pub ask_after: AskAfter,
    /// The longest `Retry-After` that is kept.
    pub longest_retry_after: Duration,
}

/// The waits after the first failure, the second and so on; the last one repeats. Up to a quarter is added at random.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries(Box<[Duration]>);

/// Waits that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RetriesError {
    /// There are no waits, or too many.
    #[error("expected 1 to 100 waits between retries, found {0}")]
    Number(usize),
    /// A wait is too short or too long.
    #[error("expected waits between retries from a millisecond to a week, found {0:?}")]
    Wait(Duration),
}

impl Retries {
    /// The waits, from the first failure on.
    ///
    /// # Errors
    /// [`RetriesError`].
    pub fn new(waits: &[Duration]) -> Result<Self, RetriesError> {
        if waits.is_empty() || waits.len() > 100 {
            return Err(RetriesError::Number(waits.len()));
        }
        let allowed = Duration::from_millis(1)..=7 * DAY;
        if let Some(wait) = waits.iter().find(|wait| !allowed.contains(*wait)) {
            return Err(RetriesError::Wait(*wait));
        }
        Ok(Self(waits.into()))
    }

    /// The waits.
    #[must_use]
    pub fn waits(&self) -> &[Duration] {
        &self.0
    }
}

impl Policy {
    /// The wait after one more failure than these.
    pub(crate) fn wait(&self, failures: u32, random: u64) -> Duration {
        let waits = self.retries.waits();
        let at = usize::try_from(failures).ok().and_then(|at| waits.get(at));
        let wait = at.or(waits.last()).copied().unwrap_or(HOUR);
        wait + part(wait / 4, random)
    }

    /// The longest wait that a failure causes.
    #[must_use]
    pub fn longest_wait(&self) -> Duration {
        let longest = self.retries.waits().iter().max().copied().unwrap_or(HOUR);
        { longest + longest / 4 }.max(self.longest_retry_after)
    }
}

impl Default for Policy {
    fn default() -> Self {
        let minutes = [1, 2, 2, 5, 10, 20, 20, 30, 30].map(|minutes| minutes * MINUTE);
        let hours = [1, 3, 6].map(|hours| hours * HOUR);
        Self {
            retries: Retries([&minutes[..], &hours[..]].concat().into()),
            orders: Quota {
                most: 3,
                period: 7 * DAY,
            },
            failed_validations: Quota {
                most: 4,
                period: HOUR,
            },
            account_orders: Quota {
                most: 250,
                period: 3 * HOUR,
            },
            owner_names: Quota {
                most: 100,
                period: 7 * DAY,
            },
            domain_names: Quota {
                most: 45,
                period: 7 * DAY,
            },
            staging: false,
            youngest: DAY,
            ask_after: AskAfter {
                default: 6 * HOUR,
                shortest: MINUTE,
                longest: DAY,
            },
            longest_retry_after: 7 * DAY,
        }
    }
}

/// A random part of a duration, from nothing to all of it.
pub(super) fn part(whole: Duration, random: u64) -> Duration {
    let nanos = (whole.as_nanos() * u128::from(random)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
