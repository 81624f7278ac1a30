//! The number of requests in flight on one member.

use std::fmt;

use crate::sync::Arc;

/// A shared count of requests in flight. Clones are handles to one count, so a
/// member keeps its load when its balancer is replaced.
///
/// The count is the reference count that the guards need anyway to keep it alive: a request costs two atomic
/// operations, where a separate counter would cost four. It does not order memory: a reader sees the number of
/// requests, but not necessarily what was written before.
#[derive(Clone)]
pub struct Load {
    count: Arc<Count>,
}

/// The state that handles share. Handles are counted separately from guards, so that another handle does not count as a
/// request.
struct Count {
    /// The value whose references are counted: this one, and one in the guard of each request.
    running: Arc<Running>,
}

/// Only the number of its references matters.
#[derive(Debug)]
struct Running;

impl Load {
    /// A new count, at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            count: Arc::new(Count {
                running: Arc::new(Running),
            }),
        }
    }

    /// Counts one more request until the guard is dropped.
    #[inline]
    pub fn begin(&self) -> InFlight {
        InFlight {
            _running: Arc::clone(&self.count.running),
        }
    }

    /// Number of live guards.
    #[must_use]
    #[inline]
    pub fn in_flight(&self) -> usize {
        // The handles' own reference exists as long as `self` does.
        Arc::strong_count(&self.count.running) - 1
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

/// One request in flight; dropping it ends the request. It cannot be cloned or ended in another way, so it is counted
/// down only once.
#[derive(Debug)]
#[must_use = "the request counts only while the guard is held"]
pub struct InFlight {
    _running: Arc<Running>,
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

    #[test]
    fn handles_are_no_requests_and_guards_outlive_them() {
        let load = Load::new();
        let guard = load.begin();
        let handles = [load.clone(), load.clone()];
        assert_eq!(load.in_flight(), 1);
        drop(handles);
        assert_eq!(load.in_flight(), 1);
        drop(load);
        drop(guard);
    }
}
