//! The connections of one service: which are idle, how many are allowed, and the requests that wait for one.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use adit_codec::ResetCode;
use adit_trace::Phase;

use super::{request::Http1Request, slot::Slot};
use crate::{
    connect::{chosen_protocol::ChosenProtocol, tls::Dialer},
    forward::{record::Outcome, resources::Resources},
    stats::Stats,
};

/// The connections of one service.
pub(crate) struct Pool {
    pub(super) dialer: Arc<Dialer>,
    /// The protocol that the service chooses, where that is left to it.
    pub(super) chosen: Option<Arc<ChosenProtocol>>,
    pub(super) resources: Arc<Resources>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The most recently used connection is last, and is used first: the others stay idle and are closed.
    idle: Vec<Arc<Slot>>,
    /// The number of connections: being opened, in use, or idle.
    connections: usize,
    /// Requests that wait for a connection. Empty unless as many connections as allowed are in use.
    waiting: VecDeque<Http1Request>,
    /// No tunnel uses this pool any more: no connection is kept.
    retired: bool,
}

/// The next step of a connection after an exchange.
#[expect(
    clippy::large_enum_variant,
    reason = "it is moved once; a box would be an allocation for each request that waited"
)]
pub(super) enum NextStep {
    /// Serves this request.
    Serve(Http1Request),
    /// Waits; its slot is idle.
    Wait,
    /// Closes; the pool does not count it any more.
    Close,
}

impl Pool {
    pub(crate) fn new(
        dialer: Arc<Dialer>,
        chosen: Option<Arc<ChosenProtocol>>,
        resources: Arc<Resources>,
    ) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            chosen,
            resources,
            state: Mutex::default(),
        })
    }

    /// Opens connections to the service.
    pub(crate) const fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a request to an idle connection, or queues it. Returns the request if a new connection is to serve it;
    /// that connection is counted already.
    pub(super) fn submit(&self, mut request: Http1Request) -> Option<Http1Request> {
        let config = &self.resources.config;
        request.record.timeline.begin(Phase::Queue);
        loop {
            let mut state = self.lock();
            if let Some(slot) = state.idle.pop() {
                drop(state);
                match slot.put(request) {
                    Ok(()) => return None,
                    Err(rejected) => request = rejected,
                }
                continue;
            }
            if state.connections < config.max_connections {
                state.connections += 1;
                drop(state);
                return Some(request);
            }
            let mut abandoned = Vec::new();
            if state.waiting.len() >= config.max_waiting {
                let all = std::mem::take(&mut state.waiting);
                for waiting in all {
                    if waiting.is_abandoned() {
                        abandoned.push(waiting);
                    } else {
                        state.waiting.push_back(waiting);
                    }
                }
            }
            if state.waiting.len() < config.max_waiting {
                state.waiting.push_back(request);
                drop(state);
            } else {
                drop(state);
                request.reset(
                    ResetCode::Limit,
                    &format!("all connections to {} are in use", self.dialer.address()),
                );
            }
            for request in abandoned {
                let outcome = Outcome::of_abandoned(&request.exchange.send);
                request.record.finish(outcome);
            }
            return None;
        }
    }

    /// Called after an exchange that leaves the connection reusable.
    pub(super) fn release(&self, slot: &Arc<Slot>) -> NextStep {
        let mut state = self.lock();
        if let Some(request) = state.waiting.pop_front() {
            NextStep::Serve(request)
        } else if state.retired || state.idle.len() >= self.resources.config.max_idle {
            state.connections -= 1;
            NextStep::Close
        } else {
            state.idle.push(slot.clone());
            NextStep::Wait
        }
    }

    /// Called after a connection is lost or closed: a waiting request may use its place for a new connection.
    pub(super) fn on_connection_lost(&self) -> Option<Http1Request> {
        let mut state = self.lock();
        let request = state.waiting.pop_front();
        if request.is_none() {
            state.connections -= 1;
        }
        request
    }

    /// Removes an idle connection. False: it is not idle any more, and a request is about to be put into its slot.
    pub(super) fn withdraw(&self, slot: &Arc<Slot>) -> bool {
        let mut state = self.lock();
        let index = state.idle.iter().rposition(|idle| Arc::ptr_eq(idle, slot));
        if let Some(index) = index {
            state.idle.remove(index);
        }
        index.is_some()
    }

    /// Called when the task of a connection was dropped: its runtime is shutting down.
    pub(super) fn on_task_dropped(&self, slot: &Arc<Slot>) {
        let mut state = self.lock();
        state.idle.retain(|idle| !Arc::ptr_eq(idle, slot));
        // A closed slot was subtracted when the pool closed it.
        if !slot.is_closed() {
            state.connections -= 1;
        }
        let waiting = if state.connections == 0 {
            std::mem::take(&mut state.waiting)
        } else {
            VecDeque::new()
        };
        drop(state);
        drop((waiting, slot.close()));
    }

    /// Closes idle connections now, and the others as they become idle.
    pub(crate) fn retire(&self) {
        let mut state = self.lock();
        state.retired = true;
        state.connections -= state.idle.len();
        for slot in state.idle.drain(..) {
            // The slot is closed under the lock, so that a task that is dropped now finds that it is not counted any
            // more.
            slot.close();
        }
    }

    /// Adds the connections to `stats`.
    pub(crate) fn count(&self, stats: &mut Stats) {
        let state = self.lock();
        stats.connections += state.connections;
        stats.idle += state.idle.len();
        stats.waiting += state.waiting.len();
    }
}
