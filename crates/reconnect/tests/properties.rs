//! Promises for any sequence of events:
//! - every delay is at most `max_delay`; after refused credentials it is between `max_delay` and one and a half times
//!   that;
//! - without jitter the delays of an outage never shrink;
//! - a delay is at most `initial_delay` plus (`backoff_factor` − 1) times the time waited in the outage, and at least
//!   half of the latter; so a client is connected again within as long as the server was unreachable, whatever was
//!   drawn;
//! - with `max_retries` = n there are exactly n retries after the first dial, then a stop;
//! - `Dial` is never returned before the `until` of the wait before it;
//! - the first retry after a stable link is due within `initial_delay`;
//! - a refused event changes nothing, and the counts agree with the actions;
//! - a thousand clients that lost the server at one instant have spread by their third retry, and stay spread;
//! - the quicker return does not cost more: the number of dials in a minute, at an unreachable server and at one that
//!   drops links.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use adit_reconnect::{Action, Config, Event, Failure, Reconnect, State, Stats};
use proptest::prelude::*;

const FAILED: Event = Event::DialFailed(Failure::Transient);
const DENIED: Event = Event::DialFailed(Failure::Unauthenticated);

fn configs() -> impl Strategy<Value = Config> {
    (
        0..6_u32,
        1..5_000_000_000_u64,
        0..100_000_000_000_u64,
        prop_oneof![Just(1.0), 1.0..1.001, 1.0..10.0, Just(f64::MAX)],
        any::<bool>(),
        0..20_000_u64,
        any::<bool>(),
    )
        .prop_map(|(retries, initial, more, factor, jitter, stable, stop)| {
            let initial = Duration::from_nanos(initial);
            let max = initial + Duration::from_nanos(more);
            Config::try_new(retries, initial, max, factor, jitter)
                .unwrap()
                .with_stable_after(Duration::from_millis(stable))
                .with_stop_when_unauthenticated(stop)
        })
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Start),
        4 => any::<u64>().prop_map(|epoch| Event::Established { epoch }),
        4 => Just(FAILED),
        2 => Just(Event::DialFailed(Failure::Refused { fatal: false })),
        1 => Just(Event::DialFailed(Failure::Refused { fatal: true })),
        2 => Just(DENIED),
        4 => Just(Event::Lost),
        8 => Just(Event::TimerDue),
        1 => Just(Event::Stop),
    ]
}

