//! When requests are due.
//!
//! [`Arrivals`] is the plan: a function from a number to a moment, without a clock. [`Schedule`] lays it over the clock
//! and hands it out to a free visitor.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Tokio's timer wakes on full milliseconds. A request sent this late after
/// waiting for its time is late through our own doing and is timed from when
/// it was sent; anything later counts against the target.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// A fraction of an arrival does not count; rounding of products must not make one.
const ROUNDING: f64 = 1e-6;

/// A stretch of time whose rate runs evenly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) length: Duration,
    /// Arrivals per second at its beginning.
    pub(crate) from: f64,
    /// Arrivals per second at its end.
    pub(crate) to: f64,
}

/// The arrivals of an open loop.
///
/// Promises: arrival `n` is due when the integral of the rate reaches `n`, computed anew for each number, so that
/// nothing drifts however long it goes on; arrivals never go back in time; there are as many as the integral over the
/// whole length, rounded up.
#[derive(Debug, Clone)]
pub(crate) struct Arrivals {
    steps: Vec<Placed>,
    total: f64,
    length_s: f64,
}

#[derive(Debug, Clone, Copy)]
struct Placed {
    begin_s: f64,
    length_s: f64,
    from: f64,
    to: f64,
    /// Arrivals due before this step, and parts of one.
    before: f64,
}

impl Placed {
    fn arrivals(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.length_s
    }

    /// When `arrivals` of this step have come: the root of `from t + slope t² / 2 = arrivals`, in the form that does not
    /// cancel where the slope is small.
    fn reaches(&self, arrivals: f64) -> f64 {
        if arrivals <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.length_s;
        let root = (self.from * self.from + 2.0 * slope * arrivals).max(0.0);
        (2.0 * arrivals / (self.from + root.sqrt())).min(self.length_s)
    }
}

impl Arrivals {
    /// One step after the other. A step without length holds nothing.
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let (mut total, mut length_s) = (0.0, 0.0);
        let mut placed = Vec::new();
        for step in steps.into_iter().filter(|step| !step.length.is_zero()) {
            let step = Placed {
                begin_s: length_s,
                length_s: step.length.as_secs_f64(),
                from: step.from,
                to: step.to,
                before: total,
            };
            total += step.arrivals();
            length_s += step.length_s;
            placed.push(step);
        }
        Self {
            steps: placed,
            total,
            length_s,
        }
    }

    /// The same rate all the time.
    pub(crate) fn steady(rate: f64, length: Duration) -> Self {
        Self::new([Step {
            length,
            from: rate,
            to: rate,
        }])
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        whole((self.total - ROUNDING).ceil())
    }

    /// When arrival `number` is due, counted from the beginning; `None` after the last one.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.count() {
            return None;
        }
        let number = number as f64;
        let step = self.steps.iter().rev().find(|step| {
            // A step without arrivals never holds one.
            step.before <= number && step.arrivals() > 0.0
        })?;
        let seconds = step.begin_s + step.reaches(number - step.before);
        Some(Duration::from_secs_f64(seconds.min(self.length_s)))
    }

    /// Arrivals per second at a moment, for plots.
    pub(crate) fn rate_at(&self, seconds: f64) -> f64 {
        let step = self
            .steps
            .iter()
            .find(|step| (step.begin_s..step.begin_s + step.length_s).contains(&seconds));
        step.map_or(0.0, |step| {
            let part = (seconds - step.begin_s) / step.length_s;
            step.from + (step.to - step.from) * part
        })
    }
}

/// One request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Its number, from 0.
    pub(crate) number: u64,
    /// The moment to time it from.
    pub(crate) due: Instant,
}

/// When requests are due: one queue that all visitors take from.
#[derive(Debug)]
pub(crate) struct Schedule {
    begin: Instant,
    /// Nothing is due any more: the window is over.
    stop: AtomicBool,
    /// How many a visitor has taken on.
    taken: AtomicU64,
    /// `None` is a closed loop.
    arrivals: Option<Arrivals>,
}

impl Schedule {
    /// Requests are due as `arrivals` defines, from `begin` on.
    pub(crate) fn open(begin: Instant, arrivals: Arrivals) -> Self {
        Self {
            begin,
            stop: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            arrivals: Some(arrivals),
        }
    }

    /// Starts now. With a `rate` (per second) requests are due evenly over
    /// `length`; without one, whenever a visitor is free, until [`stop`](Self::stop).
    pub(crate) fn new(rate: Option<f64>, length: Duration) -> Self {
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            arrivals: rate.map(|rate| Arrivals::steady(rate, length)),
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

    /// Waits until a request is due; `None` when there is nothing more to send.
    pub(crate) async fn next(&self) -> Option<Slot> {
        let Some(arrivals) = &self.arrivals else {
            let number = self.taken.fetch_add(1, Relaxed);
            return (!self.stop.load(Relaxed)).then(|| Slot {
                number,
                due: Instant::now(),
            });
        };
        // What was due in the window is sent even after it, up to the grace:
        // dropping the backlog would drop the worst latencies.
        let number = self.taken.fetch_add(1, Relaxed);
        let due = self.begin + arrivals.due(number)?;
        if due <= Instant::now() {
            return Some(Slot { number, due });
        }
        sleep_until(due).await;
        let now = Instant::now();
        let due = if now - due <= TIMER_GRAIN { now } else { due };
        Some(Slot { number, due })
    }

    /// Requests of an open loop that no visitor has taken.
    pub(crate) fn unsent(&self) -> u64 {
        self.arrivals.as_ref().map_or(0, |arrivals| {
            arrivals.count().saturating_sub(self.taken.load(Relaxed))
        })
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
#[path = "schedule_tests.rs"]
mod tests;
