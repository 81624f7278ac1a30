//! When the generator's requests are due.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Tokio's timer wakes on full milliseconds. A request sent this late after
/// waiting for its time is late through our own doing and is timed from when
/// it was sent; anything later counts against the target.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// When requests are due: one queue that all visitors take from.
#[derive(Debug)]
pub(crate) struct Schedule {
    begin: Instant,
    /// Nothing is due any more: the window is over.
    stop: AtomicBool,
    open: Option<OpenLoop>,
}

#[derive(Debug)]
struct OpenLoop {
    rate: f64,
    /// How many requests are due from the beginning to the end of the window.
    due: u64,
    /// How many of them a visitor has taken on.
    taken: AtomicU64,
}

impl Schedule {
    /// Starts now. With a `rate` (per second) requests are due evenly over
    /// `length`; without one, whenever a visitor is free, until [`stop`](Self::stop).
    pub(crate) fn new(rate: Option<f64>, length: Duration) -> Self {
        let open = rate.map(|rate| OpenLoop {
            rate,
            due: whole(rate * length.as_secs_f64()),
            taken: AtomicU64::new(0),
        });
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            open,
        }
    }

    /// When it started.
    pub(crate) fn begin(&self) -> Instant {
        self.begin
    }

    /// Ends a closed loop: what is under way ends, nothing new begins.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits until a request is due and gives the moment to time it from;
    /// `None` when there is nothing more to send.
    pub(crate) async fn next(&self) -> Option<Instant> {
        let Some(open) = &self.open else {
            return (!self.stop.load(Relaxed)).then(Instant::now);
        };
        // What was due in the window is sent even after it, up to the grace:
        // dropping the backlog would drop the worst latencies.
        let ticket = open.taken.fetch_add(1, Relaxed);
        if ticket >= open.due {
            return None;
        }
        let due = self.begin + Duration::from_secs_f64(ticket as f64 / open.rate);
        if due <= Instant::now() {
            return Some(due);
        }
        sleep_until(due).await;
        let now = Instant::now();
        Some(if now - due <= TIMER_GRAIN { now } else { due })
    }

    /// How many requests of an open loop nobody has taken on.
    pub(crate) fn unsent(&self) -> u64 {
        self.open
            .as_ref()
            .map_or(0, |open| open.due.saturating_sub(open.taken.load(Relaxed)))
    }
}

/// Rounds down to a whole number of requests.
fn whole(number: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding down is the point, and `as` saturates"
    )]
    #[allow(
        clippy::cast_sign_loss,
        reason = "rates and durations are never negative"
    )]
    let whole = number as u64;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_is_due_at_its_rate_and_timed_from_then() {
        let schedule = Schedule::new(Some(100.0), Duration::from_secs(1));
        assert_eq!(schedule.unsent(), 100);
        assert_eq!(schedule.next().await, Some(schedule.begin()));
        let second = schedule.next().await.unwrap() - schedule.begin();
        let grain = Duration::from_millis(10)..=Duration::from_millis(12);
        assert!(grain.contains(&second), "{second:?}");
        // A stall of half a second: what fell due meanwhile is timed from
        // when it was due, not from when it could be sent.
        tokio::time::advance(Duration::from_millis(500)).await;
        let third = schedule.next().await.unwrap() - schedule.begin();
        assert_eq!(third, Duration::from_millis(20));
        assert_eq!(schedule.unsent(), 97);
        for _ in 3..100 {
            assert!(schedule.next().await.is_some());
        }
        assert_eq!(schedule.next().await, None);
        assert_eq!(schedule.unsent(), 0);
    }

    #[tokio::test]
    async fn a_closed_loop_goes_on_until_it_is_stopped() {
        let schedule = Schedule::new(None, Duration::ZERO);
        assert!(schedule.next().await.is_some() && schedule.next().await.is_some());
        schedule.stop();
        assert_eq!(schedule.next().await, None);
        assert_eq!(schedule.unsent(), 0);
    }
}
