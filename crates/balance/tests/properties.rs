//! What a balancer promises:
//! - only an eligible member is chosen, and one is chosen whenever there is one; an empty set has no choice;
//! - with round robin, the turns of any two members differ by at most one, over any sequence of choices, with any fixed
//!   set of eligible members and any number of threads;
//! - weighted round robin gives each member its weight in every period, as the
//!   running weights of nginx do;
//! - least connections never chooses a member that is more loaded than another;
//! - power of two never chooses the most loaded of the eligible members, may choose every other one, and balances the
//!   load far better than one draw would;
//! - the hash policies choose the same member for the same hash, whatever the order of the members; over many hashes
//!   the shares follow the weights; when a member leaves or joins, only its own keys move;
//! - the counters add up.

#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, thread};

use adit_balance::{Balancer, Draw, InFlight, Load, Member, Policy, hash_bytes};
use proptest::prelude::*;

fn key(id: usize) -> u64 {
    hash_bytes(format!("member-{id}").as_bytes())
}

fn member(id: usize, weight: u32) -> Member<usize> {
    Member::new(id, key(id), weight, Load::new())
}

fn members(weights: &[u32]) -> Vec<Member<usize>> {
    weights
        .iter()
        .enumerate()
        .map(|(id, &weight)| member(id, weight))
        .collect()
}

fn policies() -> impl Strategy<Value = Policy> {
    prop::sample::select(&Policy::ALL[..])
}

/// The n-th hash, or random number, of an evenly distributed sequence.
fn nth(n: u64) -> u64 {
    hash_bytes(&n.to_le_bytes())
}

fn by_hash(balancer: &Balancer<usize>, hash: u64) -> usize {
    let draw = Draw { hash, random: 0 };
    *balancer.choose(draw, |_| true).unwrap().id()
}

/// The algorithm of nginx: one scan for each turn.
struct RunningWeights {
    weights: Vec<i64>,
    running: Vec<i64>,
}

impl RunningWeights {
    fn next(&mut self) -> usize {
        for (running, weight) in self.running.iter_mut().zip(&self.weights) {
            *running += weight;
        }
        let most = *self.running.iter().max().unwrap();
        let turn = self.running.iter().position(|&r| r == most).unwrap();
        self.running[turn] -= self.weights.iter().sum::<i64>();
        turn
    }
}