proptest! {
    #[test]
    fn every_step_keeps_the_promises(
        config in configs(),
        steps in prop::collection::vec((events(), 0..40_000_u64, any::<u64>()), 0..120),
    ) {
        let mut now = Instant::now();
        let mut machine = Reconnect::new(config.clone());
        machine.on_event(Event::Start, now, 0).unwrap();
        let (mut counted, mut not_before, mut since) = (Stats { dials: 1, losses: 0, transitions: 1 }, now, now);
        let (mut retries, mut waited) = (0, Duration::ZERO);
        for (event, millis, random) in steps {
            now += Duration::from_millis(millis);
            let (state, stats, attempt) = (machine.state(), machine.stats(), machine.attempt());
            let outcome = machine.on_event(event, now, random);
            if machine.state() != state {
                counted.transitions += 1;
            }
            let stable = event == Event::Lost && now - since >= config.stable_after();
            match outcome {
                Err(refused) => {
                    prop_assert_eq!((refused.state, refused.event), (state, event));
                    prop_assert_eq!((machine.state(), machine.stats(), machine.attempt()), (state, stats, attempt));
                }
                Ok(Action::Dial) => {
                    counted.dials += 1;
                    prop_assert!(now >= not_before);
                }
                Ok(Action::Serve) => since = now,
                Ok(Action::Wait { until }) if event == Event::TimerDue => {
                    prop_assert_eq!(State::Waiting { until }, state);
                    prop_assert!(now < until);
                }
                Ok(Action::Wait { until }) => {
                    let delay = until - now;
                    let longest = config.max_delay();
                    retries = if stable { 1 } else { retries + 1 };
                    if stable {
                        waited = Duration::ZERO;
                    }
                    prop_assert_eq!(machine.attempt(), retries);
                    prop_assert!(config.max_retries() == 0 || retries <= config.max_retries());
                    if event == DENIED {
                        prop_assert!(delay >= longest && delay <= longest + longest / 2);
                    } else {
                        let grown = (config.backoff_factor() - 1.0) * waited.as_secs_f64();
                        let most = (longest - config.initial_delay()).as_secs_f64();
                        let ceiling = config.initial_delay().as_secs_f64() + grown;
                        prop_assert!(delay <= longest);
                        prop_assert!(delay.as_secs_f64() <= ceiling + 1e-6);
                        prop_assert!(delay.as_secs_f64() >= grown.min(most) / 2.0 - 1e-6);
                        waited += delay;
                    }
                    if stable {
                        prop_assert!(delay <= config.initial_delay());
                    }
                    not_before = until;
                }
                Ok(Action::Stop(reason)) => prop_assert_eq!(machine.state(), State::Stopped(reason)),
            }
            if event == Event::Lost && outcome.is_ok() {
                counted.losses += 1;
            }
            prop_assert_eq!(machine.stats(), counted);
        }
    }

    #[test]
    fn without_jitter_delays_never_shrink(config in configs(), random in any::<u64>()) {
        let config = Config::try_new(0, config.initial_delay(), config.max_delay(), config.backoff_factor(), false).unwrap();
        let mut now = Instant::now();
        let mut machine = Reconnect::new(config.clone());
        machine.on_event(Event::Start, now, random).unwrap();
        let mut last = Duration::ZERO;
        for round in 0..200 {
            let Action::Wait { until } = machine.on_event(FAILED, now, random).unwrap() else {
                panic!("a failed dial leads to a wait");
            };
            let delay = until - now;
            prop_assert!(delay >= last, "round {round}: {delay:?} after {last:?}");
            if round == 0 {
                prop_assert_eq!(delay, config.initial_delay());
            }
            last = delay;
            now = until;
            prop_assert_eq!(machine.on_event(Event::TimerDue, now, random), Ok(Action::Dial));
        }
    }

    #[test]
    fn retries_are_counted_exactly(allowed in 1..50_u32, flapping in any::<bool>(), seed in any::<u64>()) {
        let config = Config::try_new(allowed, Duration::from_millis(1), Duration::from_secs(1), 2.0, true).unwrap();
        let (mut now, mut dice) = (Instant::now(), Dice(seed));
        let mut machine = Reconnect::new(config);
        machine.on_event(Event::Start, now, 0).unwrap();
        loop {
            let event = if flapping {
                machine.on_event(Event::Established { epoch: 1 }, now, 0).unwrap();
                Event::Lost
            } else {
                FAILED
            };
            match machine.on_event(event, now, dice.roll()).unwrap() {
                Action::Wait { until } => now = until,
                _ => break,
            }
            machine.on_event(Event::TimerDue, now, 0).unwrap();
        }
        prop_assert_eq!(machine.stats().dials, u64::from(allowed) + 1);
        prop_assert_eq!(machine.attempt(), allowed);
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// The times of the dials of one client that lost the server at `lost_at`, for as long as `until` returns; a dial takes
/// `dial` to fail.
fn dials(
    lost_at: Instant,
    until: Duration,
    dial: Duration,
    jitter: bool,
    dice: &mut Dice,
) -> Vec<Duration> {
    let defaults = Config::default();
    let (initial, max) = (defaults.initial_delay(), defaults.max_delay());
    let config = Config::try_new(0, initial, max, defaults.backoff_factor(), jitter).unwrap();
    let mut machine = Reconnect::new(config);
    machine.on_event(Event::Start, lost_at, 0).unwrap();
    let (mut now, mut times) = (lost_at, Vec::new());
    while times.last().is_none_or(|last| *last < until) {
        let Action::Wait { until } = machine.on_event(FAILED, now, dice.roll()).unwrap() else {
            panic!("a failed dial leads to a wait");
        };
        times.push(until - lost_at);
        machine.on_event(Event::TimerDue, until, 0).unwrap();
        now = until + dial;
    }
    times
}

/// For each round, how many of `clients` dial within the busiest 10 ms, when all lost the server at one instant and it
/// stays unreachable; and how many in the busiest 10 ms between the fifth second and the thirtieth.
fn fullest_buckets(clients: usize, rounds: usize, jitter: bool, seed: u64) -> (Vec<usize>, usize) {
    let lost_at = Instant::now();
    let mut dice = Dice(seed);
    let mut buckets = vec![HashMap::<u128, usize>::new(); rounds];
    let mut late = HashMap::<u128, usize>::new();
    let (from, to) = (Duration::from_secs(5), Duration::from_secs(30));
    for _ in 0..clients {
        let times = dials(lost_at, to, Duration::ZERO, jitter, &mut dice);
        for (round, time) in buckets.iter_mut().zip(&times) {
            *round.entry(time.as_millis() / 10).or_default() += 1;
        }
        for time in times.iter().filter(|time| (from..to).contains(*time)) {
            *late.entry(time.as_millis() / 10).or_default() += 1;
        }
    }
    let fullest = |of: &HashMap<u128, usize>| of.values().copied().max().unwrap_or_default();
    (buckets.iter().map(fullest).collect(), fullest(&late))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The first delays are spread over 100 ms, later ones over more and more. The bounds allow for random variation.
    #[test]
    fn a_herd_spreads(seed in any::<u64>()) {
        let (fullest, late) = fullest_buckets(1000, 6, true, seed);
        prop_assert!(fullest[0] <= 160, "{fullest:?}");
        prop_assert!(fullest[2] <= 80, "{fullest:?}");
        prop_assert!(fullest[3] <= 60, "{fullest:?}");
        prop_assert!(fullest[4] <= 45, "{fullest:?}");
        prop_assert!(fullest[5] <= 35, "{fullest:?}");
        prop_assert!(late <= 25, "{late}");
    }

    /// After an outage a client connects again within the length of the outage, also when each dial takes some time to
    /// fail.
    #[test]
    fn a_client_returns_within_the_time_of_the_outage(
        seed in any::<u64>(),
        away in 1..60_000_u64,
        dial in 0..3_000_u64,
    ) {
        let (away, dial) = (Duration::from_millis(away), Duration::from_millis(dial));
        let times = dials(Instant::now(), away, dial, true, &mut Dice(seed));
        let back = *times.last().unwrap() - away;
        // The dial that was running at the server's return has still to fail.
        prop_assert!(back <= away + dial + Config::default().initial_delay(), "{back:?}");
        prop_assert!(back <= Config::default().max_delay() + dial);
    }
}

#[test]
fn without_jitter_a_herd_stays_together() {
    assert_eq!(fullest_buckets(1000, 4, false, 1), (vec![1000; 4], 1000));
}

/// Full jitter by the number of retries makes eleven dials in the first minute, as the mean of a thousand clients.
#[test]
fn a_minute_without_the_server_costs_a_dozen_dials() {
    let (minute, mut dice) = (Duration::from_secs(60), Dice(1));
    let made: usize = (0..1000)
        .map(|_| dials(Instant::now(), minute, Duration::ZERO, true, &mut dice).len() - 1)
        .sum();
    assert!((10_000..13_000).contains(&made), "{made}");
}

#[test]
fn a_minute_of_dropped_links_costs_a_dozen_dials() {
    let (mut dice, mut dials) = (Dice(1), 0);
    for _ in 0..1000 {
        let start = Instant::now();
        let mut machine = Reconnect::new(Config::default());
        machine.on_event(Event::Start, start, 0).unwrap();
        let mut now = start;
        while now - start < Duration::from_secs(60) {
            machine
                .on_event(Event::Established { epoch: 1 }, now, 0)
                .unwrap();
            now += Duration::from_millis(1);
            let Action::Wait { until } = machine.on_event(Event::Lost, now, dice.roll()).unwrap()
            else {
                panic!("a lost link leads to a wait");
            };
            now = until;
            machine.on_event(Event::TimerDue, now, 0).unwrap();
        }
        dials += machine.stats().dials - 1;
    }
    assert!((11_000..14_000).contains(&dials), "{dials}");
}
