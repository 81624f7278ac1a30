//! The counters of a generator.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use tokio::time::Instant;

use crate::failure::{Failed, Failure, Failures};
use crate::series::Series;

/// The maximum number of different texts of failures; further failures are only counted by kind.
const DETAILS: usize = 32;

/// The counts so far. Only one thread writes: the atomics and the lock are needed for `Send`, and are never contended.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Completed requests since the start.
    pub(crate) requests: AtomicU64,
    /// Checked bytes of bodies since the start.
    pub(crate) body_bytes: AtomicU64,
    /// Failed requests since the start.
    pub(crate) failures: Failures,
    /// Datagrams since the start that were not echoed in time.
    pub(crate) lost: AtomicU64,
    /// Datagrams that were echoed more than once.
    pub(crate) doubled: AtomicU64,
    latencies: Mutex<Latencies>,
}

#[derive(Debug)]
struct Latencies {
    /// The beginning of the measured window; requests that began in it are recorded.
    begin: Option<Instant>,
    end: Option<Instant>,
    histogram: Histogram<u64>,
    series: Option<Series>,
    details: BTreeMap<String, u64>,
    disturbed: Vec<Disturbed>,
}

/// An event and its consequences.
#[derive(Debug)]
struct Disturbed {
    at: Instant,
    /// A request that was due after the event was completed before a failure.
    completed: bool,
    /// The time of the first failure after the event.
    failed: Option<Instant>,
    /// The time from the event to the first good response after that failure.
    recovered: Option<Duration>,
}

/// The recovery of a load from an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recovery {
    /// The time from the event to the first good response after the first failure that followed it.
    After(Duration),
    /// There was no failure after the event.
    WithoutFailure,
    /// No request was due after the event, so the load cannot show an effect.
    NothingDue,
    /// There was no good response.
    Missing,
}

/// The counters at the beginning of the measured window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin {
    pub(crate) at: Instant,
    pub(crate) requests: u64,
    body_bytes: u64,
    pub(crate) failures: u64,
}

/// The counts between the beginning and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) elapsed: Duration,
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
}

/// Creates a histogram from one microsecond to one hour with three significant digits; higher values are recorded as
/// one hour.
///
/// # Errors
/// Returns an error when the histogram could not be created.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3)
}

