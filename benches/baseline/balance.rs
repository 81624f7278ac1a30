//! Choosing a member, as first written: a locked cursor, a vector filtered per choice, modulo hashing.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

/// A backend with its requests in flight.
#[derive(Debug)]
pub struct Backend {
    /// Its place in the list.
    pub id: usize,
    /// Its share relative to the others.
    pub weight: usize,
    /// Its requests in flight.
    pub in_flight: AtomicUsize,
}

/// Backends and one cursor behind a lock.
#[derive(Debug)]
pub struct Naive {
    backends: Vec<Backend>,
    cursor: Mutex<usize>,
}

impl Naive {
    /// Backends of the given weights.
    #[must_use]
    pub fn new(weights: &[usize]) -> Self {
        Self {
            backends: weights
                .iter()
                .enumerate()
                .map(|(id, &weight)| Backend {
                    id,
                    weight,
                    in_flight: AtomicUsize::new(0),
                })
                .collect(),
            cursor: Mutex::new(0),
        }
    }

    /// The backends in the order given.
    #[must_use]
    pub fn backends(&self) -> &[Backend] {
        &self.backends
    }

    /// Collects who is eligible and takes the next of them.
    pub fn round_robin(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among = self.among(eligible);
        let turn = self.turn();
        among.get(turn.checked_rem(among.len())?).copied()
    }

    /// Lists every eligible backend as often as its weight and takes the next of the list.
    pub fn weighted(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among: Vec<&Backend> = self
            .among(eligible)
            .into_iter()
            .flat_map(|backend| std::iter::repeat_n(backend, backend.weight))
            .collect();
        let turn = self.turn();
        among.get(turn.checked_rem(among.len())?).copied()
    }

    /// The first with the fewest requests, whatever the weights.
    pub fn least(&self, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        self.among(eligible)
            .into_iter()
            .min_by_key(|backend| backend.in_flight.load(Ordering::SeqCst))
    }

    /// The hash modulo the number of eligible backends.
    pub fn modulo(&self, hash: u64, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        let among = self.among(eligible);
        let place = hash.checked_rem(among.len() as u64)?;
        among.get(usize::try_from(place).ok()?).copied()
    }

    /// One at random, blind to load.
    pub fn random(&self, dice: u64, eligible: impl Fn(usize) -> bool) -> Option<&Backend> {
        self.modulo(dice, eligible)
    }

    fn among(&self, eligible: impl Fn(usize) -> bool) -> Vec<&Backend> {
        self.backends
            .iter()
            .filter(|backend| eligible(backend.id))
            .collect()
    }

    fn turn(&self) -> usize {
        let mut cursor = self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = *cursor;
        *cursor = cursor.wrapping_add(1);
        turn
    }
}
