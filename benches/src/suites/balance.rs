//! Choosing one of `size` members of weights 1 to 4: a request begins at the member that is chosen, and the oldest of
//! four for each member ends. `consistent_hash_anew` builds the set again, as when a member is added or removed, and
//! chooses a hundred times; the other measurements of hashing start after so many choices that everything that is
//! computed lazily has been computed.
//!
//! Quality: the load of the fullest member relative to the mean, each divided by its weight, for requests of some
//! duration; the same for turns while one member is excluded; and the share of keys that move when one member of ten is
//! removed.

use std::{collections::VecDeque, hint::black_box, sync::Arc};

use adit_balance::{Draw, Policy};

use crate::{
    baseline::balance::{
        AtomicCursor, Choose, First, Ketama, Ours, Running, Scan, Smooth, TowerP2c,
    },
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Suite, Worker},
    dice::mix,
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "balance",
    cases,
    quality,
    memory,
};

const SIZES: [usize; 2] = [4, 64];
const NO_MEMBER: usize = usize::MAX;

/// Weyl's step: a counter of random numbers, so that generating them costs nothing in either design.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Weights 1 to 4 in turn.
fn weights(size: usize) -> Vec<usize> {
    (0..size).map(|id| 1 + id % 4).collect()
}

fn operation(policy: Policy) -> &'static str {
    match policy {
        Policy::RoundRobin => "round_robin",
        Policy::WeightedRoundRobin => "weighted_round_robin",
        Policy::LeastConnections => "least_connections",
        Policy::ConsistentHash => "consistent_hash",
        Policy::IpHash => "ip_hash",
        Policy::PowerOfTwo => "power_of_two",
    }
}

