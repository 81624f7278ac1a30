//! Credit, permits and the fair sender.
//!
//! - `message`: a message of `size` bytes through both ends of a request's credit within its link's. Two threads have a
//!   request each, of one link.
//! - `try_acquire`: one of `size` permits, if there is one, and back. `acquire`: waits for it; with one permit, two threads
//!   take turns.
//! - `hand_over`: one permit goes round a line of `size` waiting tasks: it comes back, the woken are polled, who has it
//!   joins the line anew.
//! - `push_pop`: one message leaves and another is queued, among `size` requests of eight messages each. The threads share
//!   the sender behind a lock, as those of a link do.

use std::{
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use crate::{
    baseline::flow::{
        Credit, Fifo, Http2Credit, LockedCredit, OurCredit, OurGate, OurSender, Permits,
        RoundRobin, SemaphoreCredit, Sender, TokioSemaphore, VirtualTime, WakeAll,
    },
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Room, Worker},
};

/// The room.
pub const ROOM: Room = Room {
    name: "flow",
    cases,
    quality,
    memory,
};

const PAYLOADS: [usize; 2] = [1024, 16 * 1024];
const PERMITS: [usize; 2] = [1, 1000];
const WAITERS: [usize; 3] = [1, 64, 1024];
const KEYS: [usize; 3] = [1, 64, 1024];
/// Messages that each request has queued.
const QUEUED: usize = 8;
const COST: u64 = 16 * 1024 + 32;

