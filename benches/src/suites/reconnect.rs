//! When to dial again: an outage of `size` failed dials, then a dial that succeeds and whose link is lost after a
//! minute. Threads share nothing, like clients.
//!
//! Quality, for clients that lost one server at the same instant: how many of a thousand dial within the busiest 10 ms,
//! in their first dials, in their sixth dials, and in any dial from the fifth second on; the number of dials in a
//! minute without the server, and in a minute with a server that accepts and drops each connection at once; and how
//! long after the server's return a client dials. A fixed length of the outage can favour a schedule without jitter
//! whose dial happens to follow soon after the outage, so outages of random length are measured, too.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use adit_reconnect::Config;

use crate::{
    baseline::reconnect::{Backon, FullJitter, Machine, Schedule, SleepLoop},
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Suite},
    dice::Dice,
};

/// The suite.
pub const SUITE: Suite = Suite {
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
        let mut now = Instant::now();
        let mut schedule = S::start(&Config::default(), now, 1);
        Box::new(move |times| {
            for _ in 0..times {
                for _ in 0..failures {
                    now = schedule.failed(now, dice.roll());
                }
                // Time continues from one outage to the next: a schedule may depend on it.
                let lost = now + Duration::from_secs(60);
                now = black_box(schedule.dropped(now, lost, dice.roll()));
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

/// The number of outages over which a herd is averaged.
const OUTAGES: u32 = 50;

/// How many clients dial within the busiest 10 ms: in the first round, in the sixth, and from the fifth to the sixtieth
/// second of the outage, each averaged over [`OUTAGES`]. And how often a client dials in these sixty seconds.
fn herds<S: Schedule>() -> [f64; 4] {
    const FROM: Duration = Duration::from_secs(5);
    const TO: Duration = Duration::from_secs(60);
    let mut dice = Dice::new(7);
    let mut fullest = [0; 3];
    let mut dials = 0;
    for _ in 0..OUTAGES {
        let lost = Instant::now();
        let mut rounds = vec![HashMap::<u128, usize>::new(); ROUNDS];
        let mut late = HashMap::<u128, usize>::new();
        for _ in 0..CLIENTS {
            let mut schedule = S::start(&Config::default(), lost, dice.roll());
            let (mut now, mut round) = (lost, 0);
            while round < ROUNDS || now < lost + TO {
                now = schedule.failed(now, dice.roll());
                let slot = (now - lost).as_millis() / 10;
                if let Some(slots) = rounds.get_mut(round) {
                    *slots.entry(slot).or_default() += 1;
                }
                if now < lost + TO {
                    dials += 1;
                    if now >= lost + FROM {
                        *late.entry(slot).or_default() += 1;
                    }
                }
                round += 1;
            }
        }
        let counted = [&rounds[0], &rounds[ROUNDS - 1], &late];
        for (sum, slots) in fullest.iter_mut().zip(counted) {
            *sum += slots.values().copied().max().unwrap_or_default();
        }
    }
    let [first, sixth, late] = fullest.map(|sum| sum as f64 / f64::from(OUTAGES));
    [
        first,
        sixth,
        late,
        f64::from(dials) / f64::from(OUTAGES) / CLIENTS as f64,
    ]
}

/// The mean number of dials of a thousand clients.
fn dials_of_a_flapping_minute<S: Schedule>() -> f64 {
    let mut dice = Dice::new(7);
    let start = Instant::now();
    let mut dials = 0.0;
    for _ in 0..CLIENTS {
        let mut schedule = S::start(&Config::default(), start, dice.roll());
        let mut now = start;
        while now - start < Duration::from_secs(60) {
            dials += 1.0;
            now = schedule.dropped(now, now + Duration::from_millis(1), dice.roll());
        }
    }
    dials / CLIENTS as f64
}

/// Median and 99th percentile of the milliseconds from the server's return to the next dial, after an outage of a
/// random length from `least` to `most` milliseconds.
fn return_after<S: Schedule>(least: u64, most: u64) -> [f64; 2] {
    const CLIENTS: u64 = 10_000;
    let mut dice = Dice::new(7);
    let mut late: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let outage =
                Duration::from_micros(least * 1000 + (most - least) * 1000 * client / CLIENTS);
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
    let place = |percent: usize| late[late.len() * percent / 100].as_secs_f64() * 1000.0;
    [place(50), place(99)]
}

fn qualities<S: Schedule>(figures: &mut Vec<Figure>) {
    let mut add = |what: &str, value| {
        figures.push(Figure::new("outage", S::NAME, CLIENTS, what, value));
    };
    let [first, sixth, late, dials] = herds::<S>();
    add(
        "clients of 1000 in the fullest 10 ms of the first dial",
        first,
    );
    add("the same at the sixth dial", sixth);
    add("the same from the fifth second to the sixtieth", late);
    add("dials of a minute without the server", dials);
    add(
        "dials of a minute at a server that accepts and drops",
        dials_of_a_flapping_minute::<S>(),
    );
    for (outage, least, most) in [
        ("0.5 s", 500, 500),
        ("5 s", 5_000, 5_000),
        ("60 s", 60_000, 60_000),
        ("1 s to 10 s", 1_000, 10_000),
    ] {
        let [median, late] = return_after::<S>(least, most);
        let what = format!("ms from the return after {outage} to a dial, median");
        add(&what, median);
        let what = format!("the same after {outage}, 99th percentile");
        add(&what, late);
    }
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
    // The clients are on the heap, so that the allocator counts all of their memory.
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