fn choose<C: Choose>(policy: Policy, size: usize) -> Case {
    let contender = (C::NAME, C::ROLE);
    Case::new(operation(policy), contender, size, move |threads| {
        let chooser = Arc::new(C::new(policy, &weights(size)));
        if policy.uses_hash() {
            warm(&*chooser);
        }
        let worker = |thread| -> Worker {
            let chooser = Arc::clone(&chooser);
            let mut running: VecDeque<Running> = VecDeque::new();
            let mut throw = mix(thread as u64);
            Box::new(move |times| {
                for _ in 0..times {
                    throw = throw.wrapping_add(STEP);
                    let draw = Draw {
                        hash: throw,
                        random: throw,
                    };
                    let (id, request) = chooser.choose(draw, black_box(NO_MEMBER)).unwrap();
                    black_box(id);
                    running.push_back(request);
                    if running.len() > 4 * size {
                        running.pop_front();
                    }
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

/// Chooses for keys so close together that each slot of the design of this project gets one.
fn warm<C: Choose>(chooser: &C) {
    for n in 0..1_u64 << 16 {
        let draw = Draw {
            hash: n.wrapping_mul(STEP),
            random: 0,
        };
        drop(chooser.choose(draw, NO_MEMBER));
    }
}

/// Builds the set again and chooses a hundred times.
fn anew<C: Choose>(policy: Policy, size: usize) -> Case {
    const CHOICES: u64 = 100;
    Case::alone(
        "consistent_hash_anew",
        (C::NAME, C::ROLE),
        size,
        move || {
            let weights = weights(size);
            let mut throw = 0_u64;
            Box::new(move |times| {
                for _ in 0..times {
                    let chooser = C::new(policy, black_box(&weights));
                    for _ in 0..CHOICES {
                        throw = throw.wrapping_add(STEP);
                        let draw = Draw {
                            hash: throw,
                            random: throw,
                        };
                        black_box(chooser.choose(draw, black_box(NO_MEMBER)).unwrap().0);
                    }
                }
            })
        },
    )
    .single()
}

/// Calls `$call::<Rival>(…)` for the contenders of a policy.
macro_rules! contenders {
    ($policy:expr, $call:ident ( $($argument:expr),* )) => {{
        let policy = $policy;
        let first = $call::<First>(policy, $($argument),*);
        let rival = match policy {
            Policy::RoundRobin => $call::<AtomicCursor>(policy, $($argument),*),
            Policy::WeightedRoundRobin => $call::<Smooth>(policy, $($argument),*),
            Policy::LeastConnections => $call::<Scan>(policy, $($argument),*),
            Policy::ConsistentHash | Policy::IpHash => $call::<Ketama>(policy, $($argument),*),
            Policy::PowerOfTwo => $call::<TowerP2c>(policy, $($argument),*),
        };
        [first, rival, $call::<Ours>(policy, $($argument),*)]
    }};
}

/// The address of a visitor is just another key: `ip_hash` is `consistent_hash` under another name.
fn policies() -> impl Iterator<Item = Policy> {
    Policy::ALL
        .into_iter()
        .filter(|&policy| policy != Policy::IpHash)
}

fn cases() -> Vec<Case> {
    let chosen = policies()
        .flat_map(|policy| SIZES.map(|size| contenders!(policy, choose(size))))
        .flatten();
    let anew = SIZES.map(|size| contenders!(Policy::ConsistentHash, anew(size)));
    chosen.chain(anew.into_iter().flatten()).collect()
}

/// The load of the fullest member relative to the mean, each divided by its weight, averaged over time, where each new
/// request ends another one; every tenth request lasts ten times as long.
fn imbalance<C: Choose>(policy: Policy, size: usize) -> Figure {
    let weights = weights(size);
    let capacity: usize = weights.iter().sum();
    let stay = capacity * 10;
    let chooser = C::new(policy, &weights);
    let mut loads = vec![0_usize; weights.len()];
    let (mut sum, mut looks) = (0.0_f64, 0.0_f64);
    let (mut short, mut long) = (VecDeque::new(), VecDeque::new());
    for n in 0..200_000_u64 {
        let draw = Draw {
            hash: mix(n + 1),
            random: mix(!n),
        };
        let (id, request) = chooser.choose(draw, NO_MEMBER).unwrap();
        loads[id] += 1;
        let queue = if mix(n + 1).is_multiple_of(10) {
            &mut long
        } else {
            &mut short
        };
        queue.push_back((id, request));
        if queue.len() > stay
            && let Some((ended, _)) = queue.pop_front()
        {
            loads[ended] -= 1;
        }
        if n > 20_000 && n.is_multiple_of(100) {
            let mean = loads.iter().sum::<usize>() as f64 / capacity as f64;
            let of_weight = loads.iter().zip(&weights);
            let fullest = of_weight
                .map(|(&load, &weight)| load as f64 / weight as f64)
                .fold(0.0, f64::max);
            sum += fullest / mean;
            looks += 1.0;
        }
    }
    let what = "fullest member / mean, each for its weight, over time";
    Figure::new(operation(policy), C::NAME, size, what, sum / looks).near(1.0)
}

/// The highest share of all requests that one member received, when only the newest request runs.
fn idle<C: Choose>(policy: Policy, size: usize) -> Figure {
    const REQUESTS: u32 = 16_000;
    let chooser = C::new(policy, &vec![1; size]);
    let mut served = vec![0_u32; size];
    for n in 1..=u64::from(REQUESTS) {
        let draw = Draw {
            hash: mix(n),
            random: mix(!n),
        };
        served[chooser.choose(draw, NO_MEMBER).unwrap().0] += 1;
    }
    let most = served.iter().max().copied().unwrap_or_default();
    let mean = f64::from(REQUESTS) / size as f64;
    let what = "most requests of one member / mean, one at a time";
    Figure::new(
        operation(policy),
        C::NAME,
        size,
        what,
        f64::from(most) / mean,
    )
    .near(1.0)
}

/// Turns while one member is excluded: the most turns of one member relative to the mean, each divided by its weight.
fn one_out<C: Choose>(policy: Policy, size: usize) -> Figure {
    const TURNS: u32 = 12_000;
    const OUT: usize = 4;
    let weights = match policy {
        Policy::RoundRobin => vec![1; size],
        _ => weights(size),
    };
    let chooser = C::new(policy, &weights);
    let mut turns = vec![0_u32; size];
    for _ in 0..TURNS {
        turns[chooser.choose(Draw::default(), OUT).unwrap().0] += 1;
    }
    let of_weight = { turns.iter().zip(&weights) }
        .map(|(&turns, &weight)| f64::from(turns) / weight as f64)
        .fold(0.0, f64::max);
    let capacity = weights.iter().sum::<usize>() - weights[OUT];
    let mean = f64::from(TURNS) / capacity as f64;
    let what = "most turns of one member / mean, each for its weight, while one is out";
    Figure::new(operation(policy), C::NAME, size, what, of_weight / mean).near(1.0)
}

fn moved<C: Choose>(policy: Policy, size: usize) -> Figure {
    const KEYS: u32 = 10_000;
    let chooser = C::new(policy, &vec![1; size]);
    let place = |key, out| {
        let draw = Draw {
            hash: key,
            random: 0,
        };
        chooser.choose(draw, out).unwrap().0
    };
    let keys = (1..=u64::from(KEYS)).map(mix);
    let moves = keys
        .filter(|&key| place(key, NO_MEMBER) != place(key, 4))
        .count();
    let share = moves as f64 / f64::from(KEYS);
    let what = "share of keys that move when one leaves";
    Figure::new(operation(policy), C::NAME, size, what, share).near(1.0 / size as f64)
}

fn quality() -> Vec<Figure> {
    let mut figures = Vec::new();
    for policy in policies() {
        figures.extend(contenders!(policy, imbalance(16)));
    }
    for policy in [Policy::RoundRobin, Policy::WeightedRoundRobin] {
        figures.extend(contenders!(policy, one_out(16)));
    }
    figures.extend(contenders!(Policy::LeastConnections, idle(16)));
    figures.extend(contenders!(Policy::ConsistentHash, moved(10)));
    figures
}

fn held<C: Choose>(policy: Policy, size: usize, meter: &Meter) -> Figure {
    let weights = weights(size);
    let bytes = meter.per_entry(size, || {
        let chooser = Box::new(C::new(policy, &weights));
        // Some designs compute their plan at the first choice.
        drop(chooser.choose(Draw::default(), NO_MEMBER));
        chooser
    });
    Figure::new(operation(policy), C::NAME, size, BYTES_PER_ENTRY, bytes)
}

fn memory(meter: &Meter) -> Vec<Figure> {
    policies()
        .flat_map(|policy| SIZES.map(|size| contenders!(policy, held(size, meter))))
        .flatten()
        .collect()
}
