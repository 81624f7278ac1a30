//! Histograms of durations.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in seconds. Up to 10 s each is two or two and a half times the one before, which distinguishes a hop on
/// loopback from one around the world; the larger ones are for sessions. The last one, infinity, is left out.
pub(super) const BOUNDS: [f64; 19] = [
    0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 300.0, 3_600.0, 86_400.0,
];

/// Number of bounds for the time to the first byte, which is limited by timeouts.
pub(super) const FIRST_BYTE_BOUNDS: usize = 16;

/// Durations, counted by the first `N` of [`BOUNDS`].
#[derive(Debug)]
pub(super) struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    longer: AtomicU64,
    sum_micros: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            longer: AtomicU64::new(0),
            sum_micros: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    pub(super) fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = BOUNDS[..N].partition_point(|bound| *bound < seconds);
        let count = self.counts.get(at).unwrap_or(&self.longer);
        count.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Bounds with the number of durations up to each. The total is last, without a bound.
    pub(super) fn cumulative(&self) -> impl Iterator<Item = (Option<f64>, u64)> + '_ {
        let counts = self.counts.iter().chain([&self.longer]);
        let bounds = BOUNDS[..N].iter().copied().map(Some).chain([None]);
        let mut so_far = 0;
        bounds.zip(counts).map(move |(bound, count)| {
            so_far += count.load(Ordering::Relaxed);
            (bound, so_far)
        })
    }

    #[allow(clippy::cast_precision_loss)] // 285 years of microseconds are exact
    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_what_is_below_it() {
        let histogram = Histogram::<3>::default();
        for micros in [0, 500, 501, 1_000, 2_500, 2_501, 9_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let cumulative: Vec<_> = histogram.cumulative().collect();
        assert_eq!(
            cumulative,
            [
                (Some(0.000_5), 2),
                (Some(0.001), 4),
                (Some(0.002_5), 5),
                (None, 7)
            ]
        );
        assert!((histogram.sum_seconds() - 9.007_002).abs() < 1e-9);
    }

    #[test]
    fn bounds_grow() {
        assert!(BOUNDS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
