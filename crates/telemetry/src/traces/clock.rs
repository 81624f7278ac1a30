//! From the clock that never goes back to the one that everybody shares.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Span;

/// The wall clock is set and steps, and a machine that sleeps stops the other one: both are compared again when this
/// has gone by. Until then all spans stand on one scale, so that a child lies within its parent.
const FRESH: Duration = Duration::from_secs(60);

/// Each comparison is the best of this many: the thread may be put aside between its two readings.
const READINGS: usize = 3;

/// Puts spans on the wall clock.
pub(super) struct Clock {
    epoch: Instant,
    /// The wall clock's time at the epoch, in nanoseconds since 1970.
    unix_of_epoch: u64,
    compared: Instant,
}

impl Clock {
    /// For spans that count from `epoch`.
    pub(super) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            unix_of_epoch: unix_of(epoch),
            compared: Instant::now(),
        }
    }

    /// Puts spans on the wall clock whose times count from the epoch.
    pub(super) fn place(&mut self, spans: &mut [Span], now: Instant) {
        if now.saturating_duration_since(self.compared) >= FRESH {
            self.unix_of_epoch = unix_of(self.epoch);
            self.compared = now;
        }
        for span in spans {
            span.start_time_unix_nano =
                span.start_time_unix_nano.saturating_add(self.unix_of_epoch);
            span.end_time_unix_nano = span.end_time_unix_nano.saturating_add(self.unix_of_epoch);
        }
    }
}

/// Nanoseconds from `epoch` to `at`; 0 for what was before it.
pub(super) fn since(epoch: Instant, at: Instant) -> u64 {
    nanos(at.saturating_duration_since(epoch))
}

/// What the wall clock showed, or would have shown had it been right, at this instant.
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

    #[test]
    fn spans_are_put_on_the_wall_clock() {
        let epoch = Instant::now();
        let mut clock = Clock::new(epoch);
        clock.unix_of_epoch = 1_000;
        let span = |start, end| Span {
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            ..Span::default()
        };
        let mut spans = [span(5, 7), span(6, u64::MAX)];
        clock.place(&mut spans, clock.compared);
        assert_eq!(spans, [span(1_005, 1_007), span(1_006, u64::MAX)]);
    }

    #[test]
    fn an_old_comparison_is_made_again() {
        let mut clock = Clock::new(Instant::now());
        clock.unix_of_epoch = 1_000;
        let later = clock.compared + FRESH;
        let before = nanos(UNIX_EPOCH.elapsed().unwrap());
        clock.place(&mut [], later);
        assert_eq!(clock.compared, later);
        // Some time before this test, and not in 1970; a wall clock that steps by an hour meanwhile does not fail it.
        let distance = before.abs_diff(clock.unix_of_epoch);
        assert!(distance < 3_600_000_000_000, "{distance}");
    }

    #[test]
    fn what_was_before_the_epoch_is_at_the_epoch() {
        let before = Instant::now();
        let epoch = before + Duration::from_nanos(9);
        assert_eq!(since(epoch, before), 0);
        assert_eq!(since(before, epoch), 9);
    }
}
