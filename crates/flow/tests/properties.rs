//! The promises, each checked after every random step:
//!
//! 1. A sender that stays within its credit never causes an overrun, however late bytes and windows arrive (P-4.2,
//!    P-4.4).
//! 2. Limits never decrease, nor does `consumed`, which never exceeds what was received (P-4.3, P-4.5).
//! 3. The bytes that all requests of a budget may have in flight or in memory, the sum of limit - consumed, are at most
//!    an initial window for each request plus what they have borrowed; no budget exceeds its capacity, at any level
//!    (P-4.6).
//! 4. When all has been consumed and all windows have arrived, at least one byte may be sent.
//! 5. When all requests have ended, nothing is borrowed.
//! 6. The fair sender serves exactly as a simple implementation of deficit round robin with early turns; no item is
//!    lost, and the order within a key is kept.
//! 7. For two keys that always have something queued, the costs served differ by at most the quantum and the cost of
//!    the largest item (P-5.1).
//! 8. The gate gives and refuses permits as a simple queue does; no permit is lost or given twice, in any order of
//!    drops (F12).
//! 9. `drop_oldest` removes the oldest item of its key and its cost; the key keeps its turn (P-11.3).
//! 10. A key whose queue becomes empty and is filled again, repeatedly, is ahead of any key that always has something
//!     queued by at most a quantum more than that (P-5.1).
//! 11. A key that is removed while the table shrinks by thousands does not remove others.
#![cfg(not(adit_loom))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use adit_flow::{
    Acquire, Budget, Claim, FairSender, Gate, GateError, Grant, MESSAGE_COST, MIN_WINDOW, Permit,
    RecvCredit, SendCredit, Shares,
};
use proptest::prelude::*;

/// One direction of one request: both ends, and the messages in transit between them.
struct Direction {
    initial: u64,
    sender: SendCredit,
    receiver: RecvCredit,
    /// Costs in transit, in the parts in which they will arrive.
    bytes: VecDeque<u64>,
    windows: VecDeque<Grant>,
    last: Grant,
}

impl Direction {
    fn new(initial_window: u32) -> Self {
        Self {
            initial: u64::from(initial_window).max(MIN_WINDOW),
            sender: SendCredit::new(initial_window),
            receiver: RecvCredit::new(initial_window),
            bytes: VecDeque::new(),
            windows: VecDeque::new(),
            last: Grant {
                limit: u64::from(initial_window),
                consumed: 0,
            },
        }
    }

    fn send(&mut self, max_payload: usize) {
        let Some(payload) = self.sender.max_payload(max_payload) else {
            assert!(max_payload == 0 || self.sender.available() <= MESSAGE_COST);
            return;
        };
        assert!((1..=max_payload).contains(&payload));
        self.sender.take(payload).expect("it fits by `max_payload`");
        let half = payload as u64 / 2;
        self.bytes.push_back(MESSAGE_COST);
        self.bytes.push_back(half);
        self.bytes.push_back(payload as u64 - half);
    }

    fn deliver(&mut self, parts: usize) {
        for cost in self.bytes.drain(..parts.min(self.bytes.len())) {
            self.receiver
                .on_received(cost)
                .expect("credit was honoured");
        }
    }

    fn consume(&mut self, cost: u64, budget: &Budget, max_window: u64) {
        let due = self.receiver.consume(cost);
        let before = self.receiver.window();
        let grant = self.receiver.grant(budget, max_window);
        assert!(due || grant.is_none(), "not due and granted");
        assert!(
            due || self.receiver.window() == before,
            "only a grant changes the window"
        );
        if let Some(grant) = grant {
            assert!(grant.limit > self.last.limit, "P-4.3");
            assert!(grant.consumed >= self.last.consumed);
            assert!(grant.consumed <= self.receiver.received(), "P-4.5");
            self.last = grant;
            self.windows.push_back(grant);
        } else if due {
            assert!(self.receiver.window() < before, "due and not granted");
        }
    }

