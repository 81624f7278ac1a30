//! Gauges that count existing objects.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Adds one to a gauge of `T` for as long as it lives.
pub(crate) struct GaugeGuard<T> {
    owner: Arc<T>,
    gauge: fn(&T) -> &AtomicUsize,
}

impl<T> GaugeGuard<T> {
    /// Adds one; returns the previous value of the gauge.
    pub(crate) fn new(owner: Arc<T>, gauge: fn(&T) -> &AtomicUsize) -> (Self, usize) {
        let before = gauge(&owner).fetch_add(1, Ordering::Relaxed);
        (Self { owner, gauge }, before)
    }

    /// Adds one, unless the gauge is at `limit`.
    pub(crate) fn below(
        limit: usize,
        owner: Arc<T>,
        gauge: fn(&T) -> &AtomicUsize,
    ) -> Option<Self> {
        let (guard, before) = Self::new(owner, gauge);
        (before < limit).then_some(guard)
    }

    /// The owner of the gauge.
    pub(crate) fn owner(&self) -> &Arc<T> {
        &self.owner
    }
}

impl<T> Drop for GaugeGuard<T> {
    fn drop(&mut self) {
        (self.gauge)(&self.owner).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_counts_the_guards_that_live() {
        let gauge = Arc::new(AtomicUsize::new(0));
        let guard = || GaugeGuard::below(2, gauge.clone(), |gauge| gauge);
        let first = guard();
        let second = guard();
        assert!(first.is_some() && second.is_some());
        assert!(guard().is_none(), "at the limit");
        assert_eq!(
            gauge.load(Ordering::Relaxed),
            2,
            "a refused guard is not counted"
        );
        drop(first);
        assert_eq!(gauge.load(Ordering::Relaxed), 1);
        assert!(guard().is_some());
    }
}
