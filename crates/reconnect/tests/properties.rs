//! What is promised, whatever happens:
//! - every delay is at most `max_delay`, and at most one and a half times that (and at least once) after refused credentials;
//! - without jitter the delays of an outage never shrink;
//! - with `max_retries` = n there are exactly n retries after the first dial, then a stop;
//! - `Dial` never comes before the `until` of the wait before it;
//! - the first retry after a stable link is due within `initial_delay`;
//! - a refused event changes nothing, and the counts agree with the actions;
//! - a thousand clients that lost the server at one instant have spread by their third retry.
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
        let mut retries = 0;
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
                    prop_assert_eq!(machine.attempt(), retries);
                    prop_assert!(config.max_retries() == 0 || retries <= config.max_retries());
                    if event == DENIED {
                        prop_assert!(delay >= longest && delay <= longest + longest / 2);
                    } else {
                        prop_assert!(delay <= longest);
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

/// For each round, how many of `clients` dial within the fullest 10 ms, when all lost the server at one instant and it
/// stays away.
fn fullest_buckets(clients: usize, rounds: usize, jitter: bool, seed: u64) -> Vec<usize> {
    let lost_at = Instant::now();
    let mut dice = Dice(seed);
    let defaults = Config::default();
    let config = Config::try_new(
        0,
        defaults.initial_delay(),
        defaults.max_delay(),
        defaults.backoff_factor(),
        jitter,
    )
    .unwrap();
    let mut buckets = vec![HashMap::<u128, usize>::new(); rounds];
    for _ in 0..clients {
        let mut machine = Reconnect::new(config.clone());
        machine.on_event(Event::Start, lost_at, 0).unwrap();
        let mut now = lost_at;
        for round in &mut buckets {
            let Action::Wait { until } = machine.on_event(FAILED, now, dice.roll()).unwrap() else {
                panic!("a failed dial leads to a wait");
            };
            now = until;
            *round.entry((now - lost_at).as_millis() / 10).or_default() += 1;
            machine.on_event(Event::TimerDue, now, 0).unwrap();
        }
    }
    buckets
        .iter()
        .map(|round| round.values().copied().max().unwrap_or_default())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// In round 3 the last delay alone is spread over 400 ms: no 10 ms can expect more than a fortieth, and each round
    /// halves it. The bounds leave room for chance.
    #[test]
    fn a_herd_spreads(seed in any::<u64>()) {
        let fullest = fullest_buckets(1000, 6, true, seed);
        prop_assert!(fullest[2] <= 60, "{fullest:?}");
        prop_assert!(fullest[3] <= 40, "{fullest:?}");
        prop_assert!(fullest[4] <= 30, "{fullest:?}");
        prop_assert!(fullest[5] <= 20, "{fullest:?}");
    }
}

#[test]
fn without_jitter_a_herd_stays_together() {
    assert_eq!(fullest_buckets(1000, 4, false, 1), [1000; 4]);
}
