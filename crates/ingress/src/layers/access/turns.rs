//! Turns at a bounded resource, which layers take one after the other.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// A number of turns at a time. While tasks wait, each layer gets a turn before any gets the next one (round robin): a layer
/// with many waiting tasks does not keep those of others waiting. The caller bounds the number of waiting tasks.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// The waiting tasks of each layer, and some that wait no longer. No line is empty.
    lines: HashMap<u64, VecDeque<oneshot::Sender<Turn>>>,
    /// The layers with waiting tasks, in the order of their turns.
    order: VecDeque<u64>,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    /// At most this many turns at a time, at least one.
    pub(super) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            free: most.max(1),
            lines: HashMap::new(),
            order: VecDeque::new(),
        })))
    }

    /// Waits for a turn of a layer.
    ///
    /// # Cancel safety
    /// Yes. A turn that was already given is passed on.
    pub(super) async fn take(self: &Arc<Self>, layer: u64) -> Turn {
        loop {
            // In a block: the guard must not be held across the wait.
            let waiting = {
                let mut state = self.0.lock();
                if state.free > 0 {
                    state.free -= 1;
                    return Turn(self.clone());
                }
                let (turn, waiting) = oneshot::channel();
                let line = state.lines.entry(layer).or_default();
                if line.len().is_power_of_two() {
                    line.retain(|other| !other.is_closed());
                }
                line.push_back(turn);
                if !state.order.contains(&layer) {
                    state.order.push_back(layer);
                }
                waiting
            };
            if let Ok(turn) = waiting.await {
                return turn;
            }
        }
    }
}

impl State {
    /// The next task in turn.
    fn next(&mut self) -> Option<oneshot::Sender<Turn>> {
        let layer = self.order.pop_front()?;
        let line = self.lines.get_mut(&layer)?;
        let next = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&layer);
        } else {
            self.order.push_back(layer);
        }
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        loop {
            let next = {
                let mut state = self.0.0.lock();
                let next = state.next();
                if next.is_none() {
                    state.free += 1;
                }
                next
            };
            match next {
                Some(next) if next.is_closed() => {}
                // A task that leaves right now drops the turn, which is passed on by that.
                Some(next) => return drop(next.send(Self(self.0.clone()))),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, future::BoxFuture};

    use super::*;

    fn task(turns: &Arc<Turns>, layer: u64) -> BoxFuture<'static, Turn> {
        let turns = turns.clone();
        async move { turns.take(layer).await }.boxed()
    }

    #[test]
    fn p_15_6_a_layer_with_one_task_waits_for_one_turn_of_a_flood() {
        let turns = Turns::new(1);
        let mut running = task(&turns, 1).now_or_never().unwrap();
        let mut flood: Vec<_> = (0..50).map(|_| task(&turns, 1)).collect();
        for task in &mut flood {
            assert!(task.now_or_never().is_none());
        }
        let mut other = task(&turns, 2);
        assert!((&mut other).now_or_never().is_none());
        drop(running);
        running = flood.remove(0).now_or_never().unwrap();
        assert!((&mut other).now_or_never().is_none());
        drop(running);
        drop(other.now_or_never().unwrap());
        assert!(flood.remove(0).now_or_never().is_some());
        drop(flood);
        // The others have left: a turn that was given to one of them is free again.
        assert!(task(&turns, 3).now_or_never().is_some());
        let state = turns.0.lock();
        assert!((state.free, state.lines.len(), state.order.len()) == (1, 0, 0));
    }
}