impl Tally {
    /// # Errors
    ///
    /// Returns an error when the histogram could not be created.
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            requests: AtomicU64::new(0),
            body_bytes: AtomicU64::new(0),
            failures: Failures::default(),
            lost: AtomicU64::new(0),
            doubled: AtomicU64::new(0),
            latencies: Mutex::new(Latencies {
                begin: None,
                end: None,
                histogram: histogram()?,
                series: None,
                details: BTreeMap::new(),
                disturbed: Vec::new(),
            }),
        })
    }

    /// Creates a tally that also records each second.
    ///
    /// # Errors
    /// Returns an error when a histogram could not be created.
    pub(crate) fn with_series() -> Result<Self, CreationError> {
        let tally = Self::new()?;
        tally.latencies().series = Some(Series::new()?);
        Ok(tally)
    }

    fn latencies(&self) -> MutexGuard<'_, Latencies> {
        self.latencies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the measured window now.
    pub(crate) fn mark_begin(&self) -> Begin {
        self.mark_begin_at(Instant::now())
    }

    /// Starts the measured window at `at`, which has just passed: requests that are due from then on are recorded.
    pub(crate) fn mark_begin_at(&self, at: Instant) -> Begin {
        let mut latencies = self.latencies();
        latencies.begin = Some(at);
        let bytes = self.body_bytes.load(Relaxed);
        if let Some(series) = &mut latencies.series {
            series.begin(at, bytes, self.failures.total());
        }
        Begin {
            at,
            requests: self.requests.load(Relaxed),
            body_bytes: bytes,
            failures: self.failures.total(),
        }
    }

    /// Ends the measured window that began at `begin`.
    pub(crate) fn mark_end(&self, begin: Begin) -> Window {
        let at = Instant::now();
        self.latencies().end = Some(at);
        Window {
            elapsed: at - begin.at,
            requests: self.requests.load(Relaxed) - begin.requests,
            body_bytes: self.body_bytes.load(Relaxed) - begin.body_bytes,
        }
    }

    /// Records that a request timed from `begun` was completed.
    pub(crate) fn completed(&self, begun: Instant) {
        self.completed_after(begun, begun.elapsed());
    }

    /// Records that a request timed from `begun` was completed after `latency`.
    pub(crate) fn completed_after(&self, begun: Instant, latency: Duration) {
        self.requests.fetch_add(1, Relaxed);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let mut latencies = self.latencies();
        self.roll(&mut latencies, Instant::now());
        if let Some(series) = &mut latencies.series {
            series.record(micros);
        }
        for event in &mut latencies.disturbed {
            if event.recovered.is_some() || begun < event.at {
                continue;
            }
            match event.failed {
                Some(_) => event.recovered = Some(event.at.elapsed()),
                None => event.completed = true,
            }
        }
        let Some(begin) = latencies.begin else { return };
        if begun >= begin && latencies.end.is_none_or(|end| begun < end) {
            latencies.histogram.saturating_record(micros);
        }
    }

    /// Records that a request failed.
    pub(crate) fn failed(&self, failed: Failed) {
        self.failures.add(failed.kind, 1);
        let mut latencies = self.latencies();
        latencies.stumble(None);
        let Some(detail) = failed.detail else { return };
        let details = &mut latencies.details;
        let text = format!("{}: {detail}", failed.kind.name());
        if details.len() < DETAILS || details.contains_key(&text) {
            *details.entry(text).or_default() += 1;
        }
    }

    /// Records that a datagram that was due at `due` was not echoed in time.
    pub(crate) fn missed(&self, due: Instant) {
        self.lost.fetch_add(1, Relaxed);
        self.latencies().stumble(Some(due));
    }

    /// Records that an event disturbs the target now; later failures are attributed to it, until the next event.
    pub(crate) fn disturb(&self) {
        self.latencies().disturbed.push(Disturbed {
            at: Instant::now(),
            completed: false,
            failed: None,
            recovered: None,
        });
    }

    /// The recovery of the load from each event, where its last request was due at `last_due`.
    pub(crate) fn recoveries(&self, last_due: Option<Instant>) -> Vec<Recovery> {
        let latencies = self.latencies();
        let recoveries = latencies.disturbed.iter().map(|event| {
            if let Some(after) = event.recovered {
                return Recovery::After(after);
            }
            // If a request was completed before the failure, another completed request is needed only if something was
            // due after the failure.
            let since = match event.failed {
                None if event.completed => return Recovery::WithoutFailure,
                Some(failed) if event.completed => failed,
                _ => event.at,
            };
            match last_due {
                Some(due) if due >= since => Recovery::Missing,
                _ => Recovery::NothingDue,
            }
        });
        recoveries.collect()
    }

    /// The texts of failures, with the number of times each occurred.
    pub(crate) fn details(&self) -> BTreeMap<String, u64> {
        self.latencies().details.clone()
    }

    /// The counts of each second up to now.
    pub(crate) fn series(&self) -> Vec<crate::series::Second> {
        let mut latencies = self.latencies();
        self.roll(&mut latencies, Instant::now());
        latencies
            .series
            .as_ref()
            .map(|series| series.seconds().to_vec())
            .unwrap_or_default()
    }

    /// The last closed second.
    pub(crate) fn last_second(&self) -> Option<crate::series::Second> {
        let mut latencies = self.latencies();
        self.roll(&mut latencies, Instant::now());
        latencies.series.as_ref()?.seconds().last().copied()
    }

    fn roll(&self, latencies: &mut Latencies, now: Instant) {
        if let Some(series) = &mut latencies.series {
            let (bytes, errors) = (self.body_bytes.load(Relaxed), self.failures.total());
            series.roll(now, bytes, errors);
        }
    }

    /// Latencies in microseconds of the requests that began in the window.
    pub(crate) fn histogram(&self) -> Histogram<u64> {
        self.latencies().histogram.clone()
    }

    /// Counts `many` failures of a kind that has no text.
    pub(crate) fn failed_many(&self, kind: Failure, many: u64) {
        self.failures.add(kind, many);
    }
}

