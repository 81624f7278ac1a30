//! The layers that have counted a visitor's connection.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Layers that a connection remembers. The one that has counted it first is forgotten beyond it, and counts it again:
/// a visitor can ask for any number of hosts.
const MOST: usize = 32;

/// The layers that limit new connections and have admitted a connection of HTTP. A connection begins at a layer with its
/// first request there, which need not be its first request: the ones before may have been for another tunnel, or have
/// been rejected.
#[derive(Debug, Default)]
pub(crate) struct CountedBy(Mutex<VecDeque<u64>>);

impl CountedBy {
    /// Calls `count` with whether `layer` has yet to count the connection, which is counted if there is no error.
    ///
    /// # Errors
    /// That of `count`.
    pub(crate) fn once<E>(
        &self,
        layer: u64,
        count: impl FnOnce(bool) -> Result<(), E>,
    ) -> Result<(), E> {
        // Locked until the end, so that two requests at once do not count twice.
        let mut layers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = !layers.contains(&layer);
        count(is_new)?;
        if is_new {
            if layers.len() >= MOST {
                layers.pop_front();
            }
            layers.push_back(layer);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_are_remembered_are_bounded() {
        let counted_by = CountedBy::default();
        let is_new = |layer| {
            let mut seen = false;
            let counted = counted_by.once(layer, |is_new| {
                seen = is_new;
                Ok::<(), ()>(())
            });
            counted.unwrap();
            seen
        };
        for layer in 0..1_000 {
            assert!(is_new(layer) && !is_new(layer));
            assert!(counted_by.0.lock().unwrap().len() <= MOST);
        }
        assert!(is_new(0) && !is_new(999));
        counted_by.once(5_000, |_| Err(())).unwrap_err();
        assert!(is_new(5_000));
    }
}
