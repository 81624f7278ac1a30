//! Places in the order of their turns.

/// The number that stands for no place.
const NOWHERE: u32 = u32::MAX;

/// A circular list of places of a table, by their numbers: doubly linked, so that a place in the middle is removed in
/// constant time, and the end of a turn is one step without a move.
///
/// Every call takes constant time. Memory is eight bytes for each place up to the highest number that was ever in it,
/// until [`renumber`](Self::renumber).
#[derive(Debug)]
pub(crate) struct Ring {
    /// The place whose turn it is.
    head: u32,
    links: Vec<Links>,
}

/// Both are [`NOWHERE`] if the place is not in the ring.
#[derive(Debug, Clone, Copy)]
struct Links {
    before: u32,
    after: u32,
}

impl Links {
    const NONE: Self = Self {
        before: NOWHERE,
        after: NOWHERE,
    };
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            head: NOWHERE,
            links: Vec::new(),
        }
    }
}

impl Ring {
    /// The number of a place that is added to a table with this many. A table of 2^32 places does not fit into memory.
    pub(crate) fn number(places: usize) -> u32 {
        u32::try_from(places).unwrap_or(NOWHERE)
    }

    /// The place whose turn it is.
    #[inline]
    pub(crate) fn head(&self) -> Option<u32> {
        (self.head != NOWHERE).then_some(self.head)
    }

    /// Whether a place is in the ring.
    #[inline]
    pub(crate) fn contains(&self, place: u32) -> bool {
        let links = self.links.get(place as usize);
        links.is_some_and(|links| links.after != NOWHERE)
    }

    /// Ends the current turn: the next place has its turn, the current one becomes the last.
    #[inline]
    pub(crate) fn advance(&mut self) {
        if let Some(head) = self.head() {
            self.head = self.links[head as usize].after;
        }
    }

    /// Adds a place at the end. It must not be in the ring.
    #[inline]
    pub(crate) fn push(&mut self, place: u32) {
        if self.links.len() <= place as usize {
            self.links.resize(place as usize + 1, Links::NONE);
        }
        let (before, after) = if let Some(head) = self.head() {
            let last = std::mem::replace(&mut self.links[head as usize].before, place);
            self.links[last as usize].after = place;
            (last, head)
        } else {
            self.head = place;
            (place, place)
        };
        self.links[place as usize] = Links { before, after };
    }

    /// Removes a place from any position. It must be in the ring.
    #[inline]
    pub(crate) fn remove(&mut self, place: u32) {
        let Links { before, after } =
            std::mem::replace(&mut self.links[place as usize], Links::NONE);
        if after == place {
            self.head = NOWHERE;
            return;
        }
        self.links[before as usize].after = after;
        self.links[after as usize].before = before;
        if self.head == place {
            self.head = after;
        }
    }

    /// Renumbers the places by `numbers`, which maps old to new ones, in memory for `room` places. Each place in the
    /// ring must have a new number below `room`.
    pub(crate) fn renumber(&mut self, numbers: &[u32], room: usize) {
        let renumbered = |place: u32| numbers.get(place as usize).copied().unwrap_or(NOWHERE);
        let mut links = Vec::with_capacity(room);
        for (place, old) in (0..).zip(&self.links) {
            if old.after == NOWHERE {
                continue;
            }
            let place = renumbered(place) as usize;
            if links.len() <= place {
                links.resize(place + 1, Links::NONE);
            }
            links[place] = Links {
                before: renumbered(old.before),
                after: renumbered(old.after),
            };
        }
        self.head = renumbered(self.head);
        self.links = links;
    }

    #[cfg(all(test, not(adit_loom)))]
    pub(crate) fn capacity(&self) -> usize {
        self.links.capacity()
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    /// All places, from the one whose turn it is.
    fn round(ring: &mut Ring) -> Vec<u32> {
        let Some(first) = ring.head() else {
            return Vec::new();
        };
        let mut places = Vec::new();
        loop {
            places.extend(ring.head());
            ring.advance();
            if ring.head() == Some(first) {
                return places;
            }
        }
    }

    #[test]
    fn turns_rotate_and_new_places_come_last() {
        let mut ring = Ring::default();
        ring.advance();
        assert_eq!(ring.head(), None);
        (0..3).for_each(|place| ring.push(place));
        assert_eq!(round(&mut ring), [0, 1, 2]);
        ring.advance();
        ring.push(9);
        assert_eq!(round(&mut ring), [1, 2, 0, 9]);
        let inside: Vec<u32> = (0..12).filter(|place| ring.contains(*place)).collect();
        assert_eq!(inside, [0, 1, 2, 9]);
    }

    #[test]
    fn a_removed_place_is_skipped_anywhere() {
        let mut ring = Ring::default();
        (0..4).for_each(|place| ring.push(place));
        ring.remove(2);
        assert_eq!(round(&mut ring), [0, 1, 3]);
        ring.remove(0);
        assert_eq!(round(&mut ring), [1, 3]);
        ring.remove(3);
        ring.remove(1);
        assert_eq!(round(&mut ring), []);
        assert!(!(0..4).any(|place| ring.contains(place)));
        ring.push(2);
        assert_eq!(round(&mut ring), [2]);
    }

    #[test]
    fn new_numbers_keep_the_order_and_the_turn() {
        let mut ring = Ring::default();
        (0..100).for_each(|place| ring.push(place));
        (0..97).for_each(|place| ring.remove(place));
        ring.advance();
        let mut numbers = vec![NOWHERE; 100];
        numbers[97..].copy_from_slice(&[2, 0, 1]);
        ring.renumber(&numbers, 8);
        assert_eq!(round(&mut ring), [0, 1, 2]);
        assert_eq!(ring.capacity(), 8);
        (0..3).for_each(|place| ring.remove(place));
        ring.renumber(&[], 0);
        assert_eq!((round(&mut ring), ring.capacity()), (vec![], 0));
    }
}
