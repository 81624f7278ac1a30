//! The tasks that wait at a gate.

use std::task::Waker;

use crate::ring::Ring;

/// Above this number of places, an empty line releases its memory.
const KEPT_PLACES: usize = 64;

/// The waiting tasks: a ring over the places of a vector whose head is the head of the line, so that a task in the
/// middle can leave at once and memory stays bounded by the number of tasks.
#[derive(Default)]
pub(super) struct Line {
    places: Vec<Place>,
    vacant: Vec<u32>,
    order: Ring,
    waiting: usize,
}

pub(super) enum Place {
    Vacant,
    /// Waiting in `order`.
    Waiting(Waker),
    /// Removed from the line with a permit, which its future has not taken yet.
    Handed,
    /// Removed from the line because the gate was closed.
    TurnedAway,
}

impl Line {
    /// Number of tasks in the line.
    #[inline]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The waker of a place that is still in the line.
    pub(super) fn waker(&mut self, place: u32) -> Option<&mut Waker> {
        match &mut self.places[place as usize] {
            Place::Waiting(waker) => Some(waker),
            _ => None,
        }
    }

    /// A new place at the end.
    pub(super) fn push(&mut self, waker: Waker) -> u32 {
        let place = if let Some(place) = self.vacant.pop() {
            self.places[place as usize] = Place::Waiting(waker);
            place
        } else {
            self.places.push(Place::Waiting(waker));
            Ring::number(self.places.len() - 1)
        };
        self.order.push(place);
        self.waiting += 1;
        place
    }

    /// Removes the head of the line; its place becomes `left`, for its future to read.
    #[inline]
    pub(super) fn pop(&mut self, left: Place) -> Option<Waker> {
        let place = self.order.head()?;
        self.order.remove(place);
        self.waiting -= 1;
        match std::mem::replace(&mut self.places[place as usize], left) {
            Place::Waiting(waker) => Some(waker),
            _ => None,
        }
    }

    /// The future of a place was dropped. Returns the state of the place; removes it from the line if it was waiting.
    pub(super) fn vacate(&mut self, place: u32) -> Place {
        let left = std::mem::replace(&mut self.places[place as usize], Place::Vacant);
        if matches!(left, Place::Waiting(_)) {
            self.order.remove(place);
            self.waiting -= 1;
        }
        self.vacant.push(place);
        if self.vacant.len() == self.places.len() && self.places.len() > KEPT_PLACES {
            *self = Self::default();
        }
        left
    }

    #[cfg(all(test, not(adit_loom)))]
    pub(super) fn capacity(&self) -> usize {
        let places = self.places.capacity().max(self.vacant.capacity());
        places.max(self.order.capacity())
    }
}
