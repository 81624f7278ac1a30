//! Datagrams of a flow that has not been routed yet.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

/// The memory of a waiting datagram besides its bytes: its entry in a queue that has just doubled, and the smallest
/// allocation. Empty datagrams must not be free of cost.
const OVERHEAD_BYTES: usize = 2 * size_of::<Bytes>() + 32;

/// The memory for waiting datagrams of all ports.
#[derive(Debug)]
pub(super) struct Room {
    per_flow: usize,
    total: usize,
    taken: AtomicUsize,
    lost: AtomicU64,
}

impl Room {
    /// Room for `per_flow` bytes of each flow and `total` bytes of all flows.
    pub(super) const fn new(per_flow: usize, total: usize) -> Self {
        Self {
            per_flow,
            total,
            taken: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
        }
    }

    /// Datagrams that found no room, were dropped for newer ones, or were not routed.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn left(&self) -> usize {
        self.total
            .saturating_sub(self.taken.load(Ordering::Relaxed))
    }

    fn lose(&self, datagrams: usize) {
        self.lost.fetch_add(datagrams as u64, Ordering::Relaxed);
    }
}

/// The datagrams of one flow, in order. Its drop counts the rest as lost.
#[derive(Debug)]
pub(super) struct Waiting {
    queue: VecDeque<Bytes>,
    bytes: usize,
    room: Arc<Room>,
}

impl Waiting {
    pub(super) const fn new(room: Arc<Room>) -> Self {
        Self {
            queue: VecDeque::new(),
            bytes: 0,
            room,
        }
    }

    /// Appends a datagram; the oldest are dropped if there are too many (P-11.3). A flow may take as much memory as all
    /// flows leave free, so that flooding flows leave room for others (dynamic thresholds: Choudhury and Hahne,
    /// "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998). A single waiting datagram may exceed
    /// the bounds.
    pub(super) fn push(&mut self, data: &[u8]) {
        let cost = data.len() + OVERHEAD_BYTES;
        loop {
            let left = self.room.left();
            let is_alone = self.queue.is_empty() && left > 0;
            if is_alone || self.bytes + cost <= self.room.per_flow.min(left) {
                break;
            }
            self.room.lose(1);
            if self.pop().is_none() {
                return;
            }
        }
        self.queue.push_back(Bytes::copy_from_slice(data));
        self.bytes += cost;
        self.room.taken.fetch_add(cost, Ordering::Relaxed);
    }

    /// All of it. Nothing is left.
    pub(super) fn take(&mut self) -> Self {
        let rest = Self::new(self.room.clone());
        std::mem::replace(self, rest)
    }

    /// Bytes of the oldest datagram.
    pub(super) fn first_bytes(&self) -> Option<usize> {
        self.queue.front().map(Bytes::len)
    }

    /// Counts the datagram that was popped last as lost, because it could not be sent.
    pub(super) fn lose_popped(&self) {
        self.room.lose(1);
    }

    /// The oldest datagram.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let data = self.queue.pop_front()?;
        let cost = data.len() + OVERHEAD_BYTES;
        self.bytes -= cost;
        self.room.taken.fetch_sub(cost, Ordering::Relaxed);
        Some(data)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.lose(self.queue.len());
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(waiting: &mut Waiting) -> Vec<Bytes> {
        std::iter::from_fn(|| waiting.pop()).collect()
    }

    #[test]
    fn p_11_3_oldest_datagrams_make_room() {
        let room = Arc::new(Room::new(3 * (10 + OVERHEAD_BYTES), 1 << 20));
        let mut waiting = Waiting::new(room.clone());
        for n in 0..5 {
            waiting.push(&[n; 10]);
        }
        assert_eq!(room.lost(), 2);
        // An empty datagram costs memory as well.
        waiting.push(b"");
        assert_eq!(room.lost(), 3);
        assert_eq!(all(&mut waiting), [&[3; 10][..], &[4; 10], b""]);
        // A datagram longer than the bound may wait alone.
        waiting.push(&[5; 10]);
        waiting.push(&[6; 1000]);
        assert_eq!(
            (room.lost(), room.left()),
            (4, (1 << 20) - 1000 - OVERHEAD_BYTES)
        );
        assert_eq!(all(&mut waiting), [&[6; 1000][..]]);
        assert_eq!(room.left(), 1 << 20);
    }

    #[test]
    fn flooding_flows_leave_room_for_others() {
        let room = Arc::new(Room::new(1 << 20, 100_000));
        let mut flows: Vec<_> = (0..20).map(|_| Waiting::new(room.clone())).collect();
        for _ in 0..200 {
            flows
                .iter_mut()
                .for_each(|flow| flow.push(&[0; 200 - OVERHEAD_BYTES]));
        }
        let (least, most) = flows.iter().fold((usize::MAX, 0), |(least, most), flow| {
            (least.min(flow.bytes), most.max(flow.bytes))
        });
        assert!(least >= 4_000 && most <= 5_200, "{least} to {most}");
        let lost = room.lost();
        let mut quiet = Waiting::new(room.clone());
        quiet.push(&[1; 1000]);
        quiet.push(&[2; 1000]);
        assert_eq!((room.lost(), quiet.queue.len()), (lost, 2));
    }

    #[test]
    fn new_datagram_is_lost_when_no_memory_is_left() {
        let room = Arc::new(Room::new(1 << 20, 1_000));
        let mut full = Waiting::new(room.clone());
        full.push(&[0; 2_000]);
        let mut other = Waiting::new(room.clone());
        other.push(&[1; 10]);
        assert_eq!((room.lost(), other.queue.len()), (1, 0));
        drop(full);
        assert_eq!((room.lost(), room.left()), (2, 1_000));
        other.push(&[2; 10]);
        assert_eq!((room.lost(), other.queue.len()), (2, 1));
        drop(other);
        assert_eq!((room.lost(), room.left()), (3, 1_000));
    }
}
