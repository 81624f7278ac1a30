//! The times at which requests are due.
//!
//! [`Arrivals`] is the plan: a function from a number to a moment, without a clock. [`Schedule`] applies the plan to
//! the clock and assigns due requests to free visitors.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Tokio's timer has a resolution of one millisecond. A request that is sent this late after a wait is late because of
/// the timer, and is timed from when it was sent; a longer delay counts against the target.
const TIMER_GRAIN: Duration = Duration::from_millis(2);

/// Rounding of products must not create a fraction of an arrival.
const ROUNDING: f64 = 1e-6;

/// A period whose rate changes linearly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Step {
    pub(crate) length: Duration,
    /// Arrivals per second at the beginning of the step.
    pub(crate) from: f64,
    /// Arrivals per second at the end of the step.
    pub(crate) to: f64,
}

/// The arrivals of an open loop.
///
/// Promises: arrival `n` is due when the integral of the rate reaches `n`. This is computed from the start for each
/// number, so that there is no drift; arrivals are in order of time; their number is the integral over the whole
/// length, rounded up.
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
    /// The number of arrivals due before this step, with fractions.
    before: f64,
}

impl Placed {
    fn arrivals(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.length_s
    }

    /// The time at which `arrivals` arrivals of this step are due: the root of `from t + slope t² / 2 = arrivals`, in
    /// the form without cancellation for a small slope.
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
    /// Creates arrivals from steps in sequence. A step without length has no arrivals.
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

    /// Creates arrivals with a constant rate.
    pub(crate) fn steady(rate: f64, length: Duration) -> Self {
        Self::new([Step {
            length,
            from: rate,
            to: rate,
        }])
    }

    /// The number of arrivals.
    pub(crate) fn count(&self) -> u64 {
        whole((self.total - ROUNDING).ceil())
    }

    /// The time at which arrival `number` is due, counted from the beginning; `None` after the last one.
    pub(crate) fn due(&self, number: u64) -> Option<Duration> {
        if number >= self.count() {
            return None;
        }
        let number = number as f64;
        let step = self.steps.iter().rev().find(|step| {
            // A step without arrivals never contains an arrival.
            step.before <= number && step.arrivals() > 0.0
        })?;
        let seconds = step.begin_s + step.reaches(number - step.before);
        Some(Duration::from_secs_f64(seconds.min(self.length_s)))
    }

    /// Arrivals per second at the given time, for plots.
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

/// A request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The number of the request, from 0.
    pub(crate) number: u64,
    /// The time from which the request is timed.
    pub(crate) due: Instant,
}

/// A queue of due requests that all visitors share.
#[derive(Debug)]
pub(crate) struct Schedule {
    begin: Instant,
    /// Nothing more is due: the window is over.
    stop: AtomicBool,
    /// The number of requests that visitors have taken.
    taken: AtomicU64,
    /// `None` means a closed loop.
    arrivals: Option<Arrivals>,
}

impl Schedule {
    /// Creates a schedule in which requests are due as `arrivals` defines, from `begin` on.
    pub(crate) fn open(begin: Instant, arrivals: Arrivals) -> Self {
        Self {
            begin,
            stop: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            arrivals: Some(arrivals),
        }
    }

    /// Creates a schedule that starts now. With a `rate` (per second), requests are due at equal intervals over
    /// `length`; without a rate, a request is due whenever a visitor is free, until [`stop`](Self::stop).
    pub(crate) fn new(rate: Option<f64>, length: Duration) -> Self {
        Self {
            begin: Instant::now(),
            stop: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            arrivals: rate.map(|rate| Arrivals::steady(rate, length)),
        }
    }

    /// The start of the schedule.
    pub(crate) fn begin(&self) -> Instant {
        self.begin
    }

    /// Ends a closed loop: running requests may end, and no new request begins.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Waits until a request is due; returns `None` when there are no more requests.
    pub(crate) async fn next(&self) -> Option<Slot> {
        let Some(arrivals) = &self.arrivals else {
            let number = self.taken.fetch_add(1, Relaxed);
            return (!self.stop.load(Relaxed)).then(|| Slot {
                number,
                due: Instant::now(),
            });
        };
        // Requests that were due in the window are sent even after it, up to the grace: dropping them would drop the
        // highest latencies.
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
