//! Choosing a member: the time of one choice, and, on standard error, how good the choices are.
//!
//! Quality: the fullest of the members beside the mean, for requests that stay a while (1 is best); and the share of
//! keys that move when one member of ten leaves (a tenth is best).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    cell::Cell, collections::VecDeque, hint::black_box, sync::atomic::Ordering, time::Duration,
};

use adit_balance::{Balancer, Draw, Load, Member, Policy, hash_bytes};
use adit_benches::balance::{Backend, Naive};
use criterion::{Criterion, criterion_group, criterion_main};

const SIZES: [usize; 2] = [4, 64];

/// The n-th throw of fair dice.
fn dice(n: u64) -> u64 {
    hash_bytes(&n.to_le_bytes())
}

/// Weights 1 to 4 in turn.
fn weights(size: usize) -> Vec<usize> {
    (0..size).map(|id| 1 + id % 4).collect()
}

fn balancer(policy: Policy, weights: &[usize]) -> Balancer<usize> {
    let members = weights
        .iter()
        .enumerate()
        .map(|(id, &weight)| {
            let weight = u32::try_from(weight).unwrap();
            Member::new(id, dice(id as u64), weight, Load::new())
        })
        .collect();
    Balancer::new(policy, members)
}

/// What the naive version does under the name of a policy.
fn naive_choice(naive: &Naive, policy: Policy, draw: Draw, out: usize) -> Option<&Backend> {
    let eligible = |id| id != out;
    match policy {
        Policy::RoundRobin => naive.round_robin(eligible),
        Policy::WeightedRoundRobin => naive.weighted(eligible),
        Policy::LeastConnections => naive.least(eligible),
        Policy::ConsistentHash | Policy::IpHash => naive.modulo(draw.hash, eligible),
        Policy::PowerOfTwo => naive.random(draw.random, eligible),
    }
}

fn choose(c: &mut Criterion) {
    for policy in Policy::ALL {
        let mut group = c.benchmark_group(format!("balance/choose/{policy}"));
        group
            .warm_up_time(Duration::from_millis(50))
            .measurement_time(Duration::from_millis(200))
            .sample_size(20);
        for size in SIZES {
            // Throws are counted by Weyl's step, so that the dice cost nothing in either.
            let n = Cell::new(0_u64);
            let throw = || {
                n.set(n.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
                Draw {
                    hash: n.get(),
                    random: n.get(),
                }
            };
            let nobody = black_box(usize::MAX);
            let ours = balancer(policy, &weights(size));
            group.bench_function(format!("adit/{size}"), |b| {
                b.iter(|| black_box(ours.choose(throw(), |&id| id != nobody)).map(Member::id));
            });
            let failed = black_box(0);
            group.bench_function(format!("adit_one_out/{size}"), |b| {
                b.iter(|| black_box(ours.choose(throw(), |&id| id != failed)).map(Member::id));
            });
            let naive = Naive::new(&weights(size));
            group.bench_function(format!("naive/{size}"), |b| {
                b.iter(|| {
                    let chosen = naive_choice(&naive, policy, throw(), nobody);
                    black_box(chosen).map(|backend| backend.id)
                });
            });
        }
        group.finish();
    }
}

/// The fullest member beside the mean, each for its weight, where `running` requests stay and each new one ends
/// another; every tenth stays ten times as long.
fn imbalance(weights: &[usize], mut choose: impl FnMut(u64) -> usize) -> f64 {
    let capacity: usize = weights.iter().sum();
    let running = capacity * 20;
    let mut loads = vec![0_usize; weights.len()];
    let mut worst = 0.0_f64;
    let mut short = VecDeque::new();
    let mut long = VecDeque::new();
    for n in 0..200_000_u64 {
        let id = choose(n);
        loads[id] += 1;
        let (queue, stay) = if dice(n).is_multiple_of(10) {
            (&mut long, running / 2)
        } else {
            (&mut short, running / 2)
        };
        queue.push_back(id);
        if queue.len() > stay {
            loads[queue.pop_front().unwrap()] -= 1;
        }
        if n > 20_000 && n % 100 == 0 {
            let mean = loads.iter().sum::<usize>() as f64 / capacity as f64;
            let fullest = loads
                .iter()
                .zip(weights)
                .map(|(&load, &weight)| load as f64 / weight as f64)
                .fold(0.0, f64::max);
            worst = worst.max(fullest / mean);
        }
    }
    worst
}

fn moved(mut before: impl FnMut(u64) -> usize, mut after: impl FnMut(u64) -> usize) -> f64 {
    const KEYS: u32 = 10_000;
    let keys = (0..u64::from(KEYS)).map(dice);
    let moves = keys.filter(|&key| before(key) != after(key)).count();
    moves as f64 / f64::from(KEYS)
}

fn quality(_: &mut Criterion) {
    let weights = weights(16);
    eprintln!("fullest member / mean, 16 members of weights 1 to 4");
    for policy in Policy::ALL {
        let draw = |n| Draw {
            hash: dice(n),
            random: dice(n),
        };
        let ours = balancer(policy, &weights);
        // The order in which `imbalance` ends requests is its own; the same queues hold the guards.
        let (mut short, mut long) = (VecDeque::new(), VecDeque::new());
        let stay = weights.iter().sum::<usize>() * 10;
        let adit = imbalance(&weights, |n| {
            let member = ours.choose(draw(n), |_| true).unwrap();
            let queue = if dice(n).is_multiple_of(10) {
                &mut long
            } else {
                &mut short
            };
            queue.push_back(member.load().begin());
            if queue.len() > stay {
                queue.pop_front();
            }
            *member.id()
        });
        let naive = Naive::new(&weights);
        let (mut short, mut long) = (VecDeque::new(), VecDeque::new());
        let plain = imbalance(&weights, |n| {
            let backend = naive_choice(&naive, policy, draw(n), usize::MAX).unwrap();
            let queue = if dice(n).is_multiple_of(10) {
                &mut long
            } else {
                &mut short
            };
            backend.in_flight.fetch_add(1, Ordering::SeqCst);
            queue.push_back(backend.id);
            if queue.len() > stay {
                let ended = &naive.backends()[queue.pop_front().unwrap()];
                ended.in_flight.fetch_sub(1, Ordering::SeqCst);
            }
            backend.id
        });
        eprintln!("  {policy:22} adit {adit:.2}  naive {plain:.2}");
    }
    let ours = balancer(Policy::ConsistentHash, &[1; 10]);
    let place = |hash, out| {
        let draw = Draw { hash, random: 0 };
        *ours.choose(draw, |&id| id != out).unwrap().id()
    };
    let adit = moved(|key| place(key, usize::MAX), |key| place(key, 4));
    let naive = Naive::new(&[1; 10]);
    let plain = moved(
        |key| naive.modulo(key, |_| true).unwrap().id,
        |key| naive.modulo(key, |id| id != 4).unwrap().id,
    );
    eprintln!("keys that move when one of ten leaves: adit {adit:.3}  naive {plain:.3}");
}

criterion_group! {
    name = benches;
    // Without plots and with fewer resamples, so that the analysis is not longer than the measurement.
    config = Criterion::default().without_plots().nresamples(2_000);
    targets = quality, choose
}
criterion_main!(benches);
