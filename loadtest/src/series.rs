//! The counts of each second: the requests that ended in it, and their latencies.

use hdrhistogram::{CreationError, Histogram};
use serde::Serialize;
use tokio::time::Instant;

use crate::tally::histogram;

/// The number of seconds that are kept: a day. Later seconds are counted only in the totals.
const LONGEST_S: u64 = 86_400;

/// A second of the window, or of the grace after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Second {
    /// Requests that were completed in this second.
    pub(crate) completed: u64,
    /// Bytes that were checked in this second.
    pub(crate) bytes: u64,
    /// Requests that failed in this second.
    pub(crate) errors: u64,
    /// Quantiles of the completed requests in microseconds; 0 when there were none.
    pub(crate) p50_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) max_us: u64,
}

/// The seconds so far. They use one histogram, one after the other.
#[derive(Debug)]
pub(crate) struct Series {
    begin: Option<Instant>,
    histogram: Histogram<u64>,
    /// Totals at the beginning of the current second.
    bytes: u64,
    errors: u64,
    seconds: Vec<Second>,
}

impl Series {
    /// # Errors
    ///
    /// Returns an error when the histogram could not be created.
    pub(crate) fn new() -> Result<Self, CreationError> {
        Ok(Self {
            begin: None,
            histogram: histogram()?,
            bytes: 0,
            errors: 0,
            seconds: Vec::new(),
        })
    }

    /// Starts the first second with these totals.
    pub(crate) fn begin(&mut self, at: Instant, bytes: u64, errors: u64) {
        self.begin = Some(at);
        (self.bytes, self.errors) = (bytes, errors);
    }

    /// Records that a request was completed after `micros` microseconds.
    pub(crate) fn record(&mut self, micros: u64) {
        if self.begin.is_some() {
            self.histogram.saturating_record(micros);
        }
    }

    /// Closes the seconds that are over, with the totals up to now.
    pub(crate) fn roll(&mut self, now: Instant, bytes: u64, errors: u64) {
        let Some(begin) = self.begin else { return };
        let over = now.duration_since(begin).as_secs().min(LONGEST_S);
        while (self.seconds.len() as u64) < over {
            let at = |quantile| self.histogram.value_at_quantile(quantile);
            self.seconds.push(Second {
                completed: self.histogram.len(),
                bytes: bytes.saturating_sub(self.bytes),
                errors: errors.saturating_sub(self.errors),
                p50_us: at(0.5),
                p99_us: at(0.99),
                max_us: self.histogram.max(),
            });
            // Counts that have not been reported belong to the first second that is closed.
            self.histogram.reset();
            (self.bytes, self.errors) = (bytes, errors);
        }
    }

    /// The closed seconds.
    pub(crate) fn seconds(&self) -> &[Second] {
        &self.seconds
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_second_holds_what_ended_in_it() {
        let mut series = Series::new().unwrap();
        let begin = Instant::now();
        series.record(7);
        series.begin(begin, 100, 1);
        let at = |ms| begin + Duration::from_millis(ms);
        for micros in [10, 20, 1_000] {
            series.roll(at(500), 100, 1);
            series.record(micros);
        }
        series.roll(at(1_500), 150, 3);
        series.record(5);
        series.roll(at(3_100), 160, 3);
        let shown: Vec<_> = series
            .seconds()
            .iter()
            .map(|it| (it.completed, it.bytes, it.errors, it.p50_us, it.max_us))
            .collect();
        assert_eq!(
            shown,
            [(3, 50, 2, 20, 1_000), (1, 10, 0, 5, 5), (0, 0, 0, 0, 0)]
        );
    }
}
