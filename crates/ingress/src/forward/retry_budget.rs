//! Bounds retries to a share of the requests, so that they do not flood a failing group (P-7.2).
//!
//! The idea is Finagle's `RetryBudget`.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Retries may be this share of the requests of a window, in percent.
const PERCENT: u64 = 20;
/// This many retries are always allowed: the share of few requests would be zero.
const AT_LEAST: u64 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts the requests and retries of the last two half windows. For [`Director::may_retry`](crate::Director::may_retry).
#[derive(Debug)]
pub struct RetryBudget {
    windows: Mutex<Windows>,
}

#[derive(Debug)]
struct Windows {
    since: Instant,
    requests: [u64; 2],
    retries: [u64; 2],
}

impl RetryBudget {
    /// A budget without counts.
    pub const fn new(now: Instant) -> Self {
        Self {
            windows: Mutex::new(Windows {
                since: now,
                requests: [0; 2],
                retries: [0; 2],
            }),
        }
    }

    /// Counts a request. A retry is not counted as one.
    pub fn on_request(&self, now: Instant) {
        let mut windows = self.windows.lock();
        windows.turn(now);
        windows.requests[1] += 1;
    }

    /// Takes one retry from the budget. Returns whether there was one.
    pub fn try_retry(&self, now: Instant) -> bool {
        let mut windows = self.windows.lock();
        windows.turn(now);
        let requests: u64 = windows.requests.iter().sum();
        let retries: u64 = windows.retries.iter().sum();
        let allowed = retries < (requests * PERCENT / 100).max(AT_LEAST);
        windows.retries[1] += u64::from(allowed);
        allowed
    }
}

impl Windows {
    /// Starts a new half window when the current one is over; the older one is dropped.
    fn turn(&mut self, now: Instant) {
        let half = WINDOW / 2;
        let age = now.saturating_duration_since(self.since);
        if age < half {
            return;
        }
        let (requests, retries) = if age < WINDOW {
            (self.requests[1], self.retries[1])
        } else {
            (0, 0)
        };
        self.requests = [requests, 0];
        self.retries = [retries, 0];
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_at_most_a_fifth_of_the_requests() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        for _ in 0..1000 {
            budget.on_request(now);
        }
        let granted = (0..1000).filter(|_| budget.try_retry(now)).count();
        assert_eq!(granted, 200);
    }

    #[test]
    fn few_requests_may_all_be_retried() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        budget.on_request(now);
        let granted = (0..100).filter(|_| budget.try_retry(now)).count();
        assert_eq!(granted, 10);
    }

    #[test]
    fn requests_of_older_windows_do_not_count() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        for _ in 0..1000 {
            budget.on_request(now);
        }
        while budget.try_retry(now) {}
        assert!(
            !budget.try_retry(now + Duration::from_secs(6)),
            "the window before counts"
        );
        let later = now + Duration::from_secs(30);
        assert_eq!((0..100).filter(|_| budget.try_retry(later)).count(), 10);
    }
}
