//! The scenarios of `loom.rs` on real threads, and many tasks that settle many requests.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod scenarios;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use adit_pending::{Config, Settled, Table};

fn often(scenario: fn()) {
    for _ in 0..1000 {
        scenario();
    }
}

#[test]
fn complete_races_expire() {
    often(scenarios::complete_races_expire);
}

#[test]
fn complete_races_cancel() {
    often(scenarios::complete_races_cancel);
}

#[test]
fn cancel_races_close() {
    often(scenarios::cancel_races_close);
}

#[test]
fn expire_races_close() {
    often(scenarios::expire_races_close);
}

#[test]
fn insert_races_close() {
    often(scenarios::insert_races_close);
}

#[test]
fn lookup_races_settle() {
    often(scenarios::lookup_races_settle);
}

#[test]
fn insert_races_insert_for_the_last_place() {
    often(scenarios::insert_races_insert_for_the_last_place);
}

#[test]
fn set_deadline_races_expire() {
    often(scenarios::set_deadline_races_expire);
}

/// Two openers, a lane, visitors who leave, a timer and finally a close use the same ids: every inserted request is
/// settled by exactly one of them, with its own value.
#[test]
fn a_crowd_settles_each_request_once() {
    const IDS: u64 = 40_000;
    let table = Arc::new(Table::<Arc<(u64, AtomicU32)>>::new(Config {
        max_entries: 3_000,
    }));
    let start = Instant::now();
    let newest = Arc::new(AtomicU64::new(0));
    let barrier = Arc::new(Barrier::new(6));
    let take = |id: u64, request: Arc<(u64, AtomicU32)>| {
        assert_eq!(request.0, id);
        assert_eq!(request.1.fetch_add(1, Ordering::Relaxed), 0, "settled once");
    };

    let openers: Vec<_> = (0..2_u64)
        .map(|side| {
            let (table, newest, barrier) = (table.clone(), newest.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                let mut entered = Vec::new();
                for n in 1..=IDS / 2 {
                    let id = n * 2 + side;
                    let request = Arc::new((id, AtomicU32::new(0)));
                    let deadline = (id % 3 == 0).then(|| start + Duration::from_micros(id));
                    // The number of attempts is bounded: a request that no other task settles is settled by the close.
                    for _attempt in 0..20 {
                        if table.insert(id, deadline, request.clone()).is_ok() {
                            newest.fetch_max(id, Ordering::Relaxed);
                            entered.push(request);
                            break;
                        }
                        thread::yield_now();
                    }
                }
                entered
            })
        })
        .collect();
    let settlers: Vec<_> = [Settled::Completed, Settled::Cancelled, Settled::Failed]
        .into_iter()
        .map(|how| {
            let (table, newest, barrier) = (table.clone(), newest.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                let mut settled = 0_u64;
                let mut id = 2;
                while id < IDS {
                    if let Some(request) = table.lookup(id) {
                        assert_eq!(request.0, id);
                    }
                    if let Some(request) = table.settle(id, how) {
                        take(id, request);
                        settled += 1;
                    }
                    if id <= newest.load(Ordering::Relaxed) {
                        id += 1;
                    } else {
                        thread::yield_now();
                    }
                    // The counters add up at any time.
                    if id % 512 == 0 {
                        let s = table.stats();
                        let ended = s.completed + s.failed + s.cancelled + s.expired;
                        assert_eq!(s.inserted, ended + s.waiting);
                        assert!(s.peak <= 3_000);
                    }
                }
                settled
            })
        })
        .collect();
    let timer = {
        let (table, newest) = (table.clone(), newest.clone());
        thread::spawn(move || {
            barrier.wait();
            let mut out = Vec::new();
            let mut expired = 0_u64;
            while newest.load(Ordering::Relaxed) < IDS {
                let now = start + Duration::from_micros(newest.load(Ordering::Relaxed));
                table.expire(now, &mut out);
                for (id, request) in out.drain(..) {
                    assert!(id % 3 == 0 && id <= IDS, "{id} has no deadline");
                    take(id, request);
                    expired += 1;
                }
                thread::yield_now();
            }
            expired
        })
    };

    let mut entered = Vec::new();
    for opener in openers {
        entered.extend(opener.join().unwrap());
    }
    // The last insert may have been refused by a full table.
    newest.store(IDS, Ordering::Relaxed);
    let mut settled: u64 = settlers.into_iter().map(|s| s.join().unwrap()).sum();
    settled += timer.join().unwrap();
    for (id, request) in table.close() {
        take(id, request);
        settled += 1;
    }
    assert_eq!(settled, entered.len() as u64);
    for request in entered {
        assert_eq!(request.1.load(Ordering::Relaxed), 1, "settled");
        assert_eq!(Arc::strong_count(&request), 1, "nothing left behind");
    }
    let stats = table.stats();
    assert_eq!((stats.inserted, stats.waiting), (settled, 0));
}
