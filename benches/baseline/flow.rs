//! Credit, permits and the sender's queue, as first written: a locked counter, a locked list of wakers that are all woken, first in first out.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    task::Waker,
};

/// Credit behind a lock, given back in increments.
#[derive(Debug)]
pub struct LockedCredit(Mutex<u64>);

impl LockedCredit {
    /// Credit of the given size.
    #[must_use]
    pub fn new(window: u64) -> Self {
        Self(Mutex::new(window))
    }

    /// Charges a message, if there is credit for it.
    pub fn take(&self, cost: u64) -> bool {
        let mut credit = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let enough = *credit >= cost;
        if enough {
            *credit -= cost;
        }
        enough
    }

    /// Gives credit back.
    pub fn give(&self, cost: u64) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += cost;
    }
}

/// Permits behind a lock; whoever finds none leaves a waker, and each permit that comes back wakes them all.
#[derive(Debug)]
pub struct WakeAllGate(Mutex<(usize, Vec<Waker>)>);

impl WakeAllGate {
    /// A gate with so many permits.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self(Mutex::new((permits, Vec::new())))
    }

    /// Takes a permit, or leaves the waker.
    pub fn poll(&self, waker: &Waker) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let free = state.0 > 0;
        if free {
            state.0 -= 1;
        } else {
            state.1.push(waker.clone());
        }
        free
    }

    /// Gives a permit back and wakes all.
    pub fn release(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// One queue for all keys.
#[derive(Debug)]
pub struct Fifo<K, I>(VecDeque<(K, I, u64)>);

impl<K, I> Default for Fifo<K, I> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<K, I> Fifo<K, I> {
    /// Queues an item.
    pub fn push(&mut self, key: K, item: I, cost: u64) {
        self.0.push_back((key, item, cost));
    }

    /// The oldest item.
    pub fn pop(&mut self) -> Option<(K, I)> {
        self.0.pop_front().map(|(key, item, _)| (key, item))
    }
}
