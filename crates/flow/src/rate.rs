//! A rate with a burst: the generic cell rate algorithm (ITU-T I.371), one number for each sender.

use std::{num::NonZeroU32, time::Duration};

/// A number of events in a period, and how many may come at once. Times are since an origin of the caller's choice.
///
/// Promises: in a time `t`, at most `burst + t * count / period` events of one sender are admitted; a sender that is below
/// the rate is admitted always; the wait of a rejection is exact, if no other event is admitted before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds between two events of a steady sender.
    interval: u64,
    /// How early an event may come.
    tolerance: u64,
}

/// The events of one sender: when the next one is due, in nanoseconds since the origin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Arrivals(u64);

impl Rate {
    /// `count` events in `period`, and `burst` at once.
    pub fn new(count: NonZeroU32, period: Duration, burst: NonZeroU32) -> Self {
        // At least a nanosecond, so that the rate has an effect.
        let interval = (nanos(period) / u64::from(count.get())).max(1);
        Self {
            interval,
            tolerance: interval.saturating_mul(u64::from(burst.get() - 1)),
        }
    }

    /// Admits an event at `now`.
    ///
    /// # Errors
    /// The event exceeds the rate: the time until one would be admitted. It does not count.
    pub fn try_admit(&self, arrivals: &mut Arrivals, now: Duration) -> Result<(), Duration> {
        *arrivals = self.after(*arrivals, now)?;
        Ok(())
    }

    /// The arrivals after an event at `now`, for a caller that admits it only if other rates admit it as well.
    ///
    /// # Errors
    /// As [`Rate::try_admit`].
    pub fn after(&self, arrivals: Arrivals, now: Duration) -> Result<Arrivals, Duration> {
        let now = nanos(now);
        let due = arrivals.0.max(now);
        let early = due - now;
        match early.checked_sub(self.tolerance) {
            None | Some(0) => Ok(Arrivals(due.saturating_add(self.interval))),
            Some(wait) => Err(Duration::from_nanos(wait)),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let rate = Rate::new(number(10), Duration::from_secs(1), number(3));
        let mut arrivals = Arrivals::default();
        let at = Duration::from_millis;
        for _ in 0..3 {
            rate.try_admit(&mut arrivals, at(1_000)).unwrap();
        }
        assert_eq!(rate.try_admit(&mut arrivals, at(1_000)), Err(at(100)));
        assert_eq!(rate.try_admit(&mut arrivals, at(1_040)), Err(at(60)));
        rate.try_admit(&mut arrivals, at(1_100)).unwrap();
        assert_eq!(rate.try_admit(&mut arrivals, at(1_100)), Err(at(100)));
        // After a silence the whole burst is there again.
        for _ in 0..3 {
            rate.try_admit(&mut arrivals, at(9_000)).unwrap();
        }
        rate.try_admit(&mut arrivals, at(9_000)).unwrap_err();
    }

    proptest! {
        /// In any window, the admitted events are at most the burst and what the rate gives.
        #[test]
        fn no_window_has_more_than_burst_and_rate(
            count in 1_u32..50,
            burst in 1_u32..20,
            gaps in prop::collection::vec(0_u64..300, 1..300),
        ) {
            let rate = Rate::new(number(count), Duration::from_secs(1), number(burst));
            let mut arrivals = Arrivals::default();
            let (mut now, mut admitted) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if rate.try_admit(&mut arrivals, Duration::from_millis(now)).is_ok() {
                    admitted.push(now);
                }
            }
            let interval = 1_000_000_000 / u64::from(count);
            for (at, start) in admitted.iter().enumerate() {
                for (events, end) in (1_u64..).zip(&admitted[at..]) {
                    let given = (end - start) * 1_000_000 / interval;
                    prop_assert!(events <= u64::from(burst) + given, "{events} from {start} to {end}");
                }
            }
        }

        /// A rejected event is admitted after its wait, and not before.
        #[test]
        fn waits_are_exact(count in 1_u32..50, burst in 1_u32..20, now in 0_u64..10_000) {
            let rate = Rate::new(number(count), Duration::from_secs(1), number(burst));
            let mut arrivals = Arrivals::default();
            let now = Duration::from_millis(now);
            let wait = loop {
                if let Err(wait) = rate.try_admit(&mut arrivals, now) {
                    break wait;
                }
            };
            let just_before = now + wait - Duration::from_nanos(1);
            prop_assert_eq!(rate.try_admit(&mut arrivals, just_before), Err(Duration::from_nanos(1)));
            prop_assert_eq!(rate.try_admit(&mut arrivals, now + wait), Ok(()));
        }
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let most = NonZeroU32::MAX;
        for (count, period, burst) in [
            (most, Duration::ZERO, most),
            (number(1), Duration::MAX, most),
            (most, Duration::from_secs(1), number(1)),
        ] {
            let rate = Rate::new(count, period, burst);
            let mut arrivals = Arrivals::default();
            for _ in 0..3 {
                let _ = rate.try_admit(&mut arrivals, Duration::MAX);
            }
        }
    }
}
