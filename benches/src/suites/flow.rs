//! Credit, permits and the fair sender.
//!
//! - `message`: a message of `size` bytes passes both ends of a request's credit within its link's credit. Each of two
//!   threads has its own request on the same link.
//! - `try_acquire`: takes one of `size` permits, if one is free, and returns it. `acquire`: waits for a permit; with
//!   one permit, two threads take turns.
//! - `hand_over`: one permit circulates among `size` waiting tasks: it is returned, the woken tasks are polled, and the
//!   task that gets it joins the queue again. Two threads run the same tasks, as the threads of a runtime do, with
//!   twice as many tasks and two permits.
//! - `push_pop`: one message is sent and another is queued, among `size` requests with eight messages each. The threads
//!   share the sender behind a lock, as the tasks of a link do.

use std::{
    collections::VecDeque,
    future::Future,
    hint::black_box,
    pin::{Pin, pin},
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
    case::{BYTES_PER_ENTRY, Case, Figure, Meter, Suite, Worker},
};

/// The suite.
pub const SUITE: Suite = Suite {
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
const COST: u64 = 16 * 1024 + adit_flow::MESSAGE_COST;

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

fn block_on<P: Permits>(permits: &P, waker: &Waker) -> Option<P::Permit> {
    let mut waiting = pin!(permits.wait());
    let mut cx = Context::from_waker(waker);
    loop {
        match waiting.as_mut().poll(&mut cx) {
            Poll::Ready(outcome) => return P::granted(outcome),
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
                    assert!(block_on(&*permits, &waker).is_some());
                }
            })
        };
        (0..threads).map(worker).collect()
    })
}

/// Tasks that were woken, in order.
type RunQueue = Arc<Mutex<VecDeque<usize>>>;

/// A task that only records that it was woken.
struct Task {
    name: usize,
    woken: AtomicBool,
    queue: RunQueue,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.queue.lock().unwrap().push_back(self.name);
        }
    }
}

/// Tasks that all wait for permits of one gate.
struct Line<P: Permits> {
    permits: P,
    tasks: Vec<Arc<Task>>,
    waiting: Vec<Mutex<Waiting<P>>>,
    queue: RunQueue,
    /// Permits until their holders release them.
    held: Mutex<Vec<P::Permit>>,
}

/// A task's future.
type Waiting<P> = Pin<Box<dyn Future<Output = <P as Permits>::Outcome> + Send>>;

fn wait<P: Permits>(permits: &P) -> Waiting<P> {
    Box::pin(permits.wait())
}

impl<P: Permits> Line<P> {
    /// Creates a queue of `waiters` tasks for each permit.
    fn new(waiters: usize, permits: usize) -> Self {
        let tasks = waiters * permits;
        let all = P::new(permits, tasks);
        let queue = RunQueue::default();
        let task = |name| {
            Arc::new(Task {
                name,
                woken: AtomicBool::new(false),
                queue: Arc::clone(&queue),
            })
        };
        let line = Self {
            held: Mutex::new((0..permits).filter_map(|_| all.try_take()).collect()),
            tasks: (0..tasks).map(task).collect(),
            waiting: (0..tasks).map(|_| Mutex::new(wait(&all))).collect(),
            permits: all,
            queue,
        };
        for (name, waiting) in line.waiting.iter().enumerate() {
            assert!(line.poll(name, &mut waiting.lock().unwrap()).is_none());
        }
        line
    }

