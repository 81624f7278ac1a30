//! Two muxes over a pipe in virtual time.
//!
//! Checked, for random requests of all protocols that lose nothing, under random delay, bandwidth, fragmentation and loss:
//! - every byte arrives in order and whole, or its direction was stopped or its request reset;
//! - each request ends exactly once at each end;
//! - a stalled consumer does not delay others;
//! - at the end nothing is open or queued, and all bytes of the budget are returned;
//! - no deadlock: a pair that has nothing to wait for has nothing left to do. Senders try again only when they are woken,
//!   and so does the writer, so a lost wake-up shows as a deadlock;
//! - after a loss everything can be dropped, and the bytes that arrived were correct;
//! - equal senders get equal shares, and a small request is not delayed by large ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod pair;
mod support;

use std::time::Duration;

use adit_testkit::{PipeConfig, Rng};
use pair::{Consumer, Ending, Fault, Pair, Plan};

const MS: Duration = Duration::from_millis(1);

fn pipe(rng: &mut Rng) -> PipeConfig {
    PipeConfig {
        latency: *rng.pick(&[Duration::ZERO, MS, 50 * MS]).unwrap(),
        bandwidth: *rng.pick(&[None, Some(300_000), Some(10_000_000)]).unwrap(),
        capacity: *rng.pick(&[1000, 64 * 1024, 1 << 20]).unwrap(),
        max_frame: *rng.pick(&[7, 100, 1500, 16 * 1024, 300_000]).unwrap(),
        cut_at: None,
    }
}

/// A pair with requests from both sides, at random times.
fn busy_pair(seed: u64, requests: usize, change: impl Fn(&mut Rng, &mut PipeConfig)) -> Pair {
    let mut rng = Rng::from_seed(seed);
    let mut pipes = [pipe(&mut rng), pipe(&mut rng)];
    for pipe in &mut pipes {
        change(&mut rng, pipe);
    }
    let mut pair = Pair::new(pipes, rng.split(), |config, rng| {
        config.initial_window = *rng.pick(&[1, 70, 4096, 32 * 1024]).unwrap();
        config.max_batch = *rng.pick(&[1, 2000, 256 * 1024]).unwrap();
        config.max_queued = *rng.pick(&[3000, 100_000, 2 << 20]).unwrap();
        config.max_queued_per_request = *rng.pick(&[1, 5000, 128 * 1024]).unwrap();
    });
    for _ in 0..requests {
        let at = MS * u32::try_from(rng.below(200)).unwrap();
        let opener = rng.below(2);
        pair.open_at(at, opener, rng.next_u64());
    }
    pair
}

#[test]
fn every_request_ends_once_and_whole() {
    for seed in 0..24 {
        let mut pair = busy_pair(seed, 30, |_, _| {});
        pair.run(None);
        pair.assert_only_stalled_are_left(seed);
        pair.release_stalled();
        pair.run(None);
        pair.assert_quiet(seed);
    }
}

#[test]
fn a_lost_stream_leaves_nothing_behind() {
    for seed in 1000..1030 {
        let mut pair = busy_pair(seed, 30, |rng, pipe| {
            let most = *rng.pick(&[100, 5000, 300_000]).unwrap();
            pipe.cut_at = Some(rng.below(most) as u64);
        });
        pair.run(None);
        pair.assert_lost_and_droppable(seed);
    }
}

fn bulk() -> Plan {
    Plan {
        up: usize::MAX / 2,
        ..Plan::default()
    }
}

fn bulk_pair(senders: usize, bandwidth: u64) -> (Pair, Vec<u64>) {
    let pipe = PipeConfig {
        latency: 5 * MS,
        bandwidth: Some(bandwidth),
        capacity: 128 * 1024,
        ..PipeConfig::default()
    };
    let mut pair = Pair::new([pipe.clone(), pipe], Rng::from_seed(5), |_, _| {});
    let ids = (0..senders).map(|_| pair.open(0, bulk())).collect();
    (pair, ids)
}

#[test]
fn p_5_1_equal_senders_get_equal_shares() {
    let (mut pair, ids) = bulk_pair(8, 8_000_000);
    pair.run(Some(1000 * MS));
    let before: Vec<usize> = ids.iter().map(|&id| pair.received(1, id)).collect();
    pair.run(Some(3000 * MS));
    let shares: Vec<usize> = ids
        .iter()
        .zip(before)
        .map(|(&id, before)| pair.received(1, id) - before)
        .collect();
    let total: usize = shares.iter().sum();
    assert!(total > 15_000_000, "the line is used: {total}");
    let fair = total / ids.len();
    for share in &shares {
        assert!(share.abs_diff(fair) * 20 <= fair, "{shares:?}");
    }
}

#[test]
fn p_5_1_a_small_request_passes_bulk() {
    let (mut pair, _) = bulk_pair(4, 8_000_000);
    pair.run(Some(500 * MS));
    let before = pair.batches_sent(0);
    let small = pair.open(
        0,
        Plan {
            up: 40_000,
            down: 100,
            ..Plan::default()
        },
    );
    let mut at = 500 * MS;
    while !pair.is_done(0, small) {
        at += MS;
        pair.run(Some(at));
        assert!(at < 5000 * MS, "starved");
    }
    // One turn of each large sender before each of the two messages, and the round trip.
    let batches = pair.batches_sent(0) - before;
    assert!(batches <= 8, "{batches} batches, {at:?}");
}

#[test]
fn p_4_2_a_stalled_consumer_stops_its_own_sender_only() {
    let pipe = PipeConfig {
        latency: MS,
        ..PipeConfig::default()
    };
    let mut pair = Pair::new([pipe.clone(), pipe], Rng::from_seed(9), |_, _| {});
    let stalled: Vec<u64> = (0..20)
        .map(|_| {
            let plan = Plan {
                up: 1 << 20,
                acceptor: Consumer::Stalled,
                ..Plan::default()
            };
            pair.open(0, plan)
        })
        .collect();
    let well = pair.open(
        0,
        Plan {
            up: 3 << 20,
            down: 3 << 20,
            ending: Ending::Trailers,
            ..Plan::default()
        },
    );
    pair.run(None);
    assert!(pair.is_done(0, well) && pair.is_done(1, well));
    for id in stalled {
        let received = pair.received(1, id);
        assert!(
            (31_000..=32 * 1024 - adit_flow::MESSAGE_COST).contains(&(received as u64)),
            "the window: {received}"
        );
    }
    pair.release_stalled();
    pair.run(None);
    pair.assert_quiet(0);
}

#[test]
fn p_6_2_resets_from_both_ends_cross() {
    let pipe = PipeConfig {
        latency: 50 * MS,
        ..PipeConfig::default()
    };
    for fault in [Fault::BothReset, Fault::OpenerResetsAtOnce, Fault::BothStop] {
        let mut pair = Pair::new([pipe.clone(), pipe.clone()], Rng::from_seed(3), |_, _| {});
        for opener in [0, 1, 0, 1] {
            let plan = Plan {
                up: 200_000,
                down: 200_000,
                fault,
                fault_after: 1,
                ..Plan::default()
            };
            pair.open(opener, plan);
        }
        pair.run(None);
        pair.assert_quiet(0);
    }
}
