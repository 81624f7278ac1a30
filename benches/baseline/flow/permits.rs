//! Permits that tasks wait for.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
};

use adit_flow::{Gate, GateError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::lock;
use crate::case::Role;

/// Permits that tasks wait for.
pub trait Permits: Send + Sync + 'static {
    /// The name in bench ids.
    const NAME: &'static str;
    /// The role of the design in the comparison.
    const ROLE: Role;
    /// A permit; dropping it returns it.
    type Permit: Send;
    /// The output of the future that waits.
    type Outcome: Send;

    /// Creates `permits` permits, and a queue for `waiters` waiting tasks.
    fn new(permits: usize, waiters: usize) -> Self;
    /// Takes a permit if one is free.
    fn try_take(&self) -> Option<Self::Permit>;
    /// Waits for a permit. This is the design's own future without a wrapper.
    fn wait(&self) -> impl Future<Output = Self::Outcome> + Send + 'static;
    /// The permit of an outcome. `None` when the queue is full or closed, which does not happen here.
    fn granted(outcome: Self::Outcome) -> Option<Self::Permit>;
}

/// The gate of this project.
pub struct OurGate(Arc<Gate>);

impl Permits for OurGate {
    const NAME: &'static str = "ours";
    const ROLE: Role = Role::Ours;
    type Permit = adit_flow::Permit;
    type Outcome = Result<adit_flow::Permit, GateError>;

    fn new(permits: usize, waiters: usize) -> Self {
        Self(Gate::new(permits, waiters))
    }

    fn try_take(&self) -> Option<adit_flow::Permit> {
        self.0.try_acquire()
    }

    fn wait(&self) -> impl Future<Output = Self::Outcome> + Send + 'static {
        self.0.acquire()
    }

    fn granted(outcome: Self::Outcome) -> Option<adit_flow::Permit> {
        outcome.ok()
    }
}

/// tokio's semaphore, whose waiters form a queue as well.
pub struct TokioSemaphore(Arc<Semaphore>);

impl Permits for TokioSemaphore {
    const NAME: &'static str = "tokio_semaphore";
    const ROLE: Role = Role::Rival;
    type Permit = OwnedSemaphorePermit;
    type Outcome = Result<OwnedSemaphorePermit, AcquireError>;

    fn new(permits: usize, _waiters: usize) -> Self {
        Self(Arc::new(Semaphore::new(permits)))
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_owned().ok()
    }

    fn wait(&self) -> impl Future<Output = Self::Outcome> + Send + 'static {
        self.0.clone().acquire_owned()
    }

    fn granted(outcome: Self::Outcome) -> Option<OwnedSemaphorePermit> {
        outcome.ok()
    }
}

/// Permits behind a lock; a task without a permit registers a waker, and each released permit wakes all tasks.
pub struct WakeAll(Arc<Mutex<(usize, Vec<Waker>)>>);

/// A permit of [`WakeAll`].
pub struct WakeAllPermit(Arc<Mutex<(usize, Vec<Waker>)>>);

impl Drop for WakeAllPermit {
    fn drop(&mut self) {
        let wakers = {
            let mut state = lock(&self.0);
            state.0 += 1;
            std::mem::take(&mut state.1)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl WakeAll {
    fn poll(
        state: &Arc<Mutex<(usize, Vec<Waker>)>>,
        cx: Option<&Context<'_>>,
    ) -> Option<WakeAllPermit> {
        let mut free = lock(state);
        if free.0 > 0 {
            free.0 -= 1;
            return Some(WakeAllPermit(Arc::clone(state)));
        }
        if let Some(cx) = cx {
            free.1.push(cx.waker().clone());
        }
        None
    }
}

impl Permits for WakeAll {
    const NAME: &'static str = "wake_all";
    const ROLE: Role = Role::Naive;
    type Permit = WakeAllPermit;
    type Outcome = WakeAllPermit;

    fn new(permits: usize, _waiters: usize) -> Self {
        Self(Arc::new(Mutex::new((permits, Vec::new()))))
    }

    fn try_take(&self) -> Option<WakeAllPermit> {
        Self::poll(&self.0, None)
    }

    fn wait(&self) -> impl Future<Output = Self::Outcome> + Send + 'static {
        let state = Arc::clone(&self.0);
        std::future::poll_fn(move |cx| {
            Self::poll(&state, Some(cx)).map_or(Poll::Pending, Poll::Ready)
        })
    }

    fn granted(outcome: WakeAllPermit) -> Option<WakeAllPermit> {
        Some(outcome)
    }
}