proptest! {
    #[test]
    fn only_the_eligible_are_chosen(
        policy in policies(),
        set in prop::collection::vec((1_u32..50, 0_usize..4, any::<bool>()), 0..12),
        draws in prop::collection::vec((any::<u64>(), any::<u64>()), 1..20),
    ) {
        let weights: Vec<u32> = set.iter().map(|s| s.0).collect();
        let balancer = Balancer::new(policy, members(&weights));
        let _guards: Vec<InFlight> = balancer
            .members()
            .iter()
            .zip(&set)
            .flat_map(|(member, s)| (0..s.1).map(|_| member.load().begin()))
            .collect();
        let anybody = set.iter().any(|s| s.2);
        for &(hash, random) in &draws {
            let chosen = balancer.choose(Draw { hash, random }, |&id| set[id].2);
            prop_assert_eq!(chosen.is_some(), anybody);
            if let Some(member) = chosen {
                prop_assert!(set[*member.id()].2);
            }
        }
        let stats = balancer.stats();
        let total = draws.len() as u64;
        prop_assert_eq!(stats.chosen, if anybody { total } else { 0 });
        prop_assert_eq!(stats.none_eligible, if anybody { 0 } else { total });
    }

    #[test]
    fn round_robin_is_even_over_any_window(
        eligible in prop::collection::vec(any::<bool>(), 1..20),
        skip in 0_usize..40,
        window in 0_usize..100,
    ) {
        prop_assume!(eligible.contains(&true));
        let weights = vec![3; eligible.len()];
        let balancer = Balancer::new(Policy::RoundRobin, members(&weights));
        let mut counts = vec![0_usize; eligible.len()];
        for turn in 0..skip + window {
            let chosen = balancer.choose(Draw::default(), |&id| eligible[id]).unwrap();
            if turn >= skip {
                counts[*chosen.id()] += 1;
            }
        }
        let among: Vec<usize> = counts
            .iter()
            .zip(&eligible)
            .filter_map(|(&count, &is)| is.then_some(count))
            .collect();
        prop_assert!(among.iter().max().unwrap() - among.iter().min().unwrap() <= 1);
    }

    #[test]
    fn weighted_turns_follow_the_running_weights(
        weights in prop::collection::vec(1_u32..20, 1..10),
    ) {
        let balancer = Balancer::new(Policy::WeightedRoundRobin, members(&weights));
        let mut oracle = RunningWeights {
            weights: weights.iter().map(|&w| i64::from(w)).collect(),
            running: vec![0; weights.len()],
        };
        let period: u32 = weights.iter().sum();
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..period * 2 {
            let turn = *balancer.choose(Draw::default(), |_| true).unwrap().id();
            prop_assert_eq!(turn, oracle.next());
            counts[turn] += 1;
        }
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert_eq!(*count, weight * 2);
        }
    }

    #[test]
    fn weights_too_long_for_a_period_keep_their_proportions(
        weights in prop::collection::vec(100_000_u32..200_000, 2..6),
    ) {
        let balancer = Balancer::new(Policy::WeightedRoundRobin, members(&weights));
        let mut counts = vec![0_u32; weights.len()];
        for _ in 0..10_000 {
            counts[*balancer.choose(Draw::default(), |_| true).unwrap().id()] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (&count, &weight) in counts.iter().zip(&weights) {
            let due = 10_000.0 * f64::from(weight) / f64::from(total);
            prop_assert!((f64::from(count) - due).abs() <= 60.0, "{} for {}", count, due);
        }
    }

    #[test]
    fn least_connections_takes_a_least_filled_one(
        set in prop::collection::vec((1_u32..10, any::<bool>()), 1..8),
        ends in prop::collection::vec(any::<prop::sample::Index>(), 1..60),
    ) {
        prop_assume!(set.iter().any(|s| s.1));
        let weights: Vec<u32> = set.iter().map(|s| s.0).collect();
        let balancer = Balancer::new(Policy::LeastConnections, members(&weights));
        let mut running = Vec::new();
        for (step, end) in ends.iter().enumerate() {
            let chosen = balancer.choose(Draw::default(), |&id| set[id].1).unwrap();
            for other in balancer.members().iter().filter(|m| set[*m.id()].1) {
                prop_assert!(
                    chosen.load().in_flight() * other.weight() as usize
                        <= other.load().in_flight() * chosen.weight() as usize
                );
            }
            running.push(chosen.load().begin());
            if step % 3 == 0 {
                drop(running.swap_remove(end.index(running.len())));
            }
        }
    }

    #[test]
    fn of_two_the_most_filled_never_wins(
        loads in prop::collection::hash_set(0_usize..50, 2..10),
        out in 0_usize..10,
        random in any::<u64>(),
    ) {
        let loads: Vec<usize> = loads.into_iter().collect();
        let balancer = Balancer::new(Policy::PowerOfTwo, members(&vec![1; loads.len()]));
        let _guards: Vec<InFlight> = balancer
            .members()
            .iter()
            .zip(&loads)
            .flat_map(|(member, &load)| (0..load).map(|_| member.load().begin()))
            .collect();
        let draw = Draw { hash: 0, random };
        let chosen = *balancer.choose(draw, |&id| id != out).unwrap().id();
        let among: Vec<usize> = (0..loads.len()).filter(|&id| id != out).collect();
        let most = among.iter().copied().max_by_key(|&id| loads[id]).unwrap();
        prop_assert!(chosen != out && (among.len() == 1 || chosen != most));
    }

    #[test]
    fn a_hash_leads_to_one_member_in_any_order(
        policy in prop::sample::select(vec![Policy::ConsistentHash, Policy::IpHash]),
        weights in prop::collection::vec(1_u32..9, 1..10),
        turn in 0_usize..10,
        hashes in prop::collection::vec(any::<u64>(), 1..50),
    ) {
        let straight = members(&weights);
        let mut turned = straight.clone();
        turned.rotate_left(turn % straight.len());
        turned.reverse();
        let straight = Balancer::new(policy, straight);
        let turned = Balancer::new(policy, turned);
        for &hash in &hashes {
            let first = by_hash(&straight, hash);
            prop_assert_eq!(first, by_hash(&straight, hash));
            prop_assert_eq!(first, by_hash(&turned, hash));
        }
    }

    #[test]
    fn only_keys_of_a_changed_member_move(
        weights in prop::collection::vec(1_u32..9, 2..10),
        even in any::<bool>(),
        leaver in any::<prop::sample::Index>(),
    ) {
        let weights = if even { vec![1; weights.len()] } else { weights };
        let with = members(&weights);
        let leaver = leaver.index(with.len());
        let mut without = with.clone();
        without.remove(leaver);
        let with = Balancer::new(Policy::ConsistentHash, with);
        let without = Balancer::new(Policy::ConsistentHash, without);
        for n in 0..300 {
            let hash = nth(n);
            let (present, absent) = (by_hash(&with, hash), by_hash(&without, hash));
            prop_assert!(present == absent || present == leaver);
            // The keys of a temporarily ineligible member go to the same members as those of a removed one.
            let draw = Draw { hash, random: 0 };
            let passed = with.choose(draw, |&id| id != leaver).unwrap();
            prop_assert_eq!(*passed.id(), absent);
        }
    }
}

#[test]
fn threads_share_the_turns_evenly() {
    const EACH: usize = 10_000;
    let balancer = Balancer::new(Policy::RoundRobin, members(&[1; 7]));
    let mut counts = [0_usize; 7];
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = [0_usize; 7];
                    for _ in 0..EACH {
                        counts[*balancer.choose(Draw::default(), |_| true).unwrap().id()] += 1;
                    }
                    counts
                })
            })
            .collect();
        for thread in threads {
            for (sum, count) in counts.iter_mut().zip(thread.join().unwrap()) {
                *sum += count;
            }
        }
    });
    assert_eq!(counts.iter().sum::<usize>(), 4 * EACH);
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1);
}

