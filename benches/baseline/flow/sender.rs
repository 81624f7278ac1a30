//! Queues that choose which request sends next.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
};

use adit_flow::{FairSender, QUANTUM};

use crate::case::Role;

/// A queue that chooses the next item of many requests that have queued items.
pub trait Sender: Send + 'static {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;

    /// Creates an empty queue.
    fn empty() -> Self;
    /// Queues an item, which is identified by its cost.
    fn push(&mut self, key: u64, cost: u64);
    /// The next item: key and cost.
    fn pop(&mut self) -> Option<(u64, u64)>;
}

/// The queue of this project: deficit round robin, where a key that had no items gets its first turn early.
pub struct OurSender(FairSender<u64, u64>);

impl Sender for OurSender {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;

    fn empty() -> Self {
        Self(FairSender::new(QUANTUM))
    }

    fn push(&mut self, key: u64, cost: u64) {
        self.0.push(key, cost, cost);
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        self.0.pop()
    }
}

/// One queue for all keys: the least that queueing costs. It does not share the link fairly, so that it does less than
/// the task.
#[derive(Debug)]
pub struct Fifo(VecDeque<(u64, u64)>);

impl Sender for Fifo {
    const NAME: &'static str = "fifo";
    const ROLE: Role = Role::Limit;

    fn empty() -> Self {
        Self(VecDeque::new())
    }

    fn push(&mut self, key: u64, cost: u64) {
        self.0.push_back((key, cost));
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        self.0.pop_front()
    }
}

/// A queue for each key that sends one message of each key in turn, whatever it costs: the naive design, and that of
/// the ready queue of HTTP/2 and yamux libraries. Requests with larger messages get a larger share.
#[derive(Debug)]
pub struct RoundRobin {
    queues: HashMap<u64, VecDeque<u64>>,
    ready: VecDeque<u64>,
}

impl Sender for RoundRobin {
    const NAME: &'static str = "round_robin";
    const ROLE: Role = Role::Naive;

    fn empty() -> Self {
        Self {
            queues: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    fn push(&mut self, key: u64, cost: u64) {
        let queue = self.queues.entry(key).or_insert_with(|| {
            self.ready.push_back(key);
            VecDeque::new()
        });
        queue.push_back(cost);
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        let key = self.ready.pop_front()?;
        let queue = self.queues.get_mut(&key)?;
        let cost = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&key);
        } else {
            self.ready.push_back(key);
        }
        Some((key, cost))
    }
}

/// Start-time fair queueing (Goyal, Vin, Cheng, 1996): every item gets a virtual time, and the item with the earliest
/// time is sent next.
#[derive(Debug)]
pub struct VirtualTime {
    heap: BinaryHeap<Reverse<(u64, u64, u64, u64)>>,
    finish: HashMap<u64, (u64, usize)>,
    now: u64,
    pushed: u64,
}

impl Sender for VirtualTime {
    const NAME: &'static str = "virtual_time";
    const ROLE: Role = Role::Rival;

    fn empty() -> Self {
        Self {
            heap: BinaryHeap::new(),
            finish: HashMap::new(),
            now: 0,
            pushed: 0,
        }
    }

    fn push(&mut self, key: u64, cost: u64) {
        let (finish, queued) = self.finish.entry(key).or_insert((self.now, 0));
        let start = self.now.max(*finish);
        *finish = start + cost;
        *queued += 1;
        self.pushed += 1;
        self.heap.push(Reverse((start, self.pushed, key, cost)));
    }

    fn pop(&mut self) -> Option<(u64, u64)> {
        let Reverse((start, _, key, cost)) = self.heap.pop()?;
        self.now = start;
        if let Some((_, queued)) = self.finish.get_mut(&key) {
            *queued -= 1;
            if *queued == 0 {
                self.finish.remove(&key);
            }
        }
        Some((key, cost))
    }
}