    fn deliver_window(&mut self, index: usize) {
        if self.windows.is_empty() {
            return;
        }
        // Out of order on purpose: an older window that arrives later is ignored.
        let grant = self.windows.remove(index % self.windows.len()).unwrap();
        let before = self.sender.limit();
        let more = self.sender.on_window(grant.limit, grant.consumed).unwrap();
        assert_eq!(more, grant.limit > before);
        assert_eq!(self.sender.limit(), before.max(grant.limit));
    }

    fn outstanding(&self) -> u64 {
        self.receiver.limit() - self.receiver.consumed()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize, usize),
    Deliver(usize, usize),
    Consume(usize, u64),
    Window(usize, usize),
    Press(u64),
    Relieve,
    End(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let request = 0..3usize;
    let step = prop_oneof![
        6 => (request.clone(), 0..3000usize).prop_map(|(r, p)| Step::Send(r, p)),
        6 => (request.clone(), 0..9usize).prop_map(|(r, n)| Step::Deliver(r, n)),
        6 => (request.clone(), prop_oneof![0..500u64, Just(u64::MAX)])
            .prop_map(|(r, c)| Step::Consume(r, c)),
        6 => (request.clone(), 0..4usize).prop_map(|(r, i)| Step::Window(r, i)),
        1 => (0..20_000u64).prop_map(Step::Press),
        1 => Just(Step::Relieve),
        1 => request.prop_map(Step::End),
    ];
    prop::collection::vec(step, 1..400)
}

proptest! {
    /// Promises 1 to 5: credit, limits and budgets hold after every step.
    #[test]
    fn credit_is_honoured_limited_and_never_stuck(
        steps in steps(),
        initial in prop_oneof![0..100u32, 100..2000u32],
        max_window in 0..20_000u64,
        link_capacity in 0..20_000u64,
        process_capacity in 0..20_000u64,
    ) {
        let process = Budget::new(process_capacity);
        let link = process.child(link_capacity);
        let mut directions: Vec<Direction> = (0..3).map(|_| Direction::new(initial)).collect();
        let mut pressed = 0;
        for step in steps {
            match step {
                Step::Send(r, payload) => directions[r].send(payload),
                Step::Deliver(r, parts) => directions[r].deliver(parts),
                Step::Consume(r, cost) => directions[r].consume(cost, &link, max_window),
                Step::Window(r, index) => directions[r].deliver_window(index),
                Step::Press(bytes) => {
                    if process.try_charge(bytes) {
                        pressed += bytes;
                    }
                }
                Step::Relieve => {
                    process.release(pressed);
                    pressed = 0;
                }
                Step::End(r) => {
                    directions[r].receiver.release();
                    directions[r] = Direction::new(initial);
                }
            }
            let outstanding: u64 = directions.iter().map(Direction::outstanding).sum();
            let initial: u64 = directions.iter().map(|d| d.initial).sum();
            prop_assert!(outstanding <= initial + link.used());
            prop_assert!(link.used() <= link.capacity());
            prop_assert!(process.used() <= process.capacity());
            prop_assert_eq!(link.used() + pressed, process.used());
            let borrowed: u64 = directions
                .iter()
                .map(|d| d.receiver.window() - d.initial)
                .sum();
            prop_assert_eq!(borrowed, link.used());
        }
        for direction in &mut directions {
            direction.deliver(usize::MAX);
            direction.consume(u64::MAX, &link, max_window);
            // The last window alone is enough: limits are absolute.
            direction.windows.drain(..direction.windows.len().saturating_sub(1));
            direction.deliver_window(0);
            prop_assert!(direction.sender.max_payload(1).is_some(), "promise 4");
            prop_assert_eq!(direction.sender.limit(), direction.receiver.limit());
        }
        directions.clear();
        prop_assert_eq!(link.used(), 0);
        prop_assert_eq!(process.used(), pressed);
    }
}

/// One key of [`PlainSender`].
struct PlainQueue {
    key: u8,
    items: VecDeque<(u32, u64)>,
    deficit: u64,
    /// The deficit contains the quantum of the current turn, or of the next one.
    begun: bool,
}

impl PlainQueue {
    fn fits(&self) -> bool {
        self.items
            .front()
            .is_some_and(|item| item.1 <= self.deficit)
    }

