//! What a manager reports: for each name, and in numbers.

use std::time::SystemTime;

use crate::{
    name::CertName,
    schedule::{Environment, Reason},
};

/// The state of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The name does not have a certificate yet.
    Pending,
    /// The certificate is valid.
    Valid,
    /// The certificate has expired, and is served nevertheless until there is a new one.
    Expired,
    /// No certificate is ordered, whatever the schedule is: a wildcard name without dns-01, or an obstacle of the caller
    /// ([`Wanted::obstacle`](crate::Wanted::obstacle)).
    Unsupported,
}

/// The status of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameStatus {
    /// The name.
    pub name: CertName,
    /// The end of the certificate's validity, if there is a certificate.
    pub valid_until: Option<SystemTime>,
    /// Whether an order runs.
    pub ordering: bool,
    /// Whether a certificate may be ordered for the name.
    pub supported: bool,
    /// When the next order begins; in the past if it waits for others.
    pub next_attempt: Option<SystemTime>,
    /// Why it begins then.
    pub reason: Option<Reason>,
    /// Where it goes.
    pub environment: Environment,
    /// Failures since the last certificate.
    pub failures: u32,
    /// Why nothing is ordered, or how the last order failed, and what to change; `None` after a success.
    pub last_error: Option<String>,
}

impl NameStatus {
    /// The state at this time.
    #[must_use]
    pub fn state(&self, now: SystemTime) -> State {
        match self.valid_until {
            Some(until) if now < until => State::Valid,
            Some(_) => State::Expired,
            None if self.supported => State::Pending,
            None => State::Unsupported,
        }
    }
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Orders that began, at either CA.
    pub orders: u64,
    /// Certificates of the production CA.
    pub issued: u64,
    /// Orders that passed at the staging CA.
    pub staging_passed: u64,
    /// Orders that failed because the CA could not validate the name.
    pub failed_validation: u64,
    /// Orders that the CA refused.
    pub failed_refused: u64,
    /// Orders that failed because the CA did not respond or had an error.
    pub failed_unreachable: u64,
    /// Orders that the CA refused for their rate.
    pub failed_rate_limited: u64,
    /// Orders that failed on this machine.
    pub failed_local: u64,
    /// Orders that began because of a renewal window.
    pub renewals_by_window: u64,
    /// Orders that were repeated at once without `replaces`.
    pub replaces_refused: u64,
    /// Stored files that are damaged or could not be written.
    pub store_errors: u64,
    /// Names that were left out because there are too many.
    pub names_ignored: u64,
}