#[test]
fn hashes_spread_by_weight() {
    const KEYS: u64 = 60_000;
    for weights in [vec![1; 6], vec![1, 2, 3, 4, 5, 6], vec![300, 100, 1]] {
        let balancer = Balancer::new(Policy::IpHash, members(&weights));
        let mut counts = vec![0_u32; weights.len()];
        for n in 0..KEYS {
            counts[by_hash(&balancer, nth(n))] += 1;
        }
        let total: u32 = weights.iter().sum();
        for (&count, &weight) in counts.iter().zip(&weights) {
            let share = f64::from(weight) / f64::from(total);
            let due = KEYS as f64 * share;
            // The slack is five standard deviations of independent draws.
            let slack = 5.0 * (due * (1.0 - share)).sqrt();
            assert!(
                (f64::from(count) - due).abs() < slack,
                "{count} of {due} for {weights:?}"
            );
        }
    }
}

#[test]
fn a_larger_weight_moves_keys_only_to_its_member() {
    let before = Balancer::new(Policy::ConsistentHash, members(&[2, 2, 2]));
    let after = Balancer::new(Policy::ConsistentHash, members(&[2, 3, 2]));
    let mut moved = 0;
    for n in 0..10_000 {
        let (old, new) = (by_hash(&before, nth(n)), by_hash(&after, nth(n)));
        if old != new {
            assert_eq!(new, 1);
            moved += 1;
        }
    }
    // The share grows from a third to three sevenths: 952 of 10,000 keys move.
    assert!((800..1_100).contains(&moved), "{moved}");
}

#[test]
fn where_a_name_goes_never_changes() {
    let balancer = Balancer::new(Policy::ConsistentHash, members(&[1, 1, 1, 1, 1]));
    let placed: Vec<usize> = ["app.example.com", "erp.internal", "192.0.2.7", "session=42"]
        .iter()
        .map(|name| by_hash(&balancer, hash_bytes(name.as_bytes())))
        .collect();
    // The values were computed separately, in another language.
    assert_eq!(placed, [4, 3, 0, 3]);
}

/// Requests that do not end: the classic balls-and-bins experiment. With two choices the most loaded member must be
/// close to the mean, where with one choice it is well above.
#[test]
fn two_choices_level_the_load() {
    const MEMBERS: usize = 50;
    const REQUESTS: u64 = 5_000;
    let balancer = Balancer::new(Policy::PowerOfTwo, members(&[1; MEMBERS]));
    let mut guards = Vec::new();
    let mut blind: HashMap<u64, usize> = HashMap::new();
    for n in 0..REQUESTS {
        let draw = Draw {
            hash: 0,
            random: nth(n),
        };
        guards.push(balancer.choose(draw, |_| true).unwrap().load().begin());
        *blind.entry(nth(n) % MEMBERS as u64).or_default() += 1;
    }
    let fullest = balancer
        .members()
        .iter()
        .map(|m| m.load().in_flight())
        .max();
    let emptiest = balancer
        .members()
        .iter()
        .map(|m| m.load().in_flight())
        .min();
    assert!(fullest.unwrap() <= 104, "{fullest:?}");
    assert!(emptiest.unwrap() >= 90, "{emptiest:?}");
    assert!(*blind.values().max().unwrap() > 115);
}

/// Every pair is drawn: with equal loads each member is chosen about equally often, also when some are ineligible.
#[test]
fn two_choices_reach_every_member() {
    for out in [None, Some(2)] {
        let balancer = Balancer::new(Policy::PowerOfTwo, members(&[1; 5]));
        let mut counts = [0_u32; 5];
        for n in 0..20_000 {
            let draw = Draw {
                hash: 0,
                random: nth(n),
            };
            let chosen = balancer.choose(draw, |&id| Some(id) != out).unwrap();
            counts[*chosen.id()] += 1;
        }
        for (id, &count) in counts.iter().enumerate() {
            let due = match out {
                None => 4_000,
                Some(gone) if gone == id => 0,
                Some(_) => 5_000,
            };
            assert!(count.abs_diff(due) <= due / 16, "{counts:?}");
        }
    }
}

/// Under a constant number of requests the loads are proportional to the weights.
#[test]
fn two_choices_fill_by_weight() {
    let balancer = Balancer::new(Policy::PowerOfTwo, members(&[1, 1, 2, 4]));
    let mut running: Vec<InFlight> = Vec::new();
    for n in 0..8_000 {
        let draw = Draw {
            hash: 0,
            random: nth(n),
        };
        running.push(balancer.choose(draw, |_| true).unwrap().load().begin());
    }
    let loads: Vec<usize> = balancer
        .members()
        .iter()
        .map(|m| m.load().in_flight())
        .collect();
    for (load, due) in loads.iter().zip([1_000_usize, 1_000, 2_000, 4_000]) {
        assert!(load.abs_diff(due) <= due / 20, "{loads:?}");
    }
}
