//! The fair sender: requests take turns.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use crate::ring::Ring;

/// The cost that a request may send in its turn (P-5.1).
pub const QUANTUM: u64 = 32 * 1024;

/// Emptied queues kept for the next key, so that a request of one message does not allocate.
const SPARE_QUEUES: usize = 64;

/// A queue that has grown beyond this is not kept.
const SPARE_ITEMS: usize = 64;

/// Below this number of keys memory is not released.
const KEPT_KEYS: usize = 256;

/// Queued items by key, served in turn by cost: deficit round robin (Shreedhar and Varghese, "Efficient Fair Queueing
/// using Deficit Round Robin", SIGCOMM 1995), where a key that had nothing queued may take its turn early.
///
/// A key's turn adds the quantum to its deficit; it sends while the head of its queue fits, and keeps what is left for
/// its next turn as long as it has something queued. A key with an empty queue at its turn is removed and loses its
/// deficit, so that it cannot save credit.
///
/// **Early.** An item for a key that had nothing queued does not wait for a round of the others: the key gets the
/// quantum of its next turn at once and sends from it before all keys that are in turn, one item each. This is an
/// advance on that turn, not an additional one: the key joins the end of the round as usual, keeps its place there even
/// with an empty queue, and at its turn has the rest of the quantum. So no key sends more in a round than without this
/// rule, and a key whose queue becomes empty again and again is ahead by that advance at most. The cost sent early is
/// bounded: it never exceeds the cost sent in turn by more than a quantum, so that keys in turn have at least half of
/// the capacity whatever is added (an item costs at least one). To serve new keys first is from FQ-CoDel (RFC 8290,
/// section 4.2, with the rule against returning as a new one); to charge this to the key's turn is from DRR++
/// (MacGregor and Shi, "Deficits for Bursty Latency-critical Flows: DRR++", ICON 2000). The bound is needed because
/// there are always new keys: each request is one, unlike the hashed flows of FQ-CoDel.
///
/// For two keys that always have something queued, the costs served since they began differ by at most the quantum and
/// the cost of the largest item.
///
/// # Complexity
///
/// `push` looks the key up, `pop` only when it removes a key. Both are amortised constant time as long as an item costs
/// at most some quanta: a head that costs `n` quanta waits for `n` turns of its key, and each turn is a step.
#[derive(Debug)]
pub struct FairSender<K, I> {
    quantum: u64,
    index: HashMap<K, u32>,
    /// The queues of the keys, by their places. A queue whose place is in no ring is unused.
    queues: Vec<Queue<K, I>>,
    vacant: Vec<u32>,
    /// All keys in the order of their turns. The key whose turn it is has something queued.
    round: Ring,
    /// Keys whose head fits into what they may send early.
    early: Ring,
    /// The cost that may be sent early before something is sent in turn again.
    lead: u64,
    /// Number of keys with something queued.
    backlogged: usize,
    total_cost: u64,
    spare: Vec<VecDeque<(I, u64)>>,
}

#[derive(Debug)]
struct Queue<K, I> {
    key: K,
    items: VecDeque<(I, u64)>,
    cost: u64,
    deficit: u64,
    /// The deficit contains the quantum of the current turn, or of the next one.
    in_turn: bool,
}

impl<K, I> Queue<K, I> {
    /// Whether there is a first item and the deficit covers its cost.
    fn may_send(&self) -> bool {
        let head = self.items.front();
        head.is_some_and(|(_, cost)| *cost <= self.deficit)
    }
}

impl<K: Copy + Eq + Hash, I> FairSender<K, I> {
    /// An empty sender. The protocol's quantum is [`QUANTUM`]; a quantum of zero counts as one.
    #[must_use]
    pub fn new(quantum: u64) -> Self {
        let quantum = quantum.max(1);
        Self {
            quantum,
            index: HashMap::new(),
            queues: Vec::new(),
            vacant: Vec::new(),
            round: Ring::default(),
            early: Ring::default(),
            lead: quantum,
            backlogged: 0,
            total_cost: 0,
            spare: Vec::new(),
        }
    }

