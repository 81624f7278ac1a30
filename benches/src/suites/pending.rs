//! The request table: one request is inserted, one message is looked up, and one request is removed, with `size` other
//! requests waiting. The newest request is inserted, one in the middle receives a message, and the oldest is settled.
//!
//! Two threads share the table and the sequence of ids, as the opener of requests and the reader of a link do.

use std::{
    collections::VecDeque,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    baseline::pending::{
        Dash, DashUuid, MutexMap, Ours, Papaya, Pending, SlabPerLink, SlabTable, Value,
    },
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Suite, Worker},
};

/// The suite.
pub const SUITE: Suite = Suite {
    name: "pending",
    cases,
    quality: Vec::new,
    memory,
};

const WAITING: [usize; 3] = [64, 1024, 10_000];

/// One side of the traffic of a table: its own requests, and a sequence of ids that may be shared.
struct Driver<P: Pending> {
    table: Arc<P>,
    ids: Arc<AtomicU64>,
    live: VecDeque<P::Key>,
    // Each driver clones its own value, so that the threads do not contend for the reference counts.
    value: Value,
}

impl<P: Pending> Driver<P> {
    fn new(table: &Arc<P>, ids: &Arc<AtomicU64>, live: usize) -> Self {
        let mut driver = Self {
            table: Arc::clone(table),
            ids: Arc::clone(ids),
            live: VecDeque::with_capacity(live + 1),
            value: Arc::new(0),
        };
        for _ in 0..live {
            driver.open();
        }
        driver
    }

    fn open(&mut self) {
        // Ids are even: the server opens all requests of a lane.
        let id = self.ids.fetch_add(2, Ordering::Relaxed);
        let key = self.table.insert(id, Arc::clone(&self.value));
        self.live.push_back(key);
    }

    fn round_trip(&mut self) {
        self.open();
        let middle = &self.live[self.live.len() / 2];
        black_box(self.table.lookup(middle).unwrap());
        let oldest = self.live.pop_front().unwrap();
        black_box(self.table.settle(&oldest).unwrap());
    }
}

impl<P: Pending> Drop for Driver<P> {
    fn drop(&mut self) {
        for key in &self.live {
            self.table.settle(key);
        }
    }
}

fn drivers<P: Pending>(threads: usize, waiting: usize) -> Vec<Driver<P>> {
    let (table, ids) = (Arc::new(P::empty()), Arc::new(AtomicU64::new(2)));
    (0..threads)
        .map(|_| Driver::new(&table, &ids, waiting / threads))
        .collect()
}

fn round_trip<P: Pending + 'static>(size: usize) -> Case {
    Case::new("round_trip", (P::NAME, P::ROLE), size, move |threads| {
        let worker = |mut driver: Driver<P>| -> Worker {
            Box::new(move |times| (0..times).for_each(|_| driver.round_trip()))
        };
        drivers(threads, size).into_iter().map(worker).collect()
    })
}

fn cases() -> Vec<Case> {
    WAITING
        .into_iter()
        .flat_map(|size| {
            [
                round_trip::<MutexMap>(size),
                round_trip::<DashUuid>(size),
                round_trip::<Dash>(size),
                round_trip::<Papaya>(size),
                round_trip::<SlabPerLink>(size),
                round_trip::<SlabTable>(size),
                round_trip::<Ours>(size),
            ]
        })
        .collect()
}

/// The memory of a waiting request in the table, without its value and without the key that its messages carry.
fn held<P: Pending>(meter: &Meter, figures: &mut Vec<Figure>) {
    for size in WAITING {
        let value: Value = Arc::new(0);
        let before = (meter.current)();
        let table = P::empty();
        let insert = |id| table.insert(id, Arc::clone(&value));
        let mut keys = VecDeque::with_capacity(size);
        keys.extend((0..size as u64).map(|n| insert(2 * n)));
        let beside = size * (size_of::<P::Key>() + P::KEY_HEAP_BYTES);
        let bytes = (meter.current)() as f64 - before as f64 - beside as f64;
        let per_entry = bytes / size as f64;
        figures.push(Figure::new(
            "round_trip",
            P::NAME,
            size,
            BYTES_PER_ENTRY,
            per_entry,
        ));
        for key in &keys {
            table.settle(key);
        }
        drop(keys);
        let kept = (meter.current)() as f64 - before as f64;
        let what = "bytes kept when all have been settled";
        figures.push(Figure::new("round_trip", P::NAME, size, what, kept));
    }
}

fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    held::<MutexMap>(meter, &mut figures);
    held::<DashUuid>(meter, &mut figures);
    held::<Dash>(meter, &mut figures);
    held::<Papaya>(meter, &mut figures);
    held::<SlabPerLink>(meter, &mut figures);
    held::<SlabTable>(meter, &mut figures);
    held::<Ours>(meter, &mut figures);
    figures
}
