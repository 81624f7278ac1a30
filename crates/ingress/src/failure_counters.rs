//! Counts failures by reason.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use adit_link::Reason;

/// How many requests or sessions have failed for each reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailureCounts([u64; Reason::ALL.len()]);

impl FailureCounts {
    /// Failures of all reasons.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Failures with this reason.
    pub fn of(&self, reason: Reason) -> u64 {
        let mut counts = Reason::ALL.iter().zip(self.0);
        counts
            .find(|(of, _)| **of == reason)
            .map_or(0, |(_, count)| count)
    }

    /// The reasons that have occurred, by their names.
    pub fn by_name(&self) -> BTreeMap<&'static str, u64> {
        let counts = Reason::ALL.iter().zip(self.0);
        counts
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.as_str(), count))
            .collect()
    }
}

/// The counters behind [`FailureCounts`].
#[derive(Debug, Default)]
pub(crate) struct FailureCounters([AtomicU64; Reason::ALL.len()]);

impl FailureCounters {
    pub(crate) fn count(&self, reason: Reason) {
        let mut counters = Reason::ALL.iter().zip(&self.0);
        if let Some((_, counter)) = counters.find(|(of, _)| **of == reason) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn counts(&self) -> FailureCounts {
        FailureCounts(std::array::from_fn(|at| {
            self.0
                .get(at)
                .map_or(0, |counter| counter.load(Ordering::Relaxed))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_counter_of_its_own() {
        let counters = FailureCounters::default();
        for (times, reason) in (1..).zip(Reason::ALL) {
            for _ in 0..times {
                counters.count(reason);
            }
        }
        let counts = counters.counts();
        for (times, reason) in (1..).zip(Reason::ALL) {
            assert_eq!(counts.of(reason), times, "{reason}");
        }
    }

    #[test]
    fn only_reasons_that_have_occurred_have_a_name() {
        let counters = FailureCounters::default();
        counters.count(Reason::Limit);
        let expected = BTreeMap::from([(Reason::Limit.as_str(), 1)]);
        assert_eq!(counters.counts().by_name(), expected);
    }
}
