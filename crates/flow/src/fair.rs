//! The requests in turn.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// The cost that a request may send in its turn (P-5.1).
pub const QUANTUM: u64 = 32 * 1024;

/// Emptied queues that are kept for the next key, so that a request of one message does not allocate.
const SPARE_QUEUES: usize = 64;

/// A queue that has grown past this is not kept.
const SPARE_ITEMS: usize = 64;

/// Below this the map and the ring are left as they are.
const KEPT_KEYS: usize = 256;

/// Queued items by key, served in turn by cost: deficit round robin (Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round Robin", SIGCOMM 1995).
///
/// A key's turn adds the quantum to its deficit; it sends while the head of its queue fits, and keeps what is left for its next turn as long as it has something queued. A key that runs empty leaves with nothing, so that it cannot save up.
///
/// Two keys that always have something queued differ in the cost served since they began by at most the quantum and the dearest item.
///
/// # Complexity
///
/// `push` and `pop` are amortised constant time as long as an item costs at most some quanta: a head that costs `n` quanta waits for `n` turns of its key, and each turn is a step.
#[derive(Debug)]
pub struct FairSender<K, I> {
    quantum: u64,
    queues: HashMap<K, Queue<I>>,
    /// The keys in the order of their turns, the one whose turn it is in front. An entry whose stamp is not that of the key's queue is stale, left by `remove`.
    ring: VecDeque<(K, u64)>,
    next_stamp: u64,
    total_cost: u64,
    spare: Vec<VecDeque<(I, u64)>>,
}

#[derive(Debug)]
struct Queue<I> {
    /// Never empty while it stands in the map.
    items: VecDeque<(I, u64)>,
    cost: u64,
    deficit: u64,
    /// The quantum of the present turn is in the deficit.
    in_turn: bool,
    stamp: u64,
}

impl<K: Copy + Eq + Hash, I> FairSender<K, I> {
    /// An empty sender. [`QUANTUM`] is the protocol's; a quantum of zero counts as one.
    #[must_use]
    pub fn new(quantum: u64) -> Self {
        Self {
            quantum: quantum.max(1),
            queues: HashMap::new(),
            ring: VecDeque::new(),
            next_stamp: 0,
            total_cost: 0,
            spare: Vec::new(),
        }
    }

    /// Queues an item behind those of the same key. A key without items joins at the end of the round.
    pub fn push(&mut self, key: K, item: I, cost: u64) {
        self.total_cost = self.total_cost.saturating_add(cost);
        let queue = self.queues.entry(key).or_insert_with(|| {
            let stamp = self.next_stamp;
            self.next_stamp += 1;
            self.ring.push_back((key, stamp));
            Queue {
                items: self.spare.pop().unwrap_or_default(),
                cost: 0,
                deficit: 0,
                in_turn: false,
                stamp,
            }
        });
        queue.cost = queue.cost.saturating_add(cost);
        queue.items.push_back((item, cost));
    }

    /// The next item in fair order, with its key.
    pub fn pop(&mut self) -> Option<(K, I)> {
        loop {
            let (key, stamp) = *self.ring.front()?;
            let queue = match self.queues.get_mut(&key) {
                Some(queue) if queue.stamp == stamp => queue,
                _ => {
                    self.ring.pop_front();
                    continue;
                }
            };
            if !queue.in_turn {
                queue.in_turn = true;
                queue.deficit = queue.deficit.saturating_add(self.quantum);
            }
            let fits = |(_, cost): &mut (I, u64)| *cost <= queue.deficit;
            let Some((item, cost)) = queue.items.pop_front_if(fits) else {
                queue.in_turn = false;
                self.ring.rotate_left(1);
                continue;
            };
            queue.deficit -= cost;
            queue.cost = queue.cost.saturating_sub(cost);
            self.total_cost = self.total_cost.saturating_sub(cost);
            if queue.items.is_empty() {
                self.ring.pop_front();
                if let Some(queue) = self.queues.remove(&key) {
                    self.recycle(queue.items);
                }
                self.shrink();
            }
            return Some((key, item));
        }
    }

