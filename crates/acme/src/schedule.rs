//! When a certificate of one name is ordered or renewed: a state machine without a clock and without input or output.
//!
//! The caller asks [`Schedule::next_order`] for the next order and [`Schedule::next_question`] for the next question about
//! the renewal window (ARI, RFC 9773), performs them, and reports what came of them. `now` and random bits are arguments.
//!
//! Promises:
//! - a certificate is renewed at a random time of the CA's window, or after two thirds of its lifetime, whichever is
//!   earlier; a window that lies in the past is obeyed at once;
//! - a window never causes a loop of orders: it applies to the certificate that it was asked for, one that ended before
//!   this certificate began is ignored, and a certificate is used for some time before a window replaces it;
//! - after a failure the next order waits, from a minute to hours, and the wait survives a restart;
//! - once the production CA has refused an order, orders go to the staging CA until one passes, then one goes to
//!   production at once;
//! - at most [`Policy::orders`] certificates of one name may be issued in a period, whatever happens, and at most
//!   [`Policy::failed_validations`] validations fail;
//! - a time that the CA names (`Retry-After`) is kept.
//!
//! Proof: `tests/schedule.rs`.

mod next_order;
mod pace;
mod policy;
mod record;
mod renewal;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

pub use next_order::{Environment, NextOrder, Reason};
pub use pace::Pace;
pub use policy::{AskAfter, Policy, Quota, Retries, RetriesError};
pub use record::Record;
pub use renewal::{Lifetime, Window};

use renewal::Renewal;

/// How an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The cause.
    pub cause: Cause,
    /// Whether the CA may have issued a certificate nevertheless: the order was to be finalized.
    pub may_have_issued: bool,
}

/// Why an order failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The CA did not respond, or had an error of its own.
    Unreachable,
    /// The CA accepts no order before this time, if it has named one.
    RateLimited {
        /// The time of `Retry-After`.
        until: Option<SystemTime>,
    },
    /// The CA refused the order.
    Refused,
    /// The CA could not validate the name.
    Validation,
    /// Something of this machine failed: a command, a name server, a disk.
    Local,
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The CA issued a certificate. That of a staging CA shows only that the order passes.
    Issued(Lifetime),
    /// The order failed.
    Failed(Failure),
    /// The order was given up before its end, such as at a shutdown.
    Abandoned {
        /// As in [`Failure`].
        may_have_issued: bool,
    },
}

/// The schedule of one name.
#[derive(Debug, Clone)]
pub struct Schedule {
    policy: Arc<Policy>,
    record: Record,
    renewal: Option<Renewal>,
    /// Where the order that runs went, and when it began.
    running: Option<(Environment, SystemTime)>,
}

impl Schedule {
    /// A schedule without a certificate, with what is known of earlier orders.
    #[must_use]
    pub fn new(policy: Arc<Policy>, mut record: Record) -> Self {
        if !policy.staging {
            record.environment = Environment::Production;
        }
        Self {
            policy,
            record,
            renewal: None,
            running: None,
        }
    }

    /// Takes a stored certificate into account. `random` is 64 random bits, for the jitter of its renewal.
    pub fn on_certificate(&mut self, lifetime: Lifetime, random: u64) {
        self.renewal = Some(Renewal::new(lifetime, self.policy.youngest, random));
    }

    /// What survives a restart.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Whether an order runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The lifetime of the certificate.
    #[must_use]
    pub fn lifetime(&self) -> Option<Lifetime> {
        self.renewal.as_ref().map(Renewal::lifetime)
    }

    /// When the certificate is to be renewed, and whether the CA's window decides it.
    #[must_use]
    pub fn renew_at(&self) -> Option<SystemTime> {
        self.renewal.as_ref().map(|renewal| renewal.at().0)
    }

    /// How many certificates of the name may be issued in [`Policy::orders`]' period: as many as a certificate with this
    /// lifetime needs, but no less than the policy has.
    #[must_use]
    pub fn allowed_orders(&self) -> usize {
        let Quota { most, period } = self.policy.orders;
        let needed = self
            .renewal
            .as_ref()
            .map_or(0, |renewal| renewal.needed_in(period));
        most.max(needed)
    }

    /// The orders of the last period that have, or may have, led to a certificate.
    #[must_use]
    pub fn counted_orders(&self, now: SystemTime) -> usize {
        record::within(&self.record.orders, self.policy.orders.period, now).count()
    }

