//! Requests that wait for what a layer asks another thread or another service.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

/// A layer may have this many times the room that is left for all (dynamic thresholds: Choudhury and Hahne, "Dynamic Queue
/// Length Thresholds for Shared-Memory Packet Switches", 1998).
const PART_OF_REST: usize = 3;

/// Bounds the requests that wait for checks of passwords and for providers. Those of a tunnel hold their permits meanwhile,
/// so that a provider that does not respond would use up the permits of all tunnels.
#[derive(Debug)]
pub(super) struct Waits {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    total: usize,
    of_layer: HashMap<u64, usize>,
}

/// The place of a request that waits.
#[derive(Debug)]
pub(super) struct Place {
    waits: Arc<Waits>,
    layer: u64,
}

impl Waits {
    /// At most this many requests wait, at least one.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            waiting: Mutex::default(),
        })
    }

    /// A place for a request at the layer with this identity; `None` if there is no room.
    pub(super) fn enter(
        self: &Arc<Self>,
        [a, b, c, d, e, f, g, h, ..]: &[u8; 32],
    ) -> Option<Place> {
        let layer = u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
        let mut waiting = self.waiting.lock();
        let left = self.most.saturating_sub(waiting.total);
        let of_layer = waiting.of_layer.get(&layer).copied().unwrap_or(0);
        if of_layer >= left.saturating_mul(PART_OF_REST) {
            return None;
        }
        waiting.total += 1;
        waiting.of_layer.insert(layer, of_layer + 1);
        Some(Place {
            waits: self.clone(),
            layer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.waits.waiting.lock();
        waiting.total -= 1;
        if let Entry::Occupied(mut of_layer) = waiting.of_layer.entry(self.layer) {
            *of_layer.get_mut() -= 1;
            if *of_layer.get() == 0 {
                of_layer.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_15_10_requests_that_wait_at_one_layer_leave_room_for_others() {
        let waits = Waits::new(100);
        let mut places = Vec::new();
        let mut enter = |layer: u8| {
            let count = places.len();
            places.extend(std::iter::from_fn(|| waits.enter(&[layer; 32])));
            places.len() - count
        };
        assert_eq!(enter(1), 75);
        for layer in 2..=4 {
            assert!(enter(layer) > 0);
        }
        assert!(places.len() <= 100);
        places.clear();
        let waiting = waits.waiting.lock();
        assert_eq!((waiting.total, waiting.of_layer.len()), (0, 0));
    }
}
