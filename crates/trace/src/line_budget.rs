//! How many lines of one kind a log gets.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(1);

/// Bounds the lines of one kind in each second; the rest is counted.
#[derive(Debug)]
pub struct LineBudget {
    per_sec: u32,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// When the second began in which lines were written last.
    began: Option<Instant>,
    written: u32,
    /// Since the last line.
    left_out: u64,
}

impl LineBudget {
    /// At most `per_sec` lines a second.
    pub const fn new(per_sec: u32) -> Self {
        Self {
            per_sec,
            state: Mutex::new(State {
                began: None,
                written: 0,
                left_out: 0,
            }),
        }
    }

    /// Whether a line may be written now: `Some` with the number of lines that were left out before it.
    pub fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |began: Instant| now.saturating_duration_since(began) >= WINDOW;
        if state.began.is_none_or(is_over) {
            state.began = Some(now);
            state.written = 0;
        }
        if state.written >= self.per_sec {
            state.left_out += 1;
            return None;
        }
        state.written += 1;
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_budget_are_counted_and_reported_once() {
        let budget = LineBudget::new(2);
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(budget.take(start), Some(0));
        assert_eq!(budget.take(after(1)), Some(0));
        for millis in 2..1_000 {
            assert_eq!(budget.take(after(millis)), None);
        }
        assert_eq!(budget.take(after(1_000)), Some(998));
        assert_eq!(budget.take(after(1_001)), Some(0));
        assert_eq!(budget.take(after(1_002)), None);
        assert_eq!(budget.take(after(9_000)), Some(1));
        // A clock that is read on another thread may be behind.
        assert_eq!(budget.take(after(8_999)), Some(0));
    }
}
