//! The number of requests in flight on one member.

use std::fmt;

use crate::sync::{Arc, AtomicUsize, Ordering};

/// A shared count of requests in flight. Clones are handles to one count, so a
/// member keeps its load when its balancer is replaced.
///
/// The count orders nothing: it says how many, never what was written before,
/// so every access is relaxed.
#[derive(Clone)]
pub struct Load {
    in_flight: Arc<AtomicUsize>,
}

impl Load {
    /// A count of its own, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            in_flight: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// Counts one more request until the guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { load: self.clone() }
    }

    /// How many guards are alive.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

impl Default for Load {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Load").field(&self.in_flight()).finish()
    }
}

/// One request in flight; dropping it ends the request. It is neither cloned
/// nor ended by hand, so it can count down only once.
#[derive(Debug)]
#[must_use = "the request counts only while the guard is held"]
pub struct InFlight {
    load: Load,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(adit_loom)))]
mod tests {
    use super::*;

    #[test]
    fn guards_count_up_and_down() {
        let load = Load::default();
        let other_handle = load.clone();
        let first = load.begin();
        let second = other_handle.begin();
        assert_eq!(load.in_flight(), 2);
        assert_eq!(format!("{load:?}"), "Load(2)");
        drop(first);
        assert_eq!(other_handle.in_flight(), 1);
        drop(second);
        assert_eq!(load.in_flight(), 0);
    }
}
