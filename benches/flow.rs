//! Credit, gate and fair sender beside what they replace. Before the times, the quality of the fair sender is printed: what share of a full stream a small request gets beside a large backlog.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use adit_benches::flow::{Fifo, LockedCredit, WakeAllGate};
use adit_flow::{Acquire, Budget, FairSender, Gate, MAX_WINDOW, QUANTUM, RecvCredit, SendCredit};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

const PAYLOAD: usize = 16 * 1024;
const COST: u64 = PAYLOAD as u64 + 32;

fn credit(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/credit");
    group.bench_function(BenchmarkId::new("ours", PAYLOAD), |b| {
        let mut sender = SendCredit::new(64 * 1024);
        b.iter(|| {
            sender.take(black_box(PAYLOAD)).unwrap();
            sender
                .on_window(sender.limit() + COST, sender.sent())
                .unwrap()
        });
    });
    group.bench_function(BenchmarkId::new("locked_counter", PAYLOAD), |b| {
        let credit = LockedCredit::new(64 * 1024);
        b.iter(|| {
            let taken = credit.take(black_box(COST));
            credit.give(COST);
            taken
        });
    });
    group.finish();

    let mut group = c.benchmark_group("flow/message");
    group.bench_function(BenchmarkId::new("ours", PAYLOAD), |b| {
        // Both ends of one message, with the windows that it costs.
        let budget = Budget::new(64 << 20).child(16 << 20);
        let mut sender = SendCredit::new(64 * 1024);
        let mut receiver = RecvCredit::new(64 * 1024);
        b.iter(|| {
            let payload = sender.max_payload(black_box(PAYLOAD)).unwrap();
            sender.take(payload).unwrap();
            let cost = payload as u64 + 32;
            receiver.on_received(cost).unwrap();
            if receiver.consume(cost)
                && let Some(grant) = receiver.grant(&budget, MAX_WINDOW)
            {
                sender.on_window(grant.limit, grant.consumed).unwrap();
            }
        });
    });
    group.finish();
}

fn fair(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/push_pop");
    for keys in [1u64, 64, 1024] {
        // Each key has eight messages queued; what is served is queued again.
        group.bench_function(BenchmarkId::new("fair", keys), |b| {
            let mut sender = FairSender::new(QUANTUM);
            for key in (0..8).flat_map(|_| 0..keys) {
                sender.push(key, 0u64, COST);
            }
            b.iter(|| {
                let (key, item) = sender.pop().unwrap();
                sender.push(key, item, COST);
                key
            });
        });
        group.bench_function(BenchmarkId::new("fifo", keys), |b| {
            let mut sender = Fifo::default();
            for key in (0..8).flat_map(|_| 0..keys) {
                sender.push(key, 0u64, COST);
            }
            b.iter(|| {
                let (key, item) = sender.pop().unwrap();
                sender.push(key, item, COST);
                key
            });
        });
    }
    group.finish();

    // A request of one message: its queue comes and goes.
    let mut group = c.benchmark_group("flow/one_message");
    group.bench_function(BenchmarkId::new("fair", 1), |b| {
        let mut sender = FairSender::new(QUANTUM);
        let mut key = 0u64;
        b.iter(|| {
            key += 2;
            sender.push(key, 0u64, COST);
            sender.pop()
        });
    });
    group.bench_function(BenchmarkId::new("fifo", 1), |b| {
        let mut sender = Fifo::default();
        let mut key = 0u64;
        b.iter(|| {
            key += 2;
            sender.push(key, 0u64, COST);
            sender.pop()
        });
    });
    group.finish();
}

/// Sixteen keys offer unequal load, the first as much as all others together; how unequal is what they get while all have something queued, and how long does a newcomer wait?
fn quality() {
    let (keys, costs) = (16u64, [64 * 1024, 16 * 1024, 4 * 1024, 512]);
    let cost = |key: u64| costs[usize::try_from(key).unwrap() % costs.len()];
    let offered = |key: u64| if key == 0 { 15 << 20 } else { 1u64 << 20 };
    let mut fair = FairSender::new(QUANTUM);
    let mut fifo = Fifo::default();
    for key in 0..keys {
        for _ in 0..offered(key) / cost(key) {
            fair.push(key, cost(key), cost(key));
            fifo.push(key, cost(key), cost(key));
        }
    }
    let newcomer = keys;
    fair.push(newcomer, 100, 100);
    fifo.push(newcomer, 100, 100);
    report("fair", newcomer, || fair.pop());
    report("fifo", newcomer, || fifo.pop());
}