    /// Queues an item after those of the same key. If the key had none, the item is sent early if it fits into a turn.
    pub fn push(&mut self, key: K, item: I, cost: u64) {
        self.total_cost = self.total_cost.saturating_add(cost);
        let place = match self.index.get(&key) {
            Some(place) => *place,
            None => self.join(key),
        };
        let queue = &mut self.queues[place as usize];
        queue.cost = queue.cost.saturating_add(cost);
        queue.items.push_back((item, cost));
        if queue.items.len() == 1 {
            self.backlogged += 1;
            if !queue.in_turn {
                queue.in_turn = true;
                queue.deficit = self.quantum;
            }
            if cost <= queue.deficit {
                self.early.push(place);
            }
        }
    }

    /// The next item in fair order, with its key.
    pub fn pop(&mut self) -> Option<(K, I)> {
        if let Some(place) = self.early.head()
            && let Some(served) = self.pop_early(place)
        {
            return Some(served);
        }
        loop {
            let place = self.round.head()?;
            let queue = &mut self.queues[place as usize];
            if !queue.in_turn {
                queue.in_turn = true;
                queue.deficit = queue.deficit.saturating_add(self.quantum);
            }
            let fits = |(_, cost): &mut (I, u64)| *cost <= queue.deficit;
            let Some((item, cost)) = queue.items.pop_front_if(fits) else {
                queue.in_turn = false;
                self.round.advance();
                self.leave_empty();
                continue;
            };
            queue.deficit -= cost;
            queue.cost = queue.cost.saturating_sub(cost);
            self.total_cost = self.total_cost.saturating_sub(cost);
            self.lead = self.lead.saturating_add(cost).min(self.quantum);
            let key = queue.key;
            if queue.items.is_empty() {
                self.on_empty(place);
            } else if !queue.may_send() && self.early.contains(place) {
                self.early.remove(place);
            }
            return Some((key, item));
        }
    }

    /// The head of a key in `early`, unless it costs more than may be sent early now.
    fn pop_early(&mut self, place: u32) -> Option<(K, I)> {
        let queue = &mut self.queues[place as usize];
        let lead = self.lead;
        let (item, cost) = { &mut queue.items }.pop_front_if(|(_, cost)| (*cost).max(1) <= lead)?;
        self.lead -= cost.max(1);
        queue.deficit = queue.deficit.saturating_sub(cost);
        queue.cost = queue.cost.saturating_sub(cost);
        self.total_cost = self.total_cost.saturating_sub(cost);
        let key = queue.key;
        if queue.items.is_empty() {
            self.on_empty(place);
        } else if queue.may_send() {
            self.early.advance();
        } else {
            self.early.remove(place);
        }
        Some((key, item))
    }

    /// The cost queued under a key.
    #[must_use]
    pub fn queued_cost(&self, key: K) -> u64 {
        let place = self.index.get(&key);
        place.map_or(0, |place| self.queues[*place as usize].cost)
    }

    /// Removes the item that has waited longest under a key, with its cost: for queues that drop old items instead of
    /// waiting. The key keeps its place in the round.
    pub fn drop_oldest(&mut self, key: K) -> Option<(I, u64)> {
        let place = *self.index.get(&key)?;
        let queue = &mut self.queues[place as usize];
        let (item, cost) = queue.items.pop_front()?;
        queue.cost = queue.cost.saturating_sub(cost);
        self.total_cost = self.total_cost.saturating_sub(cost);
        if queue.items.is_empty() {
            self.on_empty(place);
        } else if !queue.may_send() && self.early.contains(place) {
            self.early.remove(place);
        }
        Some((item, cost))
    }

    /// Removes everything queued under a key, with the costs, in order, and the key itself: with its next item it
    /// counts as new.
    pub fn remove(&mut self, key: K) -> VecDeque<(I, u64)> {
        let Some(place) = self.index.get(&key).copied() else {
            return VecDeque::new();
        };
        let queue = &mut self.queues[place as usize];
        let items = std::mem::take(&mut queue.items);
        self.total_cost = self.total_cost.saturating_sub(queue.cost);
        queue.cost = 0;
        if !items.is_empty() {
            self.run_empty(place);
        }
        // The key is removed once, and its place is not used afterwards: the removal may free memory and renumber the
        // places.
        self.leave(place);
        self.leave_empty();
        items
    }

