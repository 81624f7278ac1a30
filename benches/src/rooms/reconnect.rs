//! When to dial again: an outage of `size` failed dials, then one that succeeds and whose link is lost after a minute.
//! Threads share nothing, as clients do not.
//!
//! Quality, for clients that lost one server at the same instant: how many of a thousand dial within the fullest 10 ms,
//! the dials of a minute against a server that accepts and drops at once, and how long after the server's return a
//! client dials.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use adit_reconnect::Config;

use crate::{
    baseline::reconnect::{Backon, FullJitter, Machine, Schedule, SleepLoop},
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Room},
    dice::Dice,
};

/// The room.
pub const ROOM: Room = Room {
    name: "reconnect",
    cases,
    quality,
    memory,
};

const FAILURES: [usize; 3] = [1, 10, 100];
const CLIENTS: usize = 1000;
const ROUNDS: usize = 6;

fn outage<S: Schedule + Send + 'static>(failures: usize) -> Case {
    Case::alone("outage", (S::NAME, S::ROLE), failures, move || {
        let mut dice = Dice::new(1);
        let start = Instant::now();
        let mut schedule = S::start(&Config::default(), start, 1);
        Box::new(move |times| {
            for _ in 0..times {
                let mut now = start;
                for _ in 0..failures {
                    now = schedule.failed(now, dice.roll());
                }
                let lost = now + Duration::from_secs(60);
                black_box(schedule.dropped(now, lost, dice.roll()));
            }
        })
    })
}

fn cases() -> Vec<Case> {
    FAILURES
        .into_iter()
        .flat_map(|failures| {
            [
                outage::<SleepLoop>(failures),
                outage::<FullJitter>(failures),
                outage::<Backon>(failures),
                outage::<Machine>(failures),
            ]
        })
        .collect()
}

/// How many clients dial within the fullest 10 ms, in the first round and in the sixth; the mean of so many outages.
fn herds<S: Schedule>() -> [f64; 2] {
    const OUTAGES: u32 = 50;
    let mut dice = Dice::new(7);
    let mut fullest = [0, 0];
    for _ in 0..OUTAGES {
        let lost = Instant::now();
        let mut rounds = vec![HashMap::<u128, usize>::new(); ROUNDS];
        for _ in 0..CLIENTS {
            let mut schedule = S::start(&Config::default(), lost, dice.roll());
            let mut now = lost;
            for round in &mut rounds {
                now = schedule.failed(now, dice.roll());
                *round.entry((now - lost).as_millis() / 10).or_default() += 1;
            }
        }
        for (sum, round) in fullest.iter_mut().zip([0, ROUNDS - 1]) {
            *sum += rounds[round].values().copied().max().unwrap_or_default();
        }
    }
    fullest.map(|sum| sum as f64 / f64::from(OUTAGES))
}

fn dials_of_a_flapping_minute<S: Schedule>() -> f64 {
    let mut dice = Dice::new(7);
    let start = Instant::now();
    let mut schedule = S::start(&Config::default(), start, 1);
    let (mut now, mut dials) = (start, 0.0);
    while now - start < Duration::from_secs(60) {
        dials += 1.0;
        now = schedule.dropped(now, now + Duration::from_millis(1), dice.roll());
    }
    dials
}

/// Median and 99th percentile of the milliseconds from the server's return to the next dial.
fn return_after<S: Schedule>(outage: Duration) -> [f64; 2] {
    let mut dice = Dice::new(7);
    let mut late: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let lost = Instant::now();
            let mut schedule = S::start(&Config::default(), lost, dice.roll());
            let mut now = lost;
            while now < lost + outage {
                now = schedule.failed(now, dice.roll());
            }
            now - lost - outage
        })
        .collect();
    late.sort_unstable();
    [CLIENTS / 2, CLIENTS * 99 / 100].map(|place| late[place].as_secs_f64() * 1000.0)
}

fn qualities<S: Schedule>(figures: &mut Vec<Figure>) {
    let mut add = |what: &str, value| {
        figures.push(Figure::new("outage", S::NAME, CLIENTS, what, value));
    };
    let [first, sixth] = herds::<S>();
    add(
        "clients of 1000 in the fullest 10 ms of the first dial",
        first,
    );
    add("the same at the sixth dial", sixth);
    add(
        "dials of a minute at a server that accepts and drops",
        dials_of_a_flapping_minute::<S>(),
    );
    let [median, late] = return_after::<S>(Duration::from_millis(500));
    add("ms from the return after 0.5 s to a dial, median", median);
    add("the same, 99th percentile", late);
    let [median, late] = return_after::<S>(Duration::from_secs(5));
    add("ms from the return after 5 s to a dial, median", median);
    add("the same after 5 s, 99th percentile", late);
}

fn quality() -> Vec<Figure> {
    let mut figures = Vec::new();
    qualities::<SleepLoop>(&mut figures);
    qualities::<FullJitter>(&mut figures);
    qualities::<Backon>(&mut figures);
    qualities::<Machine>(&mut figures);
    figures
}

fn held<S: Schedule>(meter: &Meter, figures: &mut Vec<Figure>) {
    let start = Instant::now();
    // On the heap, so that the allocator sees all of it.
    let bytes = meter.per_entry(CLIENTS, || {
        let mut schedules: Vec<S> = Vec::with_capacity(CLIENTS);
        schedules.extend((0..CLIENTS as u64).map(|seed| S::start(&Config::default(), start, seed)));
        for schedule in &mut schedules {
            schedule.failed(start, 1);
        }
        schedules
    });
    for size in FAILURES {
        figures.push(Figure::new("outage", S::NAME, size, BYTES_PER_ENTRY, bytes));
    }
}

fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    held::<SleepLoop>(meter, &mut figures);
    held::<FullJitter>(meter, &mut figures);
    held::<Backon>(meter, &mut figures);
    held::<Machine>(meter, &mut figures);
    figures
}
