//! Decides which results of exports are logged: the first failure, the recovery, and lost spans, but not each failure.

use super::stats::TracesStats;

/// The state of the export according to the log.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// The number of lost spans when the export began to fail; `None` while it works.
    failing: Option<u64>,
    /// Dropped spans that the log has reported.
    logged: u64,
}

/// A line of the log about the export.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The export begins to fail.
    Failing,
    /// The export works again; this many spans were lost meanwhile.
    Recovered(u64),
    /// The export works, but too slowly; this many spans have been lost in total.
    Overflowing(u64),
}

impl Health {
    /// An export has failed.
    pub(super) fn on_failure(&mut self, stats: TracesStats) -> Option<Line> {
        if self.failing.is_some() {
            return None;
        }
        self.failing = Some(lost(stats));
        Some(Line::Failing)
    }

    /// An export has succeeded. Losses without a failure are logged each time they have doubled: at most sixty-four
    /// lines for each process.
    pub(super) fn on_success(&mut self, stats: TracesStats) -> Option<Line> {
        if let Some(before) = self.failing.take() {
            self.logged = stats.dropped;
            return Some(Line::Recovered(lost(stats) - before));
        }
        if stats.dropped > self.logged.saturating_mul(2) {
            self.logged = stats.dropped;
            return Some(Line::Overflowing(stats.dropped));
        }
        None
    }
}

const fn lost(stats: TracesStats) -> u64 {
    stats.dropped + stats.failed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(dropped: u64, failed: u64) -> TracesStats {
        TracesStats {
            exported: 0,
            dropped,
            failed,
        }
    }

    #[test]
    fn failure_and_recovery_are_logged_once() {
        let mut health = Health::default();
        assert_eq!(health.on_success(stats(0, 0)), None);
        assert_eq!(health.on_failure(stats(0, 1)), Some(Line::Failing));
        assert_eq!(health.on_failure(stats(4, 9)), None);
        assert_eq!(health.on_success(stats(5, 9)), Some(Line::Recovered(13)));
        assert_eq!(health.on_success(stats(5, 9)), None);
        assert_eq!(health.on_failure(stats(5, 9)), Some(Line::Failing));
    }

    #[test]
    fn drops_are_logged_when_they_double() {
        let mut health = Health::default();
        let lines = (1..=100).filter_map(|dropped| health.on_success(stats(dropped, 0)));
        let counts = [1, 3, 7, 15, 31, 63];
        assert!(lines.eq(counts.map(Line::Overflowing)));
    }
}
