//! Converts instants of the monotonic clock to times of the wall clock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The wall clock can step, and the monotonic clock stops while a machine sleeps: both are compared again after this
/// time. Until then all spans use one scale, so that a child lies within its parent.
const FRESH: Duration = Duration::from_secs(60);

/// Each comparison is the best of this many, since the thread may be suspended between its two readings.
const READINGS: usize = 3;

/// The scale of all threads. Costs two loads, and once a minute a comparison of the clocks.
#[derive(Debug)]
pub(super) struct Clock {
    /// The start of the monotonic time.
    epoch: Instant,
    /// The time of the wall clock at the epoch, in nanoseconds since 1970.
    unix_of_epoch: AtomicU64,
    /// When the clocks were compared, in nanoseconds since the epoch.
    compared: AtomicU64,
}

impl Clock {
    pub(super) fn new() -> Self {
        let epoch = Instant::now();
        Self {
            epoch,
            unix_of_epoch: AtomicU64::new(unix_of(epoch)),
            compared: AtomicU64::new(0),
        }
    }

    /// The scale for the spans of a request that ends now.
    pub(super) fn scale(&self, now: Instant) -> Scale {
        let since = since(self.epoch, now);
        let compared = self.compared.load(Ordering::Relaxed);
        // One thread compares; the others use the old scale.
        if since.saturating_sub(compared) >= nanos(FRESH)
            && self
                .compared
                .compare_exchange(compared, since, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let unix_of_epoch = unix_of(self.epoch);
            self.unix_of_epoch.store(unix_of_epoch, Ordering::Relaxed);
        }
        Scale {
            epoch: self.epoch,
            unix_of_epoch: self.unix_of_epoch.load(Ordering::Relaxed),
        }
    }
}

/// A comparison of the clocks. All spans of a request are converted by the same comparison.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    epoch: Instant,
    unix_of_epoch: u64,
}

impl Scale {
    /// Nanoseconds since 1970. An instant before the epoch counts as the epoch.
    pub(super) fn unix_nanos(self, at: Instant) -> u64 {
        since(self.epoch, at).saturating_add(self.unix_of_epoch)
    }
}

/// Nanoseconds from `epoch` to `at`; 0 for an earlier instant.
fn since(epoch: Instant, at: Instant) -> u64 {
    nanos(at.saturating_duration_since(epoch))
}

/// Time of the wall clock at this instant, by its present setting.
fn unix_of(epoch: Instant) -> u64 {
    let reading = || {
        let before = Instant::now();
        let wall = SystemTime::now();
        (before.elapsed(), before, wall)
    };
    let best = (1..READINGS).fold(reading(), |best, _| {
        let next = reading();
        if next.0 < best.0 { next } else { best }
    });
    let (_, at, wall) = best;
    let wall = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
    nanos(wall).saturating_sub(since(epoch, at))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_clock() -> Clock {
        let clock = Clock::new();
        clock.unix_of_epoch.store(1_000, Ordering::Relaxed);
        clock
    }

    #[test]
    fn instants_are_converted_to_the_wall_clock() {
        let clock = wrong_clock();
        let scale = clock.scale(clock.epoch + FRESH - Duration::from_nanos(1));
        let at = |nanos| scale.unix_nanos(clock.epoch + Duration::from_nanos(nanos));
        assert_eq!([at(0), at(5), at(7)], [1_000, 1_005, 1_007]);
        let most = Scale {
            unix_of_epoch: u64::MAX,
            ..scale
        };
        assert_eq!(most.unix_nanos(clock.epoch + FRESH), u64::MAX);
    }

    #[test]
    fn an_old_comparison_is_repeated() {
        let clock = wrong_clock();
        let before = nanos(UNIX_EPOCH.elapsed().unwrap());
        let scale = clock.scale(clock.epoch + FRESH);
        // The result is near the present, not 1970. The wall clock may be set by less than an hour meanwhile.
        let distance = before.abs_diff(scale.unix_of_epoch);
        assert!(distance < 3_600_000_000_000, "{distance}");

        // The clocks are compared again only after that time.
        clock.unix_of_epoch.store(1_000, Ordering::Relaxed);
        let later = clock.epoch + FRESH + FRESH / 2;
        assert_eq!(clock.scale(later).unix_of_epoch, 1_000);
        assert_ne!(clock.scale(clock.epoch + FRESH * 2).unix_of_epoch, 1_000);
    }

    #[test]
    fn instants_before_the_epoch_count_as_the_epoch() {
        let before = Instant::now();
        let epoch = before + Duration::from_nanos(9);
        assert_eq!(since(epoch, before), 0);
        assert_eq!(since(before, epoch), 9);
    }
}
