//! How many retries are good for the service: a share of its requests, so that a failing group is not flooded (P-7.2).
//!
//! The idea is Finagle's `RetryBudget`.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Retries may be this share of the requests of a window, in percent.
const PERCENT: u64 = 20;
/// As many are always allowed: with few requests a share is nothing.
const AT_LEAST: u64 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Counts requests and retries of the window before this one and of this one. For a [`Director`](crate::Director), which
/// is asked before each retry.
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
    /// With nothing counted.
    pub const fn new(now: Instant) -> Self {
        Self {
            windows: Mutex::new(Windows {
                since: now,
                requests: [0; 2],
                retries: [0; 2],
            }),
        }
    }

    /// Counts a request; a retry is none.
    pub fn on_request(&self, now: Instant) {
        let mut windows = self.windows.lock();
        windows.turn(now);
        windows.requests[1] += 1;
    }

    /// Takes one retry, if there is one.
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
    /// Two half windows: what is older than both is forgotten.
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
    fn a_fifth_of_the_requests_may_be_retries() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        for _ in 0..1000 {
            budget.on_request(now);
        }
        let granted = (0..1000).filter(|_| budget.try_retry(now)).count();
        assert_eq!(granted, 200);
    }

    #[test]
    fn few_requests_may_be_retried_all() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        budget.on_request(now);
        let granted = (0..100).filter(|_| budget.try_retry(now)).count();
        assert_eq!(granted, 10);
    }

    #[test]
    fn what_is_old_is_forgotten() {
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