fn message<C: Credit>(size: usize) -> Case {
    Case::new("message", (C::NAME, C::ROLE), size, move |threads| {
        let link = C::Link::default();
        let worker = |_| -> Worker {
            let mut credit = C::request(&link);
            Box::new(move |times| {
                for _ in 0..times {
                    assert!(credit.message(black_box(size)));
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

fn try_acquire<P: Permits>(size: usize) -> Case {
    Case::new("try_acquire", (P::NAME, P::ROLE), size, move |threads| {
        let permits = Arc::new(P::new(size, 100));
        let worker = |_| -> Worker {
            let permits = Arc::clone(&permits);
            Box::new(move |times| {
                for _ in 0..times {
                    black_box(permits.try_take());
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future + ?Sized>(mut future: Pin<Box<F>>, waker: &Waker) -> F::Output {
    let mut cx = Context::from_waker(waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

fn acquire<P: Permits>(size: usize) -> Case {
    Case::new("acquire", (P::NAME, P::ROLE), size, move |threads| {
        let permits = Arc::new(P::new(size, 100));
        let worker = |_| -> Worker {
            let permits = Arc::clone(&permits);
            Box::new(move |times| {
                let waker = Waker::from(Arc::new(Unpark(thread::current())));
                for _ in 0..times {
                    drop(block_on(permits.wait(), &waker));
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

/// A task that only notes that it was woken.
struct Task {
    name: usize,
    woken: AtomicBool,
    names: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::Relaxed) {
            self.names.lock().unwrap().push(self.name);
        }
    }
}

/// Tasks that wait for one permit, and the one that has it.
struct Line<P: Permits> {
    permits: P,
    tasks: Vec<Arc<Task>>,
    waiting: Vec<Pin<Box<dyn Future<Output = P::Permit> + Send>>>,
    names: Arc<Mutex<Vec<usize>>>,
    held: Option<P::Permit>,
    wakes: u64,
}

impl<P: Permits> Line<P> {
    fn new(waiters: usize) -> Self {
        let permits = P::new(1, waiters);
        let names = Arc::new(Mutex::new(Vec::new()));
        let task = |name| {
            Arc::new(Task {
                name,
                woken: AtomicBool::new(false),
                names: Arc::clone(&names),
            })
        };
        let mut line = Self {
            held: permits.try_take(),
            tasks: (0..waiters).map(task).collect(),
            waiting: (0..waiters).map(|_| permits.wait()).collect(),
            permits,
            names,
            wakes: 0,
        };
        for name in 0..waiters {
            assert!(line.poll(name).is_pending());
        }
        line
    }

    fn poll(&mut self, name: usize) -> Poll<P::Permit> {
        let waker = Waker::from(Arc::clone(&self.tasks[name]));
        let mut cx = Context::from_waker(&waker);
        self.waiting[name].as_mut().poll(&mut cx)
    }

    fn hand_over(&mut self) {
        drop(self.held.take());
        let names = std::mem::take(&mut *self.names.lock().unwrap());
        for name in names {
            self.wakes += 1;
            self.tasks[name].woken.store(false, Ordering::Relaxed);
            if let Poll::Ready(permit) = self.poll(name) {
                self.held = Some(permit);
                self.waiting[name] = self.permits.wait();
                assert!(self.poll(name).is_pending());
            }
        }
        assert!(self.held.is_some());
    }
}

fn hand_over<P: Permits>(size: usize) -> Case {
    Case::alone("hand_over", (P::NAME, P::ROLE), size, move || {
        let mut line = Line::<P>::new(size);
        Box::new(move |times| (0..times).for_each(|_| line.hand_over()))
    })
    .single()
}

fn filled<S: Sender>(keys: usize) -> S {
    let mut sender = S::empty();
    for key in (0..QUEUED).flat_map(|_| 0..keys as u64) {
        sender.push(key, COST);
    }
    sender
}

fn push_pop<S: Sender>(size: usize) -> Case {
    Case::new("push_pop", (S::NAME, S::ROLE), size, move |threads| {
        let sender = Arc::new(Mutex::new(filled::<S>(size)));
        let worker = |_| -> Worker {
            let sender = Arc::clone(&sender);
            Box::new(move |times| {
                for _ in 0..times {
                    let (key, cost) = sender.lock().unwrap().pop().unwrap();
                    sender.lock().unwrap().push(black_box(key), cost);
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in PAYLOADS {
        cases.extend([
            message::<LockedCredit>(size),
            message::<SemaphoreCredit>(size),
            message::<Http2Credit>(size),
            message::<OurCredit>(size),
        ]);
    }
    for size in PERMITS {
        cases.extend([
            try_acquire::<WakeAll>(size),
            try_acquire::<TokioSemaphore>(size),
            try_acquire::<OurGate>(size),
            acquire::<WakeAll>(size),
            acquire::<TokioSemaphore>(size),
            acquire::<OurGate>(size),
        ]);
    }
    for size in WAITERS {
        cases.extend([
            hand_over::<WakeAll>(size),
            hand_over::<TokioSemaphore>(size),
            hand_over::<OurGate>(size),
        ]);
    }
    for size in KEYS {
        cases.extend([
            push_pop::<Fifo>(size),
            push_pop::<RoundRobin>(size),
            push_pop::<VirtualTime>(size),
            push_pop::<OurSender>(size),
        ]);
    }
    cases
}

fn wakes<P: Permits>(figures: &mut Vec<Figure>) {
    const GRANTS: u32 = 2_000;
    for size in WAITERS {
        let mut line = Line::<P>::new(size);
        (0..GRANTS).for_each(|_| line.hand_over());
        let per_grant = line.wakes as f64 / f64::from(GRANTS);
        let what = "wake-ups per grant";
        figures.push(Figure::new("hand_over", P::NAME, size, what, per_grant).near(1.0));
    }
}

/// Sixteen requests offer unequal load in messages of unequal size, the first as much as all others together; how unequal
/// is what they get while all have something queued, and how long does a newcomer wait?
fn fairness<S: Sender>(figures: &mut Vec<Figure>) {
    const REQUESTS: usize = 16;
    const COSTS: [u64; 4] = [64 * 1024, 16 * 1024, 4 * 1024, 512];
    let mut sender = S::empty();
    for key in 0..REQUESTS {
        let cost = COSTS[key % COSTS.len()];
        let offered = if key == 0 { 15 << 20 } else { 1_u64 << 20 };
        for _ in 0..offered / cost {
            sender.push(key as u64, cost);
        }
    }
    let newcomer = REQUESTS as u64;
    sender.push(newcomer, 100);
    let mut served = [0_u64; REQUESTS];
    let (mut total, mut share, mut waited) = (0, None, None);
    while let Some((key, cost)) = sender.pop() {
        total += cost;
        match usize::try_from(key) {
            Ok(key) if key < REQUESTS => served[key] += cost,
            _ => waited = Some(total),
        }
        // Half of what the small ones offer all together.
        if share.is_none() && total >= 8 << 20 {
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            share = Some(*least as f64 / *most as f64);
        }
    }
    let figure = |what, value| Figure::new("push_pop", S::NAME, REQUESTS, what, value);
    let what = "bytes of the least served / of the most served, after 8 MiB";
    figures.push(figure(what, share.unwrap()).near(1.0));
    let what = "bytes that leave before a newcomer's 100";
    figures.push(figure(what, waited.unwrap() as f64 - 100.0));
}

fn quality() -> Vec<Figure> {
    let mut figures = Vec::new();
    wakes::<WakeAll>(&mut figures);
    wakes::<TokioSemaphore>(&mut figures);
    wakes::<OurGate>(&mut figures);
    fairness::<Fifo>(&mut figures);
    fairness::<RoundRobin>(&mut figures);
    fairness::<VirtualTime>(&mut figures);
    fairness::<OurSender>(&mut figures);
    figures
}

fn held_credit<C: Credit>(meter: &Meter, figures: &mut Vec<Figure>) {
    const REQUESTS: usize = 1000;
    let link = C::Link::default();
    let bytes = meter.per_entry(REQUESTS, || {
        let mut requests = Vec::with_capacity(REQUESTS);
        requests.extend((0..REQUESTS).map(|_| C::request(&link)));
        requests
    });
    for size in PAYLOADS {
        figures.push(Figure::new(
            "message",
            C::NAME,
            size,
            BYTES_PER_ENTRY,
            bytes,
        ));
    }
}

fn held_line<P: Permits>(meter: &Meter, figures: &mut Vec<Figure>) {
    for size in WAITERS {
        let bytes = meter.per_entry(size, || Line::<P>::new(size));
        figures.push(Figure::new(
            "hand_over",
            P::NAME,
            size,
            BYTES_PER_ENTRY,
            bytes,
        ));
    }
}

fn held_queue<S: Sender>(meter: &Meter, figures: &mut Vec<Figure>) {
    for size in KEYS {
        let bytes = meter.per_entry(size * QUEUED, || filled::<S>(size));
        figures.push(Figure::new(
            "push_pop",
            S::NAME,
            size,
            BYTES_PER_ENTRY,
            bytes,
        ));
    }
}

fn memory(meter: &Meter) -> Vec<Figure> {
    let mut figures = Vec::new();
    held_credit::<LockedCredit>(meter, &mut figures);
    held_credit::<SemaphoreCredit>(meter, &mut figures);
    held_credit::<Http2Credit>(meter, &mut figures);
    held_credit::<OurCredit>(meter, &mut figures);
    held_line::<WakeAll>(meter, &mut figures);
    held_line::<TokioSemaphore>(meter, &mut figures);
    held_line::<OurGate>(meter, &mut figures);
    held_queue::<Fifo>(meter, &mut figures);
    held_queue::<RoundRobin>(meter, &mut figures);
    held_queue::<VirtualTime>(meter, &mut figures);
    held_queue::<OurSender>(meter, &mut figures);
    figures
}