impl Latencies {
    /// Records a failure at the current time: of a request, or of a datagram that was due at `due`.
    fn stumble(&mut self, due: Option<Instant>) {
        let last = self.disturbed.len().saturating_sub(1);
        for (place, event) in self.disturbed.iter_mut().enumerate() {
            // Failures after a later event belong to that event, unless the earlier event still has no completed
            // request.
            let mine = place == last || !event.completed;
            if mine && event.failed.is_none() && due.is_none_or(|due| due >= event.at) {
                event.failed = Some(Instant::now());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    #[tokio::test(start_paused = true)]
    async fn the_window_times_starts_and_counts_ends() {
        let tally = Tally::new().unwrap();
        let step = Duration::from_millis(10);
        let too_early = Instant::now();
        advance(step).await;
        let begin = tally.mark_begin();
        tally.completed(too_early);
        let inside = Instant::now();
        let late = Instant::now();
        advance(step).await;
        tally.completed(inside);
        let window = tally.mark_end(begin);
        let too_late = Instant::now();
        advance(step).await;
        tally.completed(late);
        tally.completed(too_late);

        assert_eq!((window.elapsed, window.requests), (step, 2));
        let histogram = tally.histogram();
        assert_eq!(histogram.len(), 2);
        assert_eq!(histogram.count_between(9_900, 10_100), 1);
        assert_eq!(histogram.count_between(19_900, 20_100), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovery_ends_with_the_first_good_response() {
        let tally = Tally::new().unwrap();
        let step = Duration::from_millis(10);
        let before = Instant::now();
        advance(step).await;
        tally.disturb();
        let event = Instant::now();
        let recoveries = |last_due| tally.recoveries(Some(last_due));
        advance(step).await;
        let after = Instant::now();
        tally.completed(before);
        assert_eq!(recoveries(after), [Recovery::Missing]);
        assert_eq!(recoveries(before), [Recovery::NothingDue]);
        // A draining side responds for some more time.
        tally.completed(after);
        assert_eq!(recoveries(after), [Recovery::WithoutFailure]);
        advance(step).await;
        tally.failed(Failure::Cut.into());
        assert_eq!(recoveries(Instant::now()), [Recovery::Missing]);
        assert_eq!(recoveries(event), [Recovery::NothingDue]);
        tally.completed(before);
        advance(step).await;
        tally.completed(after);
        advance(step).await;
        tally.failed(Failure::Cut.into());
        tally.completed(after);
        assert_eq!(recoveries(after), [Recovery::After(3 * step)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_belongs_to_the_last_event_before_it() {
        let tally = Tally::new().unwrap();
        let step = Duration::from_millis(10);
        let before = Instant::now();
        advance(step).await;
        tally.disturb();
        // A datagram that was due before the event does not show an effect of the event.
        tally.missed(before);
        tally.completed(Instant::now());
        advance(step).await;
        tally.disturb();
        tally.missed(Instant::now());
        advance(step).await;
        tally.completed(Instant::now());
        let recoveries = tally.recoveries(Some(Instant::now()));
        assert_eq!(
            recoveries,
            [Recovery::WithoutFailure, Recovery::After(step)]
        );
        assert_eq!(tally.lost.load(Relaxed), 2);
    }

    #[test]
    fn texts_of_failures_are_counted_and_bounded() {
        let tally = Tally::new().unwrap();
        for number in 0..2 * DETAILS {
            tally.failed(Failed::new(Failure::Status, number));
            tally.failed(Failed::new(Failure::Status, 0));
        }
        tally.failed(Failure::Cut.into());
        let details = tally.details();
        assert_eq!(details.len(), DETAILS);
        assert_eq!(details["status: 0"], 2 * DETAILS as u64 + 1);
        assert_eq!(tally.failures.total(), 4 * DETAILS as u64 + 1);
    }
}