    fn take(&mut self) -> (u8, u32, u64) {
        let (item, cost) = self.items.pop_front().unwrap();
        self.deficit -= cost;
        (self.key, item, cost)
    }
}

/// A simple implementation of deficit round robin with early turns.
struct PlainSender {
    quantum: u64,
    /// The queues in the order of their turns.
    queues: Vec<PlainQueue>,
    early: Vec<u8>,
    lead: u64,
}

impl PlainSender {
    fn position(&self, key: u8) -> Option<usize> {
        self.queues.iter().position(|q| q.key == key)
    }

    fn push(&mut self, key: u8, item: u32, cost: u64) {
        let index = self.position(key).unwrap_or_else(|| {
            self.queues.push(PlainQueue {
                key,
                items: VecDeque::new(),
                deficit: 0,
                begun: false,
            });
            self.queues.len() - 1
        });
        let queue = &mut self.queues[index];
        queue.items.push_back((item, cost));
        if queue.items.len() == 1 {
            if !queue.begun {
                (queue.begun, queue.deficit) = (true, self.quantum);
            }
            self.early.push(key);
        }
        self.tidy();
    }

    /// Removes keys without items at their turn, and from `early` the keys whose first item costs more than their
    /// deficit.
    fn tidy(&mut self) {
        while self.queues.first().is_some_and(|q| q.items.is_empty()) {
            self.queues.remove(0);
        }
        let queues = &self.queues;
        let fits = |key: &u8| queues.iter().any(|q| q.key == *key && q.fits());
        self.early.retain(fits);
        if self.queues.is_empty() {
            self.lead = self.quantum;
        }
    }

    fn pop(&mut self) -> Option<(u8, u32)> {
        let served = self.pop_early().or_else(|| self.pop_in_turn());
        self.tidy();
        served
    }

    fn pop_early(&mut self) -> Option<(u8, u32)> {
        let key = *self.early.first()?;
        let index = self.position(key)?;
        let cost = self.queues[index].items[0].1.max(1);
        self.lead = self.lead.checked_sub(cost)?;
        self.early.rotate_left(1);
        let (key, item, _) = self.queues[index].take();
        Some((key, item))
    }

    fn pop_in_turn(&mut self) -> Option<(u8, u32)> {
        loop {
            let queue = self.queues.first_mut()?;
            if !queue.begun {
                queue.begun = true;
                queue.deficit += self.quantum;
            }
            if queue.fits() {
                let (key, item, cost) = queue.take();
                self.lead = (self.lead + cost).min(self.quantum);
                return Some((key, item));
            }
            queue.begun = false;
            self.queues.rotate_left(1);
            self.tidy();
        }
    }

    fn remove(&mut self, key: u8) -> VecDeque<(u32, u64)> {
        let removed = self.position(key).map(|index| self.queues.remove(index));
        self.tidy();
        removed.map(|q| q.items).unwrap_or_default()
    }

    fn drop_oldest(&mut self, key: u8) -> Option<(u32, u64)> {
        let index = self.position(key)?;
        let dropped = self.queues[index].items.pop_front();
        self.tidy();
        dropped
    }

    fn cost(&self, key: u8) -> u64 {
        let queues = self.queues.iter().filter(|q| q.key == key);
        queues.flat_map(|q| &q.items).map(|(_, cost)| cost).sum()
    }

    fn len_keys(&self) -> usize {
        self.queues.iter().filter(|q| !q.items.is_empty()).count()
    }
}

#[derive(Debug, Clone)]
enum Turn {
    Push(u8, u64),
    Pop,
    Remove(u8),
    DropOldest(u8),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        6 => (0..6u8, 0..400u64).prop_map(|(k, c)| Turn::Push(k, c)),
        5 => Just(Turn::Pop),
        1 => (0..6u8).prop_map(Turn::Remove),
        2 => (0..6u8).prop_map(Turn::DropOldest),
    ];
    prop::collection::vec(turn, 1..500)
}

