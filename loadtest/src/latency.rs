//! A histogram as a few quantiles, or as all of its buckets.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Quantiles in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) max_us: u64,
}

impl Latency {
    /// The usual quantiles of `histogram`.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            max_us: histogram.max(),
        }
    }
}

/// Every bucket that is not empty, as (microseconds, count).
pub(crate) fn buckets(histogram: &Histogram<u64>) -> Vec<(u64, u64)> {
    histogram
        .iter_recorded()
        .map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_buckets_agree() {
        let mut histogram = Histogram::new_with_bounds(1, 1_000_000, 3).unwrap();
        for value in 1..=1_000 {
            histogram.record(value).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert_eq!(
            (latency.p50_us, latency.p90_us, latency.p99_us),
            (500, 900, 990)
        );
        assert_eq!((latency.p99_9_us, latency.max_us), (999, 1_000));
        let buckets = buckets(&histogram);
        assert_eq!(buckets.iter().map(|(_, count)| count).sum::<u64>(), 1_000);
        assert_eq!(buckets.first(), Some(&(1, 1)));
    }
}
