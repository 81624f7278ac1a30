//! Interleavings of the state that threads share: the load of a member, the tickets and the counters of a balancer and
//! its successor.

#![cfg(adit_loom)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use adit_balance::{Balancer, Draw, Load, Member, Policy, Stats};
use loom::{model, sync::Arc, thread};

fn members(weights: &[u32]) -> Vec<Member<usize>> {
    weights
        .iter()
        .enumerate()
        .map(|(id, &weight)| Member::new(id, id as u64, weight, Load::new()))
        .collect()
}

fn choose(balancer: &Balancer<usize>) -> usize {
    *balancer.choose(Draw::default(), |_| true).unwrap().id()
}

/// Fails when `Load::begin` or the guard's drop reads and writes in two steps
/// instead of one: an update of the other thread is lost.
#[test]
fn begin_races_end() {
    model(|| {
        let load = Load::new();
        let held = load.begin();
        let beginner = {
            let load = load.clone();
            thread::spawn(move || load.begin())
        };
        let ender = thread::spawn(move || drop(held));
        assert!(load.in_flight() <= 2);
        let begun = beginner.join().unwrap();
        ender.join().unwrap();
        assert_eq!(load.in_flight(), 1);
        drop(begun);
        assert_eq!(load.in_flight(), 0);
    });
}

/// Fails when a ticket is read and advanced in two steps: both threads get the same turn, and one member has two turns
/// more than another.
#[test]
fn round_robin_races_round_robin() {
    model(|| {
        let balancer = Arc::new(Balancer::new(Policy::RoundRobin, members(&[1, 1])));
        let other = {
            let balancer = balancer.clone();
            thread::spawn(move || [choose(&balancer), choose(&balancer)])
        };
        let mut counts = [0_usize; 2];
        counts[choose(&balancer)] += 1;
        for id in other.join().unwrap() {
            counts[id] += 1;
        }
        assert!(counts[0].abs_diff(counts[1]) <= 1, "{counts:?}");
        // The fourth turn makes the counts even.
        counts[choose(&balancer)] += 1;
        assert_eq!(counts, [2, 2]);
    });
}

/// Fails when a successor starts with tickets of its own (both take the first turn), or when a ticket is read and
/// advanced in two steps.
#[test]
fn predecessor_races_successor() {
    model(|| {
        let old = Arc::new(Balancer::new(Policy::RoundRobin, members(&[1, 1])));
        let new = old.successor(Policy::WeightedRoundRobin, old.members().to_vec());
        let late = {
            let old = old.clone();
            thread::spawn(move || choose(&old))
        };
        let mut counts = [0_usize; 2];
        counts[choose(&new)] += 1;
        counts[late.join().unwrap()] += 1;
        assert_eq!(counts, [1, 1]);
    });
}

/// Fails when a counter is read and written in two steps.
#[test]
fn counting_races_counting() {
    model(|| {
        let balancer = Arc::new(Balancer::new(Policy::IpHash, members(&[1])));
        let other = {
            let balancer = balancer.clone();
            thread::spawn(move || {
                choose(&balancer);
                assert!(balancer.choose(Draw::default(), |_| false).is_none());
            })
        };
        choose(&balancer);
        assert!(balancer.choose(Draw::default(), |_| false).is_none());
        other.join().unwrap();
        assert_eq!(
            balancer.stats(),
            Stats {
                chosen: 2,
                none_eligible: 2
            }
        );
    });
}

/// Fails when a slot is stored by reading and writing its whole word: what the other thread stored in the same word is
/// lost.
#[test]
fn settling_races_settling_beside() {
    model(|| {
        let balancer = Arc::new(Balancer::new(Policy::IpHash, members(&[1, 2])));
        let by_hash = |balancer: &Balancer<usize>, hash| {
            let draw = Draw { hash, random: 0 };
            *balancer.choose(draw, |_| true).unwrap().id()
        };
        // Both threads use the same slot, and each another slot in the same word.
        let hashes = [0, 1 << 60, 2 << 60];
        let alone = Balancer::new(Policy::IpHash, members(&[1, 2]));
        let due = hashes.map(|hash| by_hash(&alone, hash));
        let other = {
            let balancer = balancer.clone();
            thread::spawn(move || [hashes[1], hashes[0]].map(|hash| by_hash(&balancer, hash)))
        };
        let here = [hashes[2], hashes[0]].map(|hash| by_hash(&balancer, hash));
        assert_eq!(other.join().unwrap(), [due[1], due[0]]);
        assert_eq!(here, [due[2], due[0]]);
        assert_eq!(hashes.map(|hash| by_hash(&balancer, hash)), due);
    });
}
