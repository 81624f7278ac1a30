//! The connections of one service: who is idle, who may be dialled, who has to wait.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_codec::ResetCode;
use adit_trace::Phase;

use crate::{connect::dial::Address, request::job::Job, resources::Resources, stats::Stats};

use super::slot::Slot;

/// The connections of one service.
pub(crate) struct Pool {
    pub(crate) address: Address,
    pub(crate) shared: Arc<Resources>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last used at the end, and used first: the others grow old and go.
    idle: Vec<Arc<Slot>>,
    /// All connections, being made or in use or idle.
    connections: usize,
    /// Requests for which there was no connection. Only while all there may be are in use.
    waiting: VecDeque<Job>,
    /// No tunnel leads here any more: nothing is kept for later.
    retired: bool,
}

/// What a connection does after an exchange.
pub(crate) enum Next {
    /// Serve this one.
    Serve(Job),
    /// Wait; its slot is with the idle ones.
    Wait,
    /// End; it is not counted any more.
    Close,
}

impl Pool {
    pub(crate) fn new(address: Address, shared: Arc<Resources>) -> Arc<Self> {
        Arc::new(Self {
            address,
            shared,
            state: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a request to an idle connection, or lets it wait for one. Gives it back when a new connection is to serve
    /// it, which is counted then.
    pub(super) fn place(&self, mut job: Job) -> Option<Job> {
        let config = &self.shared.config;
        job.account.course.begin(Phase::Queue);
        loop {
            let mut state = self.lock();
            if let Some(slot) = state.idle.pop() {
                drop(state);
                match slot.put(job) {
                    Ok(()) => return None,
                    Err(refused) => job = refused,
                }
                continue;
            }
            if state.connections < config.max_connections {
                state.connections += 1;
                drop(state);
                return Some(job);
            }
            let mut left = Vec::new();
            if state.waiting.len() >= config.max_waiting {
                let all = std::mem::take(&mut state.waiting);
                for waiting in all {
                    if waiting.is_gone() {
                        left.push(waiting);
                    } else {
                        state.waiting.push_back(waiting);
                    }
                }
            }
            if state.waiting.len() < config.max_waiting {
                state.waiting.push_back(job);
                drop(state);
            } else {
                drop(state);
                job.reset(
                    ResetCode::Limit,
                    &format!("all connections to {} are in use", self.address),
                );
            }
            drop(left);
            return None;
        }
    }

    /// After an exchange that leaves the connection fit for another.
    pub(crate) fn release(&self, slot: &Arc<Slot>) -> Next {
        let mut state = self.lock();
        if let Some(job) = state.waiting.pop_front() {
            Next::Serve(job)
        } else if state.retired || state.idle.len() >= self.shared.config.max_idle {
            state.connections -= 1;
            Next::Close
        } else {
            state.idle.push(slot.clone());
            Next::Wait
        }
    }

    /// After a connection is lost or given up: its place may be taken by a new one.
    pub(crate) fn replace(&self) -> Option<Job> {
        let mut state = self.lock();
        let job = state.waiting.pop_front();
        if job.is_none() {
            state.connections -= 1;
        }
        job
    }

    /// Takes an idle connection out. False: it was taken already, and a request is on its way into the slot.
    pub(crate) fn withdraw(&self, slot: &Arc<Slot>) -> bool {
        let mut state = self.lock();
        let place = state.idle.iter().rposition(|idle| Arc::ptr_eq(idle, slot));
        if let Some(place) = place {
            state.idle.remove(place);
        }
        place.is_some()
    }

    /// A connection's task was dropped where it stood: its runtime is ending.
    pub(crate) fn abandon(&self, slot: &Arc<Slot>) {
        let mut state = self.lock();
        state.idle.retain(|idle| !Arc::ptr_eq(idle, slot));
        // A closed slot was counted out when the pool closed it.
        if !slot.is_closed() {
            state.connections -= 1;
        }
        let nobody_serves = state.connections == 0;
        let waiting = if nobody_serves {
            std::mem::take(&mut state.waiting)
        } else {
            VecDeque::new()
        };
        drop(state);
        drop((waiting, slot.close()));
    }

    /// Closes what is idle, and what becomes idle from now on.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        state.connections -= state.idle.len();
        for slot in state.idle.drain(..) {
            // Under the lock, so that a task that is dropped now knows that it is counted no more.
            slot.close();
        }
    }

    pub(crate) fn count(&self, stats: &mut Stats) {
        let state = self.lock();
        stats.connections += state.connections;
        stats.idle += state.idle.len();
        stats.waiting += state.waiting.len();
    }
}