proptest! {
    /// Promises 6 and 9: the fair sender serves and drops as the simple implementation does.
    #[test]
    fn fair_sender_is_the_plain_one(turns in turns(), quantum in 1..300u64) {
        let mut sender = FairSender::new(quantum);
        let mut plain = PlainSender {
            quantum,
            queues: Vec::new(),
            early: Vec::new(),
            lead: quantum,
        };
        for (item, turn) in (0u32..).zip(turns) {
            match turn {
                Turn::Push(key, cost) => {
                    sender.push(key, item, cost);
                    plain.push(key, item, cost);
                }
                Turn::Pop => prop_assert_eq!(sender.pop(), plain.pop()),
                Turn::Remove(key) => prop_assert_eq!(sender.remove(key), plain.remove(key)),
                Turn::DropOldest(key) => {
                    prop_assert_eq!(sender.drop_oldest(key), plain.drop_oldest(key));
                }
            }
            for key in 0..6 {
                prop_assert_eq!(sender.queued_cost(key), plain.cost(key));
            }
            prop_assert_eq!(sender.total_cost(), (0..6).map(|key| plain.cost(key)).sum::<u64>());
            prop_assert_eq!(sender.len_keys(), plain.len_keys());
            prop_assert_eq!(sender.is_empty(), plain.len_keys() == 0);
        }
        while let Some(served) = plain.pop() {
            prop_assert_eq!(sender.pop(), Some(served));
        }
        prop_assert_eq!(sender.pop(), None);
    }

    /// Promise 11: removes as many keys as free memory, so that the places are renumbered, in any order.
    #[test]
    fn removing_a_crowd_keeps_the_other_keys(
        leaving in Just((0..1500u32).collect::<Vec<_>>()).prop_shuffle(),
        served in prop::collection::vec(0..3usize, 1500),
        quantum in 1..300u64,
    ) {
        let mut sender = FairSender::new(quantum);
        let mut queued: HashMap<u32, VecDeque<(u32, u64)>> = HashMap::new();
        for item in 0..3000 {
            let (key, cost) = (item % 1500, u64::from(item % 7) + 1);
            sender.push(key, item, cost);
            queued.entry(key).or_default().push_back((item, cost));
        }
        let mut total: u64 = queued.values().flatten().map(|(_, cost)| cost).sum();
        for (key, served) in leaving.into_iter().zip(served) {
            for _ in 0..served {
                let Some((key, item)) = sender.pop() else { break };
                let (expected, cost) = queued.get_mut(&key).unwrap().pop_front().unwrap();
                prop_assert_eq!(item, expected);
                total -= cost;
            }
            let left = queued.remove(&key).unwrap();
            total -= left.iter().map(|(_, cost)| cost).sum::<u64>();
            prop_assert_eq!(sender.remove(key), left);
            prop_assert_eq!(sender.total_cost(), total);
        }
        prop_assert_eq!((sender.pop(), sender.len_keys()), (None, 0));
    }

    /// Promises 7 and 10: the share of each key is within the bounds.
    #[test]
    fn backlogged_keys_are_served_alike(
        costs in prop::collection::vec(prop::collection::vec(1..500u64, 1..20), 2..5),
        queued in prop::collection::vec(1..3usize, 5),
        quantum in 1..1000u64,
    ) {
        let mut sender = FairSender::new(quantum);
        let dearest = costs.iter().flatten().copied().max().unwrap();
        let mut supply: Vec<_> = costs.iter().map(|c| c.iter().copied().cycle()).collect();
        for (key, supply) in supply.iter_mut().enumerate() {
            for cost in supply.take(queued[key]) {
                sender.push(key, cost, cost);
            }
        }
        let mut served = vec![0u64; costs.len()];
        // A key with one item at a time becomes empty with each item.
        let always = |key: usize| queued[key] > 1;
        for _ in 0..500 {
            let (key, cost) = sender.pop().unwrap();
            served[key] += cost;
            let next = supply[key].next().unwrap();
            sender.push(key, next, next);
            let Some(least) = (0..served.len()).filter(|key| always(*key)).map(|key| served[key]).min() else {
                continue;
            };
            for (key, served) in served.iter().enumerate() {
                let more = if always(key) { quantum } else { 2 * quantum };
                prop_assert!(*served <= least + more + dearest, "{key}: {served} and {least}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Move {
    Try,
    Wait,
    Poll(usize),
    Leave(usize),
    Return(usize),
    Permits(usize),
    Close,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        4 => Just(Move::Try),
        8 => Just(Move::Wait),
        6 => (0..8usize).prop_map(Move::Poll),
        4 => (0..8usize).prop_map(Move::Leave),
        6 => (0..8usize).prop_map(Move::Return),
        1 => (0..5usize).prop_map(Move::Permits),
    ];
    (
        prop::collection::vec(one.clone(), 1..200),
        prop::collection::vec(one, 0..30),
    )
        .prop_map(|(mut open, closed)| {
            open.push(Move::Close);
            open.extend(closed);
            open
        })
}

fn poll(acquire: &mut Acquire) -> Poll<Result<Permit, GateError>> {
    Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop()))
}

/// The gate as a simple queue of task numbers.
#[derive(Default)]
struct PlainGate {
    permits: usize,
    in_use: usize,
    line: VecDeque<u32>,
    handed: Vec<u32>,
    closed: bool,
}

impl PlainGate {
    fn hand_over(&mut self) {
        while self.in_use < self.permits {
            let Some(name) = self.line.pop_front() else {
                return;
            };
            self.in_use += 1;
            self.handed.push(name);
        }
    }

    fn is_free(&self) -> bool {
        !self.closed && self.in_use < self.permits
    }
}

proptest! {
    /// Promise 8: the gate gives and refuses permits as a simple queue does.
    #[test]
    fn gate_is_a_plain_queue(moves in moves(), permits in 0..4usize, max_waiters in 0..5usize) {
        let gate = Gate::new(permits, max_waiters);
        let mut plain = PlainGate { permits, ..PlainGate::default() };
        let mut held: Vec<Permit> = Vec::new();
        let mut waiting: Vec<(u32, Acquire)> = Vec::new();
        for (name, step) in (0u32..).zip(moves) {
            match step {
                Move::Try => {
                    let permit = gate.try_acquire();
                    prop_assert_eq!(permit.is_some(), plain.is_free());
                    plain.in_use += usize::from(permit.is_some());
                    held.extend(permit);
                }
                Move::Wait => {
                    let mut acquire = gate.acquire();
                    match poll(&mut acquire) {
                        Poll::Ready(Ok(permit)) => {
                            prop_assert!(plain.is_free());
                            plain.in_use += 1;
                            held.push(permit);
                        }
                        Poll::Ready(Err(GateError::Closed)) => prop_assert!(plain.closed),
                        Poll::Ready(Err(GateError::Full)) => {
                            prop_assert!(!plain.is_free() && !plain.closed);
                            prop_assert_eq!(plain.line.len(), max_waiters);
                        }
                        Poll::Pending => {
                            prop_assert!(!plain.is_free() && !plain.closed);
                            plain.line.push_back(name);
                            waiting.push((name, acquire));
                        }
                    }
                }
                Move::Poll(index) if index < waiting.len() => {
                    let name = waiting[index].0;
                    match poll(&mut waiting[index].1) {
                        Poll::Ready(Ok(permit)) => {
                            let handed = plain.handed.iter().position(|n| *n == name);
                            plain.handed.remove(handed.expect("handed to this one"));
                            held.push(permit);
                            drop(waiting.remove(index));
                        }
                        Poll::Ready(Err(error)) => {
                            prop_assert_eq!(error, GateError::Closed);
                            prop_assert!(plain.closed && !plain.handed.contains(&name));
                            drop(waiting.remove(index));
                        }
                        Poll::Pending => prop_assert!(plain.line.contains(&name)),
                    }
                }
                Move::Leave(index) if index < waiting.len() => {
                    let (name, _) = waiting.remove(index);
                    plain.line.retain(|n| *n != name);
                    if let Some(handed) = plain.handed.iter().position(|n| *n == name) {
                        plain.handed.remove(handed);
                        plain.in_use -= 1;
                        plain.hand_over();
                    }
                }
                Move::Return(index) if index < held.len() => {
                    drop(held.swap_remove(index));
                    plain.in_use -= 1;
                    plain.hand_over();
                }
                Move::Permits(permits) => {
                    gate.set_permits(permits);
                    plain.permits = permits;
                    plain.hand_over();
                }
                Move::Close => {
                    gate.close();
                    plain.closed = true;
                    plain.line.clear();
                }
                Move::Poll(_) | Move::Leave(_) | Move::Return(_) => {}
            }
            prop_assert_eq!(gate.in_use(), plain.in_use);
            prop_assert_eq!(gate.available(), plain.permits.saturating_sub(plain.in_use));
            prop_assert_eq!(gate.waiting(), plain.line.len());
        }
        waiting.clear();
        held.clear();
        prop_assert_eq!((gate.in_use(), gate.waiting()), (0, 0));
        prop_assert_eq!(Arc::strong_count(&gate), 1);
    }
}

/// One step of three visitors that use two tunnels.
#[derive(Debug, Clone, Copy)]
enum Shared {
    Try(u64, u64),
    Wait(u64, u64),
    Poll(usize),
    Leave(usize),
    Return(usize),
}

proptest! {
    /// Promise: no permit is lost or doubled, a holder with its share does not take the rest that it leaves to others,
    /// and a task waits only while no permit may be given to it.
    #[test]
    fn shared_gate_leaves_its_part_to_others(
        steps in prop::collection::vec(
            prop_oneof![
                (0..2u64, 0..3u64).prop_map(|(t, v)| Shared::Try(t, v)),
                (0..2u64, 0..3u64).prop_map(|(t, v)| Shared::Wait(t, v)),
                (0..8usize).prop_map(Shared::Poll),
                (0..8usize).prop_map(Shared::Leave),
                (0..20usize).prop_map(Shared::Return),
            ],
            1..300,
        ),
        permits in 0..20usize,
        max_waiters in 0..6usize,
    ) {
        let shares = Shares { tunnel_percent: 80, visitor_percent: 60 };
        let (for_tunnels, for_visitors) = (permits * 20 / 100, permits * 40 / 100);
        let gate = Gate::shared(permits, max_waiters, shares);
        let mut held: Vec<(Claim, Permit)> = Vec::new();
        let mut waiting: Vec<(Claim, Acquire)> = Vec::new();
        for step in steps {
            let before = gate.available();
            match step {
                Shared::Try(tunnel, visitor) => {
                    let claim = Claim { tunnel, visitor };
                    let has_room = gate.has_room_for(claim);
                    let permit = gate.try_acquire_for(claim);
                    prop_assert_eq!(permit.is_some(), has_room);
                    held.extend(permit.map(|permit| (claim, permit)));
                }
                Shared::Wait(tunnel, visitor) => {
                    let claim = Claim { tunnel, visitor };
                    let mut acquire = gate.acquire_for(claim);
                    match poll(&mut acquire) {
                        Poll::Ready(Ok(permit)) => held.push((claim, permit)),
                        Poll::Ready(Err(error)) => prop_assert_eq!(error, GateError::Full),
                        Poll::Pending => {
                            prop_assert!(before <= for_visitors.max(for_tunnels));
                            waiting.push((claim, acquire));
                        }
                    }
                }
                Shared::Poll(index) if index < waiting.len() => {
                    let (claim, mut acquire) = waiting.swap_remove(index);
                    match poll(&mut acquire) {
                        Poll::Ready(permit) => held.push((claim, permit.unwrap())),
                        Poll::Pending => waiting.push((claim, acquire)),
                    }
                }
                Shared::Leave(index) if index < waiting.len() => drop(waiting.swap_remove(index)),
                Shared::Return(index) if index < held.len() => drop(held.swap_remove(index)),
                Shared::Poll(_) | Shared::Leave(_) | Shared::Return(_) => {}
            }
            let handed = waiting.len() - gate.waiting();
            prop_assert_eq!(gate.in_use(), held.len() + handed);
            prop_assert_eq!(gate.available(), permits - held.len() - handed);
            prop_assert!(gate.waiting() <= max_waiters);
            // One address alone holds its part and an eighth of the rest, at least one.
            let most = permits - for_visitors + (for_visitors / 8).max(1);
            let of_one = |visitor| held.iter().filter(|(claim, _)| claim.visitor == visitor).count();
            if held.iter().all(|(claim, _)| claim.visitor == 0) && handed == 0 {
                prop_assert!(of_one(0) <= most);
            }
        }
        drop((waiting, held));
        prop_assert_eq!((gate.in_use(), gate.waiting(), gate.available()), (0, 0, permits));
        prop_assert_eq!(Arc::strong_count(&gate), 1);
    }
}

/// A sender on a long path is not limited by its first window. The receiver consumes at once, so it never finds the
/// sender's credit used up at the moment of a grant; the window still grows until it does not limit the sender, and
/// then stops (P-4.6).
#[test]
fn a_long_path_is_filled() {
    // One message for each tick, 50 ticks in each direction: 1 MB is in transit when the path is full.
    const TRIP: u64 = 50;
    #[allow(clippy::cast_possible_truncation)] // it is small
    const PAYLOAD: usize = 10_000 - MESSAGE_COST as usize;
    let budget = Budget::new(64 << 20);
    let mut sender = SendCredit::new(32 * 1024);
    let mut receiver = RecvCredit::new(32 * 1024);
    let mut messages: HashMap<u64, usize> = HashMap::new();
    let mut windows: HashMap<u64, Grant> = HashMap::new();
    let mut full = 0;
    for tick in 0..3000 {
        if let Some(grant) = windows.remove(&tick) {
            sender.on_window(grant.limit, grant.consumed).unwrap();
        }
        if let Some(payload) = sender.max_payload(PAYLOAD) {
            sender.take(payload).unwrap();
            messages.insert(tick + TRIP, payload);
            full += usize::from(tick >= 2000 && payload == PAYLOAD);
        }
        if let Some(payload) = messages.remove(&tick) {
            receiver.on_received(MESSAGE_COST).unwrap();
            receiver.on_received(payload as u64).unwrap();
            receiver.consume(payload as u64 + MESSAGE_COST);
            if let Some(grant) = receiver.grant(&budget, 4 << 20) {
                windows.insert(tick + TRIP, grant);
            }
        }
    }
    assert_eq!(full, 1000, "a whole message at every tick");
    // The window is twice the bytes in transit, because a grant waits for half of the window.
    assert_eq!(receiver.window(), 2 << 20);
    assert_eq!(budget.used(), (2 << 20) - 32 * 1024);
}

/// A receiver that is slower than its sender is not given a larger window to fill (P-4.6, F13).
#[test]
fn a_slow_reader_does_not_grow_its_window() {
    let budget = Budget::new(64 << 20);
    let mut sender = SendCredit::new(32 * 1024);
    let mut receiver = RecvCredit::new(32 * 1024);
    for _ in 0..10_000 {
        while let Some(payload) = sender.max_payload(16 * 1024) {
            sender.take(payload).unwrap();
            receiver.on_received(payload as u64 + MESSAGE_COST).unwrap();
        }
        receiver.consume(1000);
        if let Some(grant) = receiver.grant(&budget, 4 << 20) {
            sender.on_window(grant.limit, grant.consumed).unwrap();
        }
    }
    assert_eq!(receiver.consumed(), 10_000_000);
    assert_eq!((receiver.window(), budget.used()), (32 * 1024, 0));
}
