//! The time since the start of 1970.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time since the start of 1970. Advances evenly, even if the system's clock is set.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    at_start: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            started: Instant::now(),
            at_start: since.unwrap_or_default(),
        }
    }

    pub(super) fn at(&self, now: Instant) -> Duration {
        match now.checked_duration_since(self.started) {
            Some(after) => self.at_start + after,
            None => self
                .at_start
                .saturating_sub(self.started.saturating_duration_since(now)),
        }
    }
}