    fn poll(&self, name: usize, waiting: &mut Waiting<P>) -> Option<P::Permit> {
        let waker = Waker::from(Arc::clone(&self.tasks[name]));
        match waiting.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => Some(P::granted(outcome).expect("a permit")),
            Poll::Pending => None,
        }
    }

    /// Returns one permit and runs the woken tasks: the task that gets the permit joins the queue again, and keeps the
    /// permit. Returns how many tasks ran.
    fn hand_over(&self) -> u64 {
        let mut ran = 0;
        loop {
            let held = self.held.lock().unwrap().pop();
            let came_back = held.is_some();
            drop(held);
            // Only these tasks run: another thread may keep waking tasks.
            let woken = self.queue.lock().unwrap().len();
            for _ in 0..woken {
                let next = self.queue.lock().unwrap().pop_front();
                let Some(name) = next else {
                    break;
                };
                ran += 1;
                self.run(name);
            }
            if came_back {
                return ran;
            }
            if woken == 0 {
                // Another thread has all permits at the moment.
                thread::yield_now();
            }
        }
    }

    fn run(&self, name: usize) {
        let mut waiting = self.waiting[name].lock().unwrap();
        self.tasks[name].woken.store(false, Ordering::Release);
        let mut granted = self.poll(name, &mut waiting);
        // When the first task gets a permit, the same task may get the other one too.
        while let Some(permit) = granted {
            *waiting = wait(&self.permits);
            granted = self.poll(name, &mut waiting);
            self.held.lock().unwrap().push(permit);
        }
    }
}

fn hand_over<P: Permits>(size: usize) -> Case {
    Case::new("hand_over", (P::NAME, P::ROLE), size, move |threads| {
        let line = Arc::new(Line::<P>::new(size, threads));
        let worker = |_| -> Worker {
            let line = Arc::clone(&line);
            Box::new(move |times| {
                (0..times).for_each(|_| {
                    line.hand_over();
                });
            })
        };
        (0..threads).map(worker).collect()
    })
}

fn filled<S: Sender>(keys: usize) -> S {
    filled_with(keys, QUEUED)
}

fn filled_with<S: Sender>(keys: usize, queued: usize) -> S {
    let mut sender = S::empty();
    for key in (0..queued).flat_map(|_| 0..keys as u64) {
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
        let line = Line::<P>::new(size, 1);
        let ran: u64 = (0..GRANTS).map(|_| line.hand_over()).sum();
        let per_grant = ran as f64 / f64::from(GRANTS);
        let what = "wake-ups per grant";
        figures.push(Figure::new("hand_over", P::NAME, size, what, per_grant).near(1.0));
    }
}

/// How long a new request waits when four requests with 16 KiB messages have been served for a while.
fn newcomer<S: Sender>(figures: &mut Vec<Figure>) {
    const REQUESTS: usize = 4;
    let mut sender = filled_with::<S>(REQUESTS, 1024);
    for _ in 0..1000 {
        sender.pop().unwrap();
    }
    let newcomer = REQUESTS as u64;
    sender.push(newcomer, 100);
    let before = std::iter::from_fn(|| sender.pop()).take_while(|(key, _)| *key != newcomer);
    let bytes: u64 = before.map(|(_, cost)| cost).sum();
    let what = "bytes that leave before a newcomer's 100, the others under way";
    figures.push(Figure::new(
        "push_pop",
        S::NAME,
        REQUESTS,
        what,
        bytes as f64,
    ));
}

/// Sixteen requests offer unequal load in messages of unequal size, the first as much as all others together. Measures
/// how unequal their shares are while all have queued messages, and how long a new request waits.
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
        // This is half of what the small requests offer together.
        if share.is_none() && total >= 8 << 20 {
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            share = Some(*least as f64 / *most as f64);
        }
    }
    let figure = |what, value| Figure::new("push_pop", S::NAME, REQUESTS, what, value);
    let what = "bytes of the least served / of the most served, after 8 MiB";
    figures.push(figure(what, share.unwrap()).near(1.0));
    let what = "bytes that leave before a newcomer's 100, all of them new";
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
    newcomer::<Fifo>(&mut figures);
    newcomer::<RoundRobin>(&mut figures);
    newcomer::<VirtualTime>(&mut figures);
    newcomer::<OurSender>(&mut figures);
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
        let bytes = meter.per_entry(size, || Line::<P>::new(size, 1));
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
