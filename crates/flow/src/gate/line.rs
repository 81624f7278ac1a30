//! The tasks that wait at a gate.

use std::task::Waker;

/// Above this many places, an empty line gives its memory back.
const KEPT_PLACES: usize = 64;

/// The waiting tasks: a doubly linked list in a vector, so that whoever gives up in the middle leaves at once and memory stays bounded by the number of tasks.
#[derive(Default)]
pub(super) struct Line {
    places: Vec<Place>,
    vacant: Vec<usize>,
    head: Option<usize>,
    tail: Option<usize>,
    waiting: usize,
}

pub(super) enum Place {
    Vacant,
    Waiting {
        waker: Waker,
        before: Option<usize>,
        after: Option<usize>,
    },
    /// Out of the line with a permit, which its future has not fetched yet.
    Handed,
    /// Out of the line because the gate was closed.
    TurnedAway,
}

impl Line {
    /// How many tasks stand in the line.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// The waker of a place that still stands in the line.
    pub(super) fn waker(&mut self, index: usize) -> Option<&mut Waker> {
        match &mut self.places[index] {
            Place::Waiting { waker, .. } => Some(waker),
            _ => None,
        }
    }

    /// A new place at the end.
    pub(super) fn push(&mut self, waker: Waker) -> usize {
        let place = Place::Waiting {
            waker,
            before: self.tail,
            after: None,
        };
        let index = if let Some(index) = self.vacant.pop() {
            self.places[index] = place;
            index
        } else {
            self.places.push(place);
            self.places.len() - 1
        };
        self.set_after(self.tail, Some(index));
        self.tail = Some(index);
        self.waiting += 1;
        index
    }

    /// Takes the head out of the line; its place becomes `left`, for its future to find.
    pub(super) fn pop(&mut self, left: Place) -> Option<Waker> {
        let index = self.head?;
        match self.unlink(index, left) {
            Place::Waiting { waker, .. } => Some(waker),
            _ => None,
        }
    }

    /// Puts `left` in the place and answers what was there; closes the line behind it if it was waiting.
    fn unlink(&mut self, index: usize, left: Place) -> Place {
        let place = std::mem::replace(&mut self.places[index], left);
        if let Place::Waiting { before, after, .. } = place {
            self.set_after(before, after);
            self.set_before(after, before);
            self.waiting -= 1;
        }
        place
    }

    /// The place's future is gone. Answers what was there.
    pub(super) fn vacate(&mut self, index: usize) -> Place {
        let place = self.unlink(index, Place::Vacant);
        self.vacant.push(index);
        if self.vacant.len() == self.places.len() && self.places.len() > KEPT_PLACES {
            self.places = Vec::new();
            self.vacant = Vec::new();
        }
        place
    }

    fn set_after(&mut self, of: Option<usize>, to: Option<usize>) {
        match of.map(|index| &mut self.places[index]) {
            Some(Place::Waiting { after, .. }) => *after = to,
            _ => self.head = to,
        }
    }

    fn set_before(&mut self, of: Option<usize>, to: Option<usize>) {
        match of.map(|index| &mut self.places[index]) {
            Some(Place::Waiting { before, .. }) => *before = to,
            _ => self.tail = to,
        }
    }

    #[cfg(all(test, not(adit_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.places.capacity()
    }
}