    /// The next order; `None` while one runs.
    #[must_use]
    pub fn next_order(&self, now: SystemTime) -> Option<NextOrder> {
        if self.running.is_some() {
            return None;
        }
        let (at, reason) = match &self.renewal {
            None => (now, Reason::Missing),
            Some(renewal) => renewal.at(),
        };
        let environment = self.record.environment;
        let mut next = NextOrder {
            at,
            environment,
            reason,
        };
        let mut not_before = |at: Option<SystemTime>, reason| {
            if let Some(at) = at.filter(|at| *at > next.at && *at > now) {
                (next.at, next.reason) = (at, reason);
            }
        };
        not_before(self.retry_at(now), Reason::Retry);
        if environment == Environment::Production {
            let failed = self.policy.failed_validations;
            let free = record::free_at(&self.record.failed_validations, failed, now);
            not_before(free, Reason::FailedValidations);
            let orders = Quota {
                most: self.allowed_orders(),
                ..self.policy.orders
            };
            let free = record::free_at(&self.record.orders, orders, now);
            not_before(free, Reason::Orders);
        }
        Some(next)
    }

    /// The end of the wait after a failure. One that no policy causes is ignored: the clock was wrong when it was recorded.
    fn retry_at(&self, now: SystemTime) -> Option<SystemTime> {
        let longest = self.policy.longest_wait();
        { self.record.not_before }.filter(|at| *at <= now + longest)
    }

    /// When the CA is to be asked for the renewal window of the certificate; `None` without a valid certificate, or while
    /// an order runs.
    #[must_use]
    pub fn next_question(&self, now: SystemTime) -> Option<SystemTime> {
        if self.running.is_some() {
            return None;
        }
        let renewal = self.renewal.as_ref()?;
        renewal
            .ask_at()
            .filter(|_| now < renewal.lifetime().expires)
    }

    /// An order begins: it is counted from now on. Store [`record`](Self::record) before the CA receives the order, so that
    /// one that a crash ends is counted.
    pub fn on_started(&mut self, now: SystemTime) -> Environment {
        let environment = self.record.environment;
        self.running = Some((environment, now));
        if environment == Environment::Production {
            record::prune(&mut self.record.orders, self.policy.orders.period, now);
            record::add(&mut self.record.orders, now);
        }
        environment
    }

    /// The staging CA accepts no orders for a time: the next order goes to production.
    pub fn on_staging_paused(&mut self) {
        self.record.environment = Environment::Production;
    }

    /// The order ended. `random` is 64 random bits.
    pub fn on_outcome(&mut self, outcome: Outcome, now: SystemTime, random: u64) {
        let Some((environment, started)) = self.running.take() else {
            return;
        };
        let issued = match outcome {
            Outcome::Issued(_) => true,
            Outcome::Failed(failure) => failure.may_have_issued,
            Outcome::Abandoned { may_have_issued } => may_have_issued,
        };
        if !issued {
            let orders = &mut self.record.orders;
            if let Some(at) = orders.iter().rposition(|order| *order == started) {
                orders.remove(at);
            }
        }
        match outcome {
            Outcome::Issued(lifetime) if environment == Environment::Production => {
                self.record.failures = 0;
                self.record.not_before = None;
                self.on_certificate(lifetime, random);
            }
            Outcome::Issued(_) => {
                // Production once, and at once. The failures stay: if this order fails too, the waits go on growing.
                self.record.environment = Environment::Production;
                self.record.not_before = None;
            }
            Outcome::Failed(failure) => self.on_failure(failure.cause, environment, now, random),
            Outcome::Abandoned { .. } => {}
        }
    }

    fn on_failure(&mut self, cause: Cause, at: Environment, now: SystemTime, random: u64) {
        let record = &mut self.record;
        let wait = self.policy.wait(record.failures, random);
        record.failures = record.failures.saturating_add(1);
        let mut not_before = now + wait;
        // A time that the staging CA names is for the next order there, and the next one goes to production.
        if let Cause::RateLimited { until: Some(until) } = cause
            && at == Environment::Production
        {
            let until = until.min(now + self.policy.longest_wait());
            not_before = not_before.max(until);
        }
        record.not_before = Some(not_before);
        record.environment = match cause {
            Cause::Refused | Cause::Validation if self.policy.staging => Environment::Staging,
            // A staging CA that is away or busy shows nothing about the order. The quotas protect production.
            Cause::Unreachable | Cause::RateLimited { .. } => Environment::Production,
            _ => at,
        };
        if cause == Cause::Validation && at == Environment::Production {
            let period = self.policy.failed_validations.period;
            record::prune(&mut record.failed_validations, period, now);
            record::add(&mut record.failed_validations, now);
        }
    }

    /// The CA responded to the question about the renewal window, with the time after which to ask again; `None` if it has
    /// no window, or did not respond. `random` is 64 random bits.
    pub fn on_window(
        &mut self,
        window: Option<Window>,
        ask_after: Option<Duration>,
        now: SystemTime,
        random: u64,
    ) {
        let after = ask_after.unwrap_or(self.policy.ask_after.default);
        let bounds = self.policy.ask_after;
        let after = after.clamp(bounds.shortest, bounds.longest);
        if let Some(renewal) = &mut self.renewal {
            renewal.on_window(window, now + after, random);
        }
    }
}
