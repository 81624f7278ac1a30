//! Virtual time, moved by the test.

use std::time::{Duration, Instant};

/// Virtual time. The machines under test take an [`Instant`]; this clock starts at the real time and changes only by
/// calls.
#[derive(Debug, Clone)]
pub struct Clock {
    start: Instant,
    since: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Creates a clock at zero.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            since: Duration::ZERO,
        }
    }

    /// Now, for machines that take an instant.
    pub fn now(&self) -> Instant {
        self.start + self.since
    }

    /// Time since the start.
    pub const fn elapsed(&self) -> Duration {
        self.since
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.since += by;
    }

    /// Advances to a time since the start; a time that has passed changes nothing.
    pub fn advance_to(&mut self, since: Duration) {
        self.since = self.since.max(since);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_moves_forward_only() {
        let mut clock = Clock::new();
        let start = clock.now();
        clock.advance(Duration::from_secs(3));
        assert_eq!(clock.now() - start, Duration::from_secs(3));
        clock.advance_to(Duration::from_secs(2));
        assert_eq!(clock.elapsed(), Duration::from_secs(3));
        clock.advance_to(Duration::from_secs(5));
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
    }
}