fn report(contender: &str, newcomer: u64, mut pop: impl FnMut() -> Option<(u64, u64)>) {
    let mut served = [0u64; 16];
    let (mut total, mut share, mut waited) = (0, None, None);
    while let Some((key, cost)) = pop() {
        total += cost;
        if key == newcomer {
            waited = Some(total);
        } else {
            served[usize::try_from(key).unwrap()] += cost;
        }
        // Half of what the small ones offer all together.
        if share.is_none() && total >= 8 << 20 {
            let (max, min) = (served.iter().max().unwrap(), served.iter().min().unwrap());
            share = Some((*max, *min));
        }
    }
    let (max, min) = share.unwrap();
    let ratio = if min == 0 {
        "infinite".to_owned()
    } else {
        format!("{:.2}", max as f64 / min as f64)
    };
    eprintln!(
        "flow/fairness/{contender}/16: most to least served after 8 MiB {ratio} ({max} to {min} bytes), a newcomer's 100 bytes leave after {} bytes",
        waited.unwrap()
    );
}

/// A task that only notes that it was woken.
#[derive(Default)]
struct Task {
    woken: AtomicBool,
    queue: Mutex<Option<Arc<Woken>>>,
    name: usize,
}

/// The names of the woken, in order.
type Woken = Mutex<Vec<usize>>;

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed)
            && let Some(queue) = &*self.queue.lock().unwrap()
        {
            queue.lock().unwrap().push(self.name);
        }
    }
}

fn tasks(n: usize) -> (Arc<Woken>, Vec<Arc<Task>>) {
    let woken = Arc::new(Woken::default());
    let tasks = (0..n)
        .map(|name| {
            Arc::new(Task {
                woken: AtomicBool::new(false),
                queue: Mutex::new(Some(Arc::clone(&woken))),
                name,
            })
        })
        .collect();
    (woken, tasks)
}

fn gate(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow/acquire_release");
    group.bench_function(BenchmarkId::new("ours", 1), |b| {
        let gate = Gate::new(1000, 100);
        b.iter(|| gate.try_acquire().unwrap());
    });
    group.bench_function(BenchmarkId::new("wake_all", 1), |b| {
        let gate = WakeAllGate::new(1000);
        b.iter(|| {
            let had = gate.poll(Waker::noop());
            gate.release();
            had
        });
    });
    group.finish();

    // One permit goes round a line of waiting tasks: it comes back, the woken are polled, who has it joins the line anew.
    let mut group = c.benchmark_group("flow/hand_over");
    for waiters in [1usize, 64, 1024] {
        group.bench_function(BenchmarkId::new("ours", waiters), |b| {
            let (woken, tasks) = tasks(waiters);
            let gate = Gate::new(1, waiters);
            let mut held = gate.try_acquire();
            let poll = |acquire: &mut Acquire, task: &Arc<Task>| {
                let waker = Waker::from(Arc::clone(task));
                Pin::new(acquire).poll(&mut Context::from_waker(&waker))
            };
            let mut line: Vec<Acquire> = tasks
                .iter()
                .map(|task| {
                    let mut acquire = gate.acquire();
                    assert!(poll(&mut acquire, task).is_pending());
                    acquire
                })
                .collect();
            b.iter(|| {
                drop(held.take());
                let names = std::mem::take(&mut *woken.lock().unwrap());
                for name in names {
                    tasks[name].woken.store(false, Ordering::Relaxed);
                    if let Poll::Ready(Ok(permit)) = poll(&mut line[name], &tasks[name]) {
                        held = Some(permit);
                        line[name] = gate.acquire();
                        let _ = poll(&mut line[name], &tasks[name]);
                    }
                }
                assert!(held.is_some());
            });
            // The tasks know the queue and the queue's users the tasks.
            tasks
                .iter()
                .for_each(|task| *task.queue.lock().unwrap() = None);
        });
        group.bench_function(BenchmarkId::new("wake_all", waiters), |b| {
            let (woken, tasks) = tasks(waiters);
            let gate = WakeAllGate::new(1);
            assert!(gate.poll(Waker::noop()));
            let poll = |task: &Arc<Task>| gate.poll(&Waker::from(Arc::clone(task)));
            for task in &tasks {
                assert!(!poll(task));
            }
            b.iter(|| {
                gate.release();
                let names = std::mem::take(&mut *woken.lock().unwrap());
                let mut had = 0;
                for name in names {
                    tasks[name].woken.store(false, Ordering::Relaxed);
                    if poll(&tasks[name]) {
                        had += 1;
                        assert!(!poll(&tasks[name]));
                    }
                }
                assert_eq!(had, 1);
            });
            tasks
                .iter()
                .for_each(|task| *task.queue.lock().unwrap() = None);
        });
    }
    group.finish();
}

fn fairness(_: &mut Criterion) {
    quality();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .sample_size(20)
        .without_plots();
    targets = fairness, credit, fair, gate
}
criterion_main!(benches);
