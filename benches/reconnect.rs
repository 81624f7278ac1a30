//! When to dial again: the cost of deciding, and, on standard error, how good the decisions are.
//!
//! Quality, for clients that lost one server at the same instant: the share of a thousand that dials within the fullest
//! 10 ms of each round (less is better), the dials of a minute against a server that accepts and drops at once (less is
//! better), and how long after the server's return a client dials (less is better).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use adit_benches::reconnect::{Machine, Schedule, SleepLoop};
use adit_reconnect::Config;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const CLIENTS: usize = 1000;
const ROUNDS: usize = 6;

/// SplitMix64.
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

/// One outage: so many dials fail, then one succeeds and its link is lost after a minute.
fn on_event<S: Schedule>(c: &mut Criterion) {
    let mut group = c.benchmark_group("reconnect/on_event");
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for failures in [1, 10, 100] {
        group.bench_function(BenchmarkId::new(S::NAME, failures), |b| {
            let mut dice = Dice(1);
            let start = Instant::now();
            let mut schedule = S::start(&Config::default(), start);
            b.iter(|| {
                let mut now = start;
                for _ in 0..failures {
                    now = schedule.failed(now, dice.roll());
                }
                let lost = now + Duration::from_secs(60);
                black_box(schedule.dropped(now, lost, dice.roll()))
            });
        });
    }
    group.finish();
}

fn fullest_buckets<S: Schedule>(dice: &mut Dice) -> Vec<String> {
    let lost = Instant::now();
    let mut rounds = vec![HashMap::<u128, usize>::new(); ROUNDS];
    for _ in 0..CLIENTS {
        let mut schedule = S::start(&Config::default(), lost);
        let mut now = lost;
        for round in &mut rounds {
            now = schedule.failed(now, dice.roll());
            *round.entry((now - lost).as_millis() / 10).or_default() += 1;
        }
    }
    rounds
        .iter()
        .map(|round| round.values().copied().max().unwrap_or_default())
        .map(|fullest| format!("{:.1} %", 100.0 * fullest as f64 / CLIENTS as f64))
        .collect()
}

fn dials_of_a_flapping_minute<S: Schedule>(dice: &mut Dice) -> usize {
    let start = Instant::now();
    let mut schedule = S::start(&Config::default(), start);
    let (mut now, mut dials) = (start, 0);
    while now - start < Duration::from_secs(60) {
        dials += 1;
        now = schedule.dropped(now, now + Duration::from_millis(1), dice.roll());
    }
    dials
}

/// Median and 99th percentile of the time from the server's return to the next dial.
fn return_after<S: Schedule>(outage: Duration, dice: &mut Dice) -> (Duration, Duration) {
    let mut late: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let lost = Instant::now();
            let mut schedule = S::start(&Config::default(), lost);
            let mut now = lost;
            while now < lost + outage {
                now = schedule.failed(now, dice.roll());
            }
            now - lost - outage
        })
        .collect();
    late.sort_unstable();
    (late[CLIENTS / 2], late[CLIENTS * 99 / 100])
}

fn quality<S: Schedule>(_: &mut Criterion) {
    let dice = &mut Dice(7);
    let name = S::NAME;
    eprintln!(
        "reconnect/herd/{name}/{CLIENTS}: fullest 10 ms of rounds 1 to {ROUNDS}: {}",
        fullest_buckets::<S>(dice).join(", ")
    );
    eprintln!(
        "reconnect/flapping/{name}/60s: {} dials",
        dials_of_a_flapping_minute::<S>(dice)
    );
    for outage in [Duration::from_millis(500), Duration::from_secs(5)] {
        let (median, p99) = return_after::<S>(outage, dice);
        eprintln!(
            "reconnect/return/{name}/{outage:?}: median {} ms, p99 {} ms",
            median.as_millis(),
            p99.as_millis()
        );
    }
}

criterion_group!(
    benches,
    quality::<Machine>,
    quality::<SleepLoop>,
    on_event::<Machine>,
    on_event::<SleepLoop>
);
criterion_main!(benches);