    /// The cost queued under a key.
    #[must_use]
    pub fn queued_cost(&self, key: K) -> u64 {
        self.queues.get(&key).map_or(0, |queue| queue.cost)
    }

    /// Takes out the item that has waited longest under a key, with its cost: for queues that rather lose what is old
    /// than wait.
    pub fn drop_oldest(&mut self, key: K) -> Option<(I, u64)> {
        let queue = self.queues.get_mut(&key)?;
        if queue.items.len() == 1 {
            return self.remove(key).pop_front();
        }
        let (item, cost) = queue.items.pop_front()?;
        queue.cost = queue.cost.saturating_sub(cost);
        self.total_cost = self.total_cost.saturating_sub(cost);
        Some((item, cost))
    }

    /// Takes out all that is queued under a key, with the costs, in order.
    pub fn remove(&mut self, key: K) -> VecDeque<(I, u64)> {
        let Some(queue) = self.queues.remove(&key) else {
            return VecDeque::new();
        };
        self.total_cost = self.total_cost.saturating_sub(queue.cost);
        // Its entry in the ring stays behind; when most of them are such, out they go, which pays for itself.
        if self.ring.len() > 2 * self.queues.len() + SPARE_QUEUES {
            let queues = &self.queues;
            self.ring
                .retain(|(key, stamp)| queues.get(key).is_some_and(|q| q.stamp == *stamp));
        }
        self.shrink();
        queue.items
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The cost of all that is queued.
    #[must_use]
    pub fn total_cost(&self) -> u64 {
        self.total_cost
    }

    /// How many keys have something queued.
    #[must_use]
    pub fn len_keys(&self) -> usize {
        self.queues.len()
    }

    fn recycle(&mut self, items: VecDeque<(I, u64)>) {
        if self.spare.len() < SPARE_QUEUES && items.capacity() <= SPARE_ITEMS {
            self.spare.push(items);
        }
    }

    /// Gives memory back after a burst of keys. Half of what is left free makes the next shrinking or growing as far away as this one's cost.
    fn shrink(&mut self) {
        let keys = self.queues.len().max(KEPT_KEYS);
        if self.queues.capacity() > 4 * keys {
            self.queues.shrink_to(2 * keys);
        }
        if self.ring.capacity() > 4 * self.ring.len().max(KEPT_KEYS) {
            self.ring.shrink_to(2 * self.ring.len().max(KEPT_KEYS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_comes_back_after_a_burst_of_keys_and_not_before() {
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..10_000 {
            sender.push(key, 0, 1);
        }
        assert!(sender.queues.capacity() >= 10_000 && sender.ring.capacity() >= 10_000);
        // Half of them gone: what is free is less than three times what is used.
        for _ in 0..5_000 {
            sender.pop();
        }
        // A map counts what its gaps cost it, hence the margin.
        assert!(sender.queues.capacity() >= 9_000 && sender.ring.capacity() >= 10_000);
        drain(&mut sender);
        assert!(
            sender.ring.capacity() <= 4 * KEPT_KEYS,
            "{}",
            sender.ring.capacity()
        );
        assert!(
            sender.queues.capacity() <= 4 * KEPT_KEYS,
            "{}",
            sender.queues.capacity()
        );
        assert!(sender.ring.capacity() >= 2 * KEPT_KEYS);
        assert!(sender.queues.capacity() >= 2 * KEPT_KEYS);
    }

    fn drain(sender: &mut FairSender<u64, u32>) -> Vec<(u64, u32)> {
        std::iter::from_fn(|| sender.pop()).collect()
    }

    #[test]
    fn turns_are_taken_by_cost() {
        // P-5.1
        let mut sender = FairSender::new(100);
        for item in 0..4 {
            sender.push(1, item, 60);
            sender.push(2, item, 50);
        }
        // 1 has 40 left after its first turn, and 20 after its second; 2 fits exactly.
        let order: Vec<u64> = drain(&mut sender).iter().map(|(key, _)| *key).collect();
        assert_eq!(order, [1, 2, 2, 1, 1, 2, 2, 1]);
    }

    #[test]
    fn a_key_that_runs_empty_saves_nothing_up() {
        let mut sender = FairSender::new(100);
        sender.push(1, 0, 1);
        assert_eq!(sender.pop(), Some((1, 0)));
        sender.push(1, 1, 101);
        sender.push(2, 2, 100);
        assert_eq!(drain(&mut sender), [(2, 2), (1, 1)]);
    }

    #[test]
    fn an_item_dearer_than_the_quantum_comes_in_the_end() {
        let mut sender = FairSender::new(0);
        sender.push(1, 7, 1000);
        sender.push(2, 8, 0);
        assert_eq!(drain(&mut sender), [(2, 8), (1, 7)]);
        assert!(sender.is_empty());
    }

    #[test]
    fn what_is_queued_is_counted() {
        let mut sender = FairSender::new(QUANTUM);
        assert!(sender.is_empty());
        sender.push(1, 0, 10);
        sender.push(1, 1, 20);
        sender.push(2, 2, 5);
        assert!(!sender.is_empty());
        assert_eq!(
            (
                sender.queued_cost(1),
                sender.queued_cost(2),
                sender.queued_cost(3)
            ),
            (30, 5, 0)
        );
        assert_eq!((sender.total_cost(), sender.len_keys()), (35, 2));
        assert_eq!(sender.pop(), Some((1, 0)));
        assert_eq!((sender.queued_cost(1), sender.total_cost()), (20, 25));
        assert_eq!(sender.remove(1), [(1, 20)]);
        assert_eq!(sender.remove(1), []);
        assert_eq!((sender.total_cost(), sender.len_keys()), (5, 1));
        assert_eq!(sender.queued_cost(1), 0);
        assert_eq!(drain(&mut sender), [(2, 2)]);
        assert_eq!((sender.total_cost(), sender.len_keys()), (0, 0));
    }

    #[test]
    fn what_is_dropped_for_its_age_is_the_oldest_of_its_key_and_is_counted_out() {
        let mut sender = FairSender::new(100);
        for item in 0..3 {
            sender.push(1, item, 10 + u64::from(item));
            sender.push(2, item, 100);
        }
        assert_eq!(sender.drop_oldest(1), Some((0, 10)));
        let counted = (
            sender.queued_cost(1),
            sender.total_cost(),
            sender.len_keys(),
        );
        assert_eq!(counted, (23, 323, 2));
        // It keeps its place in the round.
        assert_eq!(sender.pop(), Some((1, 1)));
        assert_eq!(sender.drop_oldest(1), Some((2, 12)));
        assert_eq!(sender.drop_oldest(1), None);
        let counted = (
            sender.queued_cost(1),
            sender.total_cost(),
            sender.len_keys(),
        );
        assert_eq!(counted, (0, 300, 1));
        // Without items it has no turn left: it comes back at the end.
        sender.push(1, 3, 50);
        assert_eq!(drain(&mut sender), [(2, 0), (1, 3), (2, 1), (2, 2)]);
        assert_eq!(sender.drop_oldest(1), None);
    }

    #[test]
    fn a_key_that_was_removed_comes_back_at_the_end() {
        let mut sender = FairSender::new(100);
        sender.push(1, 0, 100);
        sender.push(2, 1, 100);
        sender.remove(1);
        sender.push(1, 2, 100);
        assert_eq!(drain(&mut sender), [(2, 1), (1, 2)]);
    }

    #[test]
    fn memory_comes_back_after_a_burst() {
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..10_000 {
            sender.push(key, 0, 1);
        }
        assert!(sender.queues.capacity() >= 10_000 && sender.ring.capacity() >= 10_000);
        assert_eq!(drain(&mut sender).len(), 10_000);
        assert!(sender.queues.capacity() <= 4 * KEPT_KEYS);
        assert!(sender.ring.capacity() <= 4 * KEPT_KEYS);
        assert_eq!(sender.spare.len(), SPARE_QUEUES);
        // A queue that grew long is not kept.
        sender.spare.clear();
        for item in 0..1000 {
            sender.push(1, item, 1);
        }
        drain(&mut sender);
        assert_eq!(sender.spare.len(), 0);
        // A queue that was kept is used.
        sender.push(1, 0, 1);
        drain(&mut sender);
        assert_eq!(sender.spare.len(), 1);
        sender.push(1, 0, 1);
        assert_eq!(sender.spare.len(), 0);
    }

    #[test]
    fn a_turn_is_32_kib_of_cost() {
        // P-5.1
        let mut sender = FairSender::new(QUANTUM);
        for item in 0..2 {
            sender.push(1, item, 32 * 1024);
            sender.push(2, item, 32 * 1024 - 1);
        }
        let order: Vec<u64> = drain(&mut sender).iter().map(|(key, _)| *key).collect();
        assert_eq!(order, [1, 2, 1, 2]);
        sender.push(1, 0, 32 * 1024 + 1);
        sender.push(2, 1, 32 * 1024);
        assert_eq!(drain(&mut sender), [(2, 1), (1, 0)]);
    }

    #[test]
    fn memory_follows_the_keys_in_few_steps_and_leaves_room_at_each() {
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..10_000 {
            sender.push(Counted(key), 0, 1);
        }
        HASHED.set(0);
        let (mut steps, mut before) = (0, sender.ring.capacity());
        while sender.pop().is_some() {
            let (keys, capacity) = (sender.len_keys(), sender.ring.capacity());
            assert!(capacity <= 4 * keys.max(KEPT_KEYS), "{capacity} for {keys}");
            if capacity != before {
                assert!(capacity >= 2 * keys, "{capacity} for {keys}");
                (steps, before) = (steps + 1, capacity);
            }
        }
        assert!(steps <= 6, "{steps} steps from 10,000 keys to 256");
        // Two for each pop; the rest is the map that moves to a smaller place.
        assert!(HASHED.get() <= 3 * 10_000, "{}", HASHED.get());
    }

    #[test]
    fn keys_that_are_removed_give_their_memory_back_too() {
        for keys in [9_999, 10_000] {
            let mut sender = FairSender::new(QUANTUM);
            for key in 0..keys {
                sender.push(key, 0, 1);
            }
            for key in 0..keys {
                sender.remove(key);
            }
            assert!(sender.ring.len() <= SPARE_QUEUES, "{}", sender.ring.len());
            let capacities = [sender.ring.capacity(), sender.queues.capacity()];
            assert!(
                capacities.iter().all(|&places| places <= 4 * KEPT_KEYS),
                "{capacities:?}"
            );
        }
    }

    #[test]
    fn a_removal_costs_no_more_when_many_stand() {
        const STANDING: u64 = 500;
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..STANDING {
            sender.push(Counted(key), 0, 1);
        }
        HASHED.set(0);
        let rounds = 4 * STANDING;
        for key in STANDING..STANDING + rounds {
            sender.push(Counted(key), 0, 1);
            sender.remove(Counted(key));
        }
        assert!(HASHED.get() <= 6 * rounds, "{}", HASHED.get());
    }

    thread_local! {
        /// How often a [`Counted`] has been looked up or moved: what a map's work is made of.
        static HASHED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Counted(u64);

    impl Hash for Counted {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            HASHED.set(HASHED.get() + 1);
            self.0.hash(state);
        }
    }

    #[test]
    fn keys_that_come_and_go_leave_no_trace_in_the_ring() {
        let mut sender = FairSender::new(QUANTUM);
        sender.push(0, 0, 1);
        for key in 1..10_000 {
            sender.push(key, 0, 1);
            sender.remove(key);
            assert!(sender.ring.len() <= 2 + SPARE_QUEUES + 1);
        }
        assert_eq!(drain(&mut sender), [(0, 0)]);
    }
}