    /// Whether nothing is queued.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backlogged == 0
    }

    /// The cost of all that is queued.
    #[must_use]
    pub fn total_cost(&self) -> u64 {
        self.total_cost
    }

    /// Number of keys with something queued.
    #[must_use]
    pub fn len_keys(&self) -> usize {
        self.backlogged
    }

    /// A place for a key that has none, at the end of the round.
    fn join(&mut self, key: K) -> u32 {
        let queue = Queue {
            key,
            items: self.spare.pop().unwrap_or_default(),
            cost: 0,
            deficit: 0,
            in_turn: false,
        };
        let place = if let Some(place) = self.vacant.pop() {
            self.queues[place as usize] = queue;
            place
        } else {
            self.queues.push(queue);
            Ring::number(self.queues.len() - 1)
        };
        self.index.insert(key, place);
        self.round.push(place);
        place
    }

    /// A key has nothing queued any more. It is removed when its turn comes, which may be now.
    fn on_empty(&mut self, place: u32) {
        self.run_empty(place);
        self.leave_empty();
    }

    /// A key has nothing queued any more, and keeps its place.
    fn run_empty(&mut self, place: u32) {
        self.backlogged -= 1;
        if self.early.contains(place) {
            self.early.remove(place);
        }
        if self.backlogged == 0 {
            self.lead = self.quantum;
        }
    }

    /// Removes the keys whose turn it is and that have nothing queued.
    fn leave_empty(&mut self) {
        // Usually the key at the head of the round has queued items.
        while self.index.len() > self.backlogged
            && let Some(place) = self.round.head()
            && self.queues[place as usize].items.is_empty()
        {
            self.leave(place);
        }
    }

    /// Removes a key without queued items, and its memory.
    fn leave(&mut self, place: u32) {
        let queue = &mut self.queues[place as usize];
        let items = std::mem::take(&mut queue.items);
        self.index.remove(&queue.key);
        self.round.remove(place);
        self.vacant.push(place);
        if self.spare.len() < SPARE_QUEUES && (1..=SPARE_ITEMS).contains(&items.capacity()) {
            self.spare.push(items);
        }
        let places = self.queues.capacity().max(self.index.capacity());
        if places > 4 * self.index.len().max(KEPT_KEYS) {
            self.shrink();
        }
    }

    /// Releases memory after a burst of keys. Keeping half of the free capacity puts the next shrinking or growing as
    /// far away as the cost of this one.
    fn shrink(&mut self) {
        let room = 2 * self.index.len().max(KEPT_KEYS);
        let mut queues = Vec::with_capacity(room);
        let mut places = Vec::with_capacity(self.queues.len());
        for queue in std::mem::take(&mut self.queues) {
            let stays = self.round.contains(Ring::number(places.len()));
            places.push(Ring::number(queues.len()));
            queues.extend(stays.then_some(queue));
        }
        for place in self.index.values_mut() {
            *place = places[*place as usize];
        }
        self.index.shrink_to(room);
        self.round.renumber(&places, room);
        self.early.renumber(&places, room);
        self.queues = queues;
        self.vacant = Vec::new();
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    #[test]
    fn memory_shrinks_only_after_a_burst_of_keys() {
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..10_000 {
            sender.push(key, 0, 1);
        }
        assert!(sender.index.capacity() >= 10_000 && sender.queues.capacity() >= 10_000);
        // Half of the keys are removed: the capacity is less than four times the used one, so nothing is released.
        for _ in 0..5_000 {
            sender.pop();
        }
        // The capacity of a map includes its gaps, hence the margin.
        assert!(sender.index.capacity() >= 9_000 && sender.queues.capacity() >= 10_000);
        drain(&mut sender);
        for capacity in capacities(&sender) {
            assert!(capacity <= 4 * KEPT_KEYS, "{capacity}");
        }
        assert!(sender.index.capacity() >= 2 * KEPT_KEYS);
        assert!(sender.queues.capacity() >= 2 * KEPT_KEYS);
    }

    /// The capacities of everything that grows with the keys.
    fn capacities<K, I>(sender: &FairSender<K, I>) -> [usize; 5] {
        [
            sender.index.capacity(),
            sender.queues.capacity(),
            sender.vacant.capacity(),
            sender.round.capacity(),
            sender.early.capacity(),
        ]
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
        // Key 1 has 40 left after its first turn and 20 after its second; the items of key 2 use its turns exactly.
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

    /// The keys of the next items.
    fn keys(sender: &mut FairSender<u64, u32>, items: usize) -> Vec<u64> {
        let served = std::iter::from_fn(|| sender.pop()).take(items);
        served.map(|(key, _)| key).collect()
    }

    /// Keys 1 to 4 have items of 50 queued, each has had two turns, and it is the turn of key 1.
    fn under_way() -> FairSender<u64, u32> {
        let mut sender = FairSender::new(100);
        for key in (0..20).flat_map(|_| 1..=4) {
            sender.push(key, 0, 50);
        }
        keys(&mut sender, 16);
        assert!((1..=4).all(|key| sender.queued_cost(key) == 16 * 50));
        assert_eq!((sender.lead, sender.early.head()), (100, None));
        sender
    }

    #[test]
    fn a_new_key_goes_before_running_ones() {
        // P-5.1
        let mut sender = under_way();
        sender.push(9, 0, 30);
        assert_eq!(keys(&mut sender, 3), [9, 1, 1]);
        // Key 9 has nothing queued, and 70 of its deficit are left.
        sender.push(9, 1, 30);
        assert_eq!(keys(&mut sender, 2), [9, 2]);
    }

    #[test]
    fn an_early_turn_is_deducted_from_the_next() {
        let mut sender = under_way();
        for item in 0..9 {
            sender.push(9, item, 50);
        }
        // Key 9 sends a quantum early, nothing at its first turn, and a quantum in each later round.
        let rounds = keys(&mut sender, 2 + 8 + 2 * 10);
        assert_eq!(rounds[..2], [9, 9]);
        assert_eq!(rounds[2..10], [1, 1, 2, 2, 3, 3, 4, 4]);
        for round in rounds[10..].chunks(10) {
            assert_eq!(round, [1, 1, 2, 2, 3, 3, 9, 9, 4, 4]);
        }
    }

    #[test]
    fn items_larger_than_a_turn_do_not_go_early() {
        let mut sender = under_way();
        sender.push(8, 0, 101);
        sender.push(9, 0, 100);
        let order = keys(&mut sender, 14);
        assert_eq!(order[..9], [9, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(order[9..], [1, 1, 2, 2, 3]);
        assert_eq!(keys(&mut sender, 4), [3, 8, 4, 4]);
    }

    #[test]
    fn newcomers_send_one_item_each() {
        let mut sender = under_way();
        for key in [8, 9, 8, 9] {
            sender.push(key, 0, 20);
        }
        assert_eq!(keys(&mut sender, 5), [8, 9, 8, 9, 1]);
    }

    #[test]
    fn a_flood_of_new_keys_leaves_half_to_the_others() {
        for cost in [0, 1, 20, 100] {
            let mut sender = FairSender::new(100);
            let (mut standing, mut newcomers) = (0, 0);
            for newcomer in 1..10_000 {
                // One key always has something queued, and a new key is added again and again.
                while sender.queued_cost(0) < 100 {
                    sender.push(0, 0, 50);
                }
                if sender.len_keys() == 1 {
                    sender.push(newcomer, 0, cost);
                }
                match sender.pop() {
                    Some((0, _)) => standing += 50,
                    _ => newcomers += cost.max(1),
                }
                // One new key may have its turn in each round, and the same cost may be sent early.
                let in_turn = 2 * cost.max(1) * (standing / 100 + 1);
                let most = standing + 100 + in_turn;
                assert!(newcomers <= most, "{newcomers} beside {standing}");
            }
            assert!(2 * newcomers >= standing, "{newcomers} beside {standing}");
        }
    }

    #[test]
    fn a_key_emptied_early_is_removed_at_its_turn() {
        let mut sender = under_way();
        sender.push(9, 0, 30);
        assert_eq!(keys(&mut sender, 1), [9]);
        assert_eq!((sender.index.len(), sender.len_keys()), (5, 4));
        assert_eq!((sender.queued_cost(9), sender.drop_oldest(9)), (0, None));
        keys(&mut sender, 9);
        assert_eq!((sender.index.len(), sender.len_keys()), (4, 4));
        // The key is also removed if no other key has anything queued.
        sender.push(9, 0, 30);
        drain(&mut sender);
        assert_eq!((sender.index.len(), sender.len_keys()), (0, 0));
        assert_eq!(sender.lead, 100);
    }

    #[test]
    fn dropping_old_items_does_not_make_a_key_new() {
        let mut sender = under_way();
        sender.push(9, 0, 60);
        assert_eq!(keys(&mut sender, 1), [9]);
        sender.push(9, 1, 40);
        assert_eq!(sender.drop_oldest(9), Some((1, 40)));
        sender.push(9, 2, 41);
        // 40 of its deficit are left, so this item waits for the turn after that.
        let order = keys(&mut sender, 15);
        assert_eq!(order, [1, 1, 2, 2, 3, 3, 4, 4, 1, 1, 2, 2, 3, 3, 9]);
        // A removed key leaves no state behind.
        sender.push(9, 3, 60);
        sender.remove(9);
        sender.push(9, 4, 60);
        assert_eq!(keys(&mut sender, 1), [9]);
    }

    #[test]
    fn queued_cost_is_counted() {
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
    fn dropping_by_age_takes_the_oldest_and_its_cost() {
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
        // The key keeps its place in the round.
        assert_eq!(sender.pop(), Some((1, 1)));
        assert_eq!(sender.drop_oldest(1), Some((2, 12)));
        assert_eq!(sender.drop_oldest(1), None);
        let counted = (
            sender.queued_cost(1),
            sender.total_cost(),
            sender.len_keys(),
        );
        assert_eq!(counted, (0, 300, 1));
        // The key had nothing queued at its turn, and was removed.
        assert_eq!(sender.index.len(), 1);
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
        assert!(sender.index.capacity() >= 10_000 && sender.queues.capacity() >= 10_000);
        assert_eq!(drain(&mut sender).len(), 10_000);
        assert!(capacities(&sender).iter().all(|c| *c <= 4 * KEPT_KEYS));
        assert_eq!(sender.spare.len(), SPARE_QUEUES);
        // A queue that has grown long is not kept for reuse.
        sender.spare.clear();
        for item in 0..1000 {
            sender.push(1, item, 1);
        }
        drain(&mut sender);
        assert_eq!(sender.spare.len(), 0);
        // A kept queue is reused.
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
    fn memory_follows_the_keys_in_few_steps() {
        let mut sender = FairSender::new(QUANTUM);
        for key in 0..10_000 {
            sender.push(Counted(key), 0, 1);
        }
        HASHED.set(0);
        let (mut steps, mut before) = (0, sender.queues.capacity());
        while sender.pop().is_some() {
            let (keys, capacity) = (sender.len_keys(), sender.queues.capacity());
            assert!(capacity <= 4 * keys.max(KEPT_KEYS), "{capacity} for {keys}");
            if capacity != before {
                assert!(capacity >= 2 * keys, "{capacity} for {keys}");
                (steps, before) = (steps + 1, capacity);
            }
        }
        assert!(steps <= 6, "{steps} steps from 10,000 keys to 256");
        // One look-up for each pop; the rest are moves to a smaller table.
        assert!(HASHED.get() <= 2 * 10_000, "{}", HASHED.get());
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
            assert_eq!(sender.round.head(), None);
            let capacities = capacities(&sender);
            assert!(
                capacities.iter().all(|&places| places <= 4 * KEPT_KEYS),
                "{capacities:?}"
            );
        }
    }

    /// Regression: a removal may renumber the places; the key that got the number of the removed one was removed as
    /// well, and `pop` looped forever.
    #[test]
    fn a_removal_that_frees_memory_keeps_all_other_keys() {
        for gone in 1_000..1_400_u64 {
            let mut sender = FairSender::new(QUANTUM);
            for key in 0..2_000_u64 {
                sender.push(key, 0_u32, 100);
            }
            for key in 1..=gone {
                sender.remove(key);
            }
            assert_eq!(sender.remove(0).len(), 1, "whose turn it is");
            let stays = |key: &u64| sender.queued_cost(*key) == 100;
            let there: Vec<u64> = (0..2_000).filter(stays).collect();
            assert_eq!(there, (gone + 1..2_000).collect::<Vec<_>>());
            assert_eq!(sender.len_keys(), there.len());
            assert_eq!(drain(&mut sender).len(), there.len());
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
        /// How often a [`Counted`] has been looked up or moved: the cost of a map.
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
    fn keys_that_come_and_go_leave_no_trace() {
        let mut sender = FairSender::new(QUANTUM);
        sender.push(0, 0, 1);
        for key in 1..10_000 {
            sender.push(key, 0, 1);
            sender.remove(key);
            assert_eq!((sender.index.len(), sender.queues.len()), (1, 2));
        }
        assert_eq!(drain(&mut sender), [(0, 0)]);
    }
}
