//! What the generator has counted so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use tokio::time::Instant;

use crate::failure::Failures;

/// What was counted so far. One thread writes: the atomics and the lock are
/// there for `Send`, and are never contended.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Requests that were answered well, since the start.
    pub(crate) requests: AtomicU64,
    /// Bytes of bodies, since the start.
    pub(crate) body_bytes: AtomicU64,
    /// Requests that failed, since the start.
    pub(crate) failures: Failures,
    latencies: Mutex<Latencies>,
}

#[derive(Debug)]
struct Latencies {
    /// The measured window; requests that began in it are recorded.
    begin: Option<Instant>,
    end: Option<Instant>,
    histogram: Histogram<u64>,
}

/// The counters at the beginning of the measured window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    pub(crate) at: Instant,
    pub(crate) requests: u64,
    body_bytes: u64,
}

/// What happened between the beginning and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) elapsed: Duration,
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
}

impl Tally {
    /// # Errors
    /// The histogram could not be made.
    pub(crate) fn new() -> Result<Self, CreationError> {
        // One microsecond to one hour, three digits; higher values are
        // recorded as an hour rather than lost.
        let histogram = Histogram::new_with_bounds(1, 3_600_000_000, 3)?;
        Ok(Self {
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            failures: Failures::default(),
            latencies: Mutex::new(Latencies {
                begin: None,
                end: None,
                histogram,
            }),
        })
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The measured window begins now.
    pub(crate) fn mark_begin(&self) -> Begin {
        let at = Instant::now();
        self.latencies().begin = Some(at);
        Begin {
            at,
            requests: self.requests.load(Relaxed),
            body_bytes: self.body_bytes.load(Relaxed),
        }
    }

    /// The measured window that began at `begin` ends now.
    pub(crate) fn mark_end(&self, begin: Begin) -> Window {
        let at = Instant::now();
        self.latencies().end = Some(at);
        Window {
            elapsed: at - begin.at,
            requests: self.requests.load(Relaxed) - begin.requests,
            body_bytes: self.body_bytes.load(Relaxed) - begin.body_bytes,
        }
    }

    /// A request timed from `begun` was answered well.
    pub(crate) fn answered(&self, begun: Instant) {
        self.requests.fetch_add(1, Relaxed);
        let mut latencies = self.latencies();
        let Some(begin) = latencies.begin else { return };
        if begun >= begin && latencies.end.is_none_or(|end| begun < end) {
            let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            latencies.histogram.saturating_record(micros);
        }
    }

    /// Microseconds of the requests that began in the window.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        self.latencies().histogram.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn what_began_in_the_window_is_timed_and_what_ended_in_it_is_counted() {
        let tally = Tally::new().unwrap();
        let step = Duration::from_millis(10);
        let too_early = Instant::now();
        advance(step).await;
        let begin = tally.mark_begin();
        tally.answered(too_early);
        let inside = Instant::now();
        let late = Instant::now();
        advance(step).await;
        tally.answered(inside);
        let window = tally.mark_end(begin);
        let too_late = Instant::now();
        advance(step).await;
        tally.answered(late);
        tally.answered(too_late);

        assert_eq!((window.elapsed, window.requests), (step, 2));
        let histogram = tally.histogram();
        assert_eq!(histogram.len(), 2);
        assert_eq!(histogram.count_between(9_900, 10_100), 1);
        assert_eq!(histogram.count_between(19_900, 20_100), 1);
    }
}
