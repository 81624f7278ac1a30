//! The request table: one request in, one message looked up, one request out, with `live` others
//! waiting. The newest enters, one in the middle gets a message, the oldest is settled.
//!
//! `pending/round_trip` runs on one thread; in `pending/round_trip_2_threads` two threads share the
//! table and the sequence of ids, and the time is that of a round trip on each of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use adit_benches::pending::{Dash, MutexMap, MutexSlab, Ours, Papaya, Pending, Value};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const LIVE: [usize; 3] = [64, 1024, 10_000];

/// One side of the traffic over a table: its own requests, and a sequence of ids that may be shared.
struct Driver<'a, P: Pending> {
    table: &'a P,
    ids: &'a AtomicU64,
    live: VecDeque<P::Key>,
    // Each driver clones its own, so that the counts of references are no meeting point.
    value: Value,
}

impl<'a, P: Pending> Driver<'a, P> {
    fn new(table: &'a P, ids: &'a AtomicU64, live: usize) -> Self {
        let mut driver = Self {
            table,
            ids,
            live: VecDeque::with_capacity(live + 1),
            value: Arc::new(0),
        };
        for _ in 0..live {
            driver.open();
        }
        driver
    }

    fn open(&mut self) {
        // Even ids: all requests of a lane are opened by the server.
        let id = self.ids.fetch_add(2, Ordering::Relaxed);
        let key = self.table.insert(id, Arc::clone(&self.value));
        self.live.push_back(key);
    }

    fn round_trips(&mut self, times: u64) -> Duration {
        let start = Instant::now();
        for _ in 0..times {
            self.open();
            let middle = &self.live[self.live.len() / 2];
            black_box(self.table.lookup(middle).unwrap());
            let oldest = self.live.pop_front().unwrap();
            black_box(self.table.settle(&oldest).unwrap());
        }
        start.elapsed()
    }

    fn drain(self) {
        for key in self.live {
            self.table.settle(&key).unwrap();
        }
    }
}

fn one_thread<P: Pending>(c: &mut Criterion) {
    let mut group = c.benchmark_group("pending/round_trip");
    for live in LIVE {
        let table = P::empty();
        let ids = AtomicU64::new(2);
        let mut driver = Driver::new(&table, &ids, live);
        group.bench_function(BenchmarkId::new(P::NAME, live), |b| {
            b.iter_custom(|times| driver.round_trips(times));
        });
        driver.drain();
    }
    group.finish();
}

fn two_threads<P: Pending>(c: &mut Criterion) {
    let mut group = c.benchmark_group("pending/round_trip_2_threads");
    for live in LIVE {
        let table = P::empty();
        let ids = AtomicU64::new(2);
        let mut drivers = [0, 1].map(|_| Driver::new(&table, &ids, live / 2));
        group.bench_function(BenchmarkId::new(P::NAME, live), |b| {
            b.iter_custom(|times| {
                let barrier = Barrier::new(2);
                thread::scope(|scope| {
                    let threads = drivers.each_mut().map(|driver| {
                        scope.spawn(|| {
                            barrier.wait();
                            driver.round_trips(times)
                        })
                    });
                    threads
                        .map(|t| t.join().unwrap())
                        .into_iter()
                        .max()
                        .unwrap()
                })
            });
        });
        for driver in drivers {
            driver.drain();
        }
    }
    group.finish();
}

fn contender<P: Pending>(c: &mut Criterion) {
    one_thread::<P>(c);
    two_threads::<P>(c);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .sample_size(20)
        .without_plots();
    targets = contender::<Ours>, contender::<MutexMap>, contender::<Dash>, contender::<Papaya>,
        contender::<MutexSlab>
}
criterion_main!(benches);
