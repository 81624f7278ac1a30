//! When to dial again, as clients usually implement it: a delay in a loop, without jitter, reset as soon as a dial
//! succeeds.

use std::time::{Duration, Instant};

use adit_reconnect::{Action, Config, Event, Failure, Reconnect};
use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::case::Role;

/// The operations of a schedule.
pub trait Schedule {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;

    /// Creates the schedule of a client that dials for the first time at `now`; `seed` is for its own random numbers.
    fn start(config: &Config, now: Instant, seed: u64) -> Self;

    /// A dial failed at `now`; returns the time of the next dial.
    fn failed(&mut self, now: Instant, random: u64) -> Instant;

    /// A dial succeeded at `now` and its link was lost at `lost`; returns the time of the next dial.
    fn dropped(&mut self, now: Instant, lost: Instant, random: u64) -> Instant;
}

/// `loop { match dial() { Ok(link) => { delay = initial; serve(link) } Err(_) => { sleep(delay); delay = min(delay * 2, max) } } }`
#[derive(Debug)]
pub struct SleepLoop {
    initial: Duration,
    longest: Duration,
    factor: f64,
    delay: Duration,
}

impl Schedule for SleepLoop {
    const NAME: &'static str = "sleep_loop";
    const ROLE: Role = Role::Naive;

    fn start(config: &Config, _now: Instant, _seed: u64) -> Self {
        Self {
            initial: config.initial_delay(),
            longest: config.max_delay(),
            factor: config.backoff_factor(),
            delay: config.initial_delay(),
        }
    }

    fn failed(&mut self, now: Instant, _random: u64) -> Instant {
        let delay = self.delay;
        self.delay = delay.mul_f64(self.factor).min(self.longest);
        now + delay
    }

    fn dropped(&mut self, _now: Instant, lost: Instant, random: u64) -> Instant {
        self.delay = self.initial;
        self.failed(lost, random)
    }
}

/// The backoff of the `backon` crate with its jitter; it is built anew as soon as a dial succeeds.
#[derive(Debug)]
pub struct Backon {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
}

impl Schedule for Backon {
    const NAME: &'static str = "backon";
    const ROLE: Role = Role::Rival;

    #[allow(clippy::cast_possible_truncation)] // a factor of 2
    fn start(config: &Config, _now: Instant, seed: u64) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(config.initial_delay())
            .with_max_delay(config.max_delay())
            .with_factor(config.backoff_factor() as f32)
            .without_max_times()
            .with_jitter_seed(seed)
            .with_jitter();
        Self {
            builder,
            delays: builder.build(),
        }
    }

    fn failed(&mut self, now: Instant, _random: u64) -> Instant {
        now + self.delays.next().unwrap_or_default()
    }

    fn dropped(&mut self, _now: Instant, lost: Instant, random: u64) -> Instant {
        // With the initial seed, every client would get the same random numbers again.
        self.delays = self.builder.with_jitter_seed(random).build();
        self.failed(lost, random)
    }
}

/// "Full jitter": a random delay from zero to the current delay (Brooker, Exponential Backoff And Jitter, 2015), reset
/// as soon as a dial succeeds.
#[derive(Debug)]
pub struct FullJitter(SleepLoop);

impl Schedule for FullJitter {
    const NAME: &'static str = "full_jitter";
    const ROLE: Role = Role::Rival;

    fn start(config: &Config, now: Instant, seed: u64) -> Self {
        Self(SleepLoop::start(config, now, seed))
    }

    fn failed(&mut self, now: Instant, random: u64) -> Instant {
        let longest = self.0.failed(now, random) - now;
        let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
        let part = (u128::from(nanos) * u128::from(random)) >> 64;
        now + Duration::from_nanos(u64::try_from(part).unwrap_or(nanos))
    }

    fn dropped(&mut self, now: Instant, lost: Instant, random: u64) -> Instant {
        self.0.delay = self.0.initial;
        let _ = now;
        self.failed(lost, random)
    }
}

/// The state machine of this project, used in the way that a client uses it.
#[derive(Debug)]
pub struct Machine(Reconnect);

impl Machine {
    /// The calls of [`Schedule`] cannot make an invalid transition; if they did, the next dial would be immediate and
    /// the printed quality would show it.
    fn wait(&mut self, event: Event, now: Instant, random: u64) -> Instant {
        match self.0.on_event(event, now, random) {
            Ok(Action::Wait { until }) => {
                let dial = self.0.on_event(Event::TimerDue, until, random);
                debug_assert_eq!(dial, Ok(Action::Dial));
                until
            }
            _ => now,
        }
    }
}

impl Schedule for Machine {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn start(config: &Config, now: Instant, _seed: u64) -> Self {
        let mut machine = Reconnect::new(config.clone());
        let dial = machine.on_event(Event::Start, now, 0);
        debug_assert_eq!(dial, Ok(Action::Dial));
        Self(machine)
    }

    fn failed(&mut self, now: Instant, random: u64) -> Instant {
        self.wait(Event::DialFailed(Failure::Transient), now, random)
    }

    fn dropped(&mut self, now: Instant, lost: Instant, random: u64) -> Instant {
        let serve = self
            .0
            .on_event(Event::Established { epoch: 1 }, now, random);
        debug_assert_eq!(serve, Ok(Action::Serve));
        self.wait(Event::Lost, lost, random)
    }
}
