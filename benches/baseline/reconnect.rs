//! When to dial again, as clients usually write it: a delay in a loop, without jitter, reset as soon as a dial succeeds.

use std::time::{Duration, Instant};

use adit_reconnect::{Action, Config, Event, Failure, Reconnect};

/// What a bench needs of a schedule.
pub trait Schedule {
    /// The contender's name in bench ids.
    const NAME: &'static str;

    /// A client that dials for the first time at `now`.
    fn start(config: &Config, now: Instant) -> Self;

    /// A dial failed at `now`: when is the next one?
    fn failed(&mut self, now: Instant, random: u64) -> Instant;

    /// A dial succeeded at `now` and its link was lost at `lost`: when is the next dial?
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

    fn start(config: &Config, _now: Instant) -> Self {
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

/// The state machine, driven as a client drives it.
#[derive(Debug)]
pub struct Machine(Reconnect);

impl Machine {
    /// A wrong move cannot come from the calls of [`Schedule`]; if it did, the next dial would be at once and the quality
    /// printed would show it.
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
    const NAME: &'static str = "machine";

    fn start(config: &Config, now: Instant) -> Self {
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
