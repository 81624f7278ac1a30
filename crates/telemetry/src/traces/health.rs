//! What of the exporting is worth a line in the log: when it begins to fail, when it works again, and that spans are
//! lost. Never one line for each failure.

use super::stats::TracesStats;

/// Whether the collector takes what it is sent, as far as the log knows.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// What had been lost when it began to fail; `None`: it works.
    failing: Option<u64>,
    /// Drops that have been told of.
    told: u64,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// It begins to fail.
    Failing,
    /// It works again. So many spans were lost meanwhile.
    Recovered(u64),
    /// It works, and is too slow: so many spans have been lost in all.
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

    /// An export has gone through. Losses while nothing fails are told of when they have doubled: sixty-four lines in
    /// the life of a process, at most.
    pub(super) fn on_success(&mut self, stats: TracesStats) -> Option<Line> {
        if let Some(before) = self.failing.take() {
            self.told = stats.dropped;
            return Some(Line::Recovered(lost(stats) - before));
        }
        if stats.dropped > self.told.saturating_mul(2) {
            self.told = stats.dropped;
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
    fn failing_is_told_once_and_so_is_recovering() {
        let mut health = Health::default();
        assert_eq!(health.on_success(stats(0, 0)), None);
        assert_eq!(health.on_failure(stats(0, 1)), Some(Line::Failing));
        assert_eq!(health.on_failure(stats(4, 9)), None);
        assert_eq!(health.on_success(stats(5, 9)), Some(Line::Recovered(13)));
        assert_eq!(health.on_success(stats(5, 9)), None);
        assert_eq!(health.on_failure(stats(5, 9)), Some(Line::Failing));
    }

    #[test]
    fn drops_are_told_when_they_double() {
        let mut health = Health::default();
        let told = (1..=100).filter_map(|dropped| health.on_success(stats(dropped, 0)));
        let counts = [1, 3, 7, 15, 31, 63];
        assert!(told.eq(counts.map(Line::Overflowing)));
    }
}
