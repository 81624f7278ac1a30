//! File descriptors: visitors may use most of them, but not those that links, the admin port and listeners need.

use std::{collections::HashMap, fmt, io, sync::Arc};

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Notify;

/// Descriptors reserved for everything but visitors, unless that is more than half of all.
const RESERVE: u64 = 48;

/// A listener may hold at most this many times the number of free descriptors: a flooded one leaves a quarter to the
/// others.
const HOLD_OF_FREE: usize = 3;

/// Raises the soft limit of open descriptors of this process to the hard one.
///
/// # Errors
/// Returns the errors of `setrlimit`.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok(());
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Descriptors of this process that visitors may use.
#[must_use]
pub fn descriptors_for_visitors() -> usize {
    share(getrlimit(Resource::Nofile).current)
}

/// Descriptors of this process that visitors must leave free: a quarter of all, unless there are very few.
#[must_use]
pub fn reserved_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    usize::try_from(limit.map_or(u64::MAX, reserve)).unwrap_or(usize::MAX)
}

fn share(limit: Option<u64>) -> usize {
    let Some(limit) = limit else {
        return usize::MAX;
    };
    usize::try_from(limit - reserve(limit)).unwrap_or(usize::MAX)
}

fn reserve(limit: u64) -> u64 {
    (limit / 4).max(RESERVE).min(limit / 2)
}

/// The descriptors of visitors' connections, counted by the listener that accepted them.
pub struct Descriptors {
    limit: usize,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Default)]
struct State {
    in_use: usize,
    by_listener: HashMap<u32, usize>,
}

/// One descriptor in use, until this is dropped.
#[derive(Debug)]
pub struct Descriptor {
    descriptors: Arc<Descriptors>,
    listener: u32,
}

impl Descriptors {
    /// A bound of `limit` for all listeners together.
    #[must_use]
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// The most that one listener may hold of `limit` descriptors, while the others hold none.
    #[must_use]
    pub const fn most_of_listener(limit: usize) -> usize {
        // `own < HOLD_OF_FREE * (limit - own)`, and at the last descriptor it is still below.
        let rest = limit / (HOLD_OF_FREE + 1);
        limit - rest
    }

    /// The bound of all listeners together.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Whether a listener may accept one more connection.
    #[must_use]
    pub fn has_room(&self, listener: u32) -> bool {
        let state = self.state.lock();
        let free = self.limit.saturating_sub(state.in_use);
        let own = state
            .by_listener
            .get(&listener)
            .copied()
            .unwrap_or_default();
        own < free.saturating_mul(HOLD_OF_FREE)
    }

    /// Waits until a listener may accept one more connection.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn room(&self, listener: u32) {
        loop {
            // The waker is registered before the check, so that a change in between is not missed.
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            if self.has_room(listener) {
                return;
            }
            freed.await;
        }
    }

    /// Counts an accepted connection. A listener that was waiting for one when the last descriptor was taken may exceed
    /// the bound by one.
    #[must_use]
    pub fn take(self: &Arc<Self>, listener: u32) -> Descriptor {
        let mut state = self.state.lock();
        state.in_use += 1;
        *state.by_listener.entry(listener).or_default() += 1;
        Descriptor {
            descriptors: self.clone(),
            listener,
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let mut state = self.descriptors.state.lock();
        state.in_use -= 1;
        if let Some(count) = state.by_listener.get_mut(&self.listener) {
            *count -= 1;
            if *count == 0 {
                state.by_listener.remove(&self.listener);
            }
        }
        drop(state);
        self.descriptors.freed.notify_waiters();
    }
}

impl fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Descriptors")
            .field("limit", &self.limit)
            .field("in_use", &self.state.lock().in_use)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visitors_leave_a_reserve_of_descriptors() {
        let shares = [16, 64, 128, 1_024, 1 << 20].map(|limit| share(Some(limit)));
        assert_eq!(shares, [8, 32, 80, 768, 3 << 18]);
        assert_eq!(share(None), usize::MAX);
    }

    #[tokio::test]
    async fn a_flooded_listener_leaves_descriptors_to_the_others() {
        let descriptors = Descriptors::new(80);
        let fill = |listener| {
            let mut held = Vec::new();
            while descriptors.has_room(listener) {
                held.push(descriptors.take(listener));
            }
            held
        };
        let mut flooded = fill(1);
        let other = fill(2);
        assert_eq!((flooded.len(), other.len()), (60, 15));
        assert_eq!(Descriptors::most_of_listener(80), 60);
        assert!(!descriptors.has_room(1) && descriptors.has_room(3));
        let waiting = descriptors.room(1);
        let freeing = async {
            tokio::task::yield_now().await;
            flooded.drain(..20);
        };
        tokio::join!(waiting, freeing);
        drop((flooded, other));
        assert_eq!(fill(1).len(), 60);
    }
}
