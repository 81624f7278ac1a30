//! What the requests of one connection share with its socket.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    expectation::Expectation,
    framing::{Chunked, Noted},
    interim::Interim,
    parked::LeftOver,
    target::Replaced,
    visit::{Scheme, Visitor},
    websocket::Takeover,
};

/// What the requests of one connection share with its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) visitor: Visitor,
    pub(crate) scheme: Scheme,
    /// Requests whose answers have not ended.
    pub(crate) open: AtomicUsize,
    /// Says that an HTTP/2 connection has been idle for too long.
    pub(crate) idle: Notify,
    /// Requests so far.
    requests: AtomicU64,
    since: Instant,
    /// When the head began that no request has claimed yet, in nanoseconds from `since`; 0 when there is none.
    head_began: AtomicU64,
    reset_on_drop: AtomicBool,
    breaks_off: AtomicBool,
    stalled: AtomicBool,
    /// Over HTTP/2: something has been read since that was last asked.
    received: AtomicBool,
    /// The last of an answer is on its way: a write waits, or the socket is being shut down.
    writing: AtomicBool,
    /// Answers over HTTP/2 of which h2 has not let go.
    pub(crate) parked: AtomicUsize,
    /// Those of failed exchanges.
    left_over: LeftOver,
    /// What is to become of it when hyper lets go of it.
    takeover: Takeover,
    /// An interim answer on its way to the socket.
    interim: Interim,
    expectation: Expectation,
    /// Running WebSockets are to say that we go away.
    is_draining: AtomicBool,
    drains: Notify,
    /// Chunked heads that the socket has seen and no request has claimed yet. Bounded by what hyper reads ahead.
    chunked: Mutex<VecDeque<Chunked>>,
    /// The same of targets in which bytes were replaced. `true` while there are some: most connections have none.
    has_replaced: AtomicBool,
    replaced: Mutex<VecDeque<Replaced>>,
}

impl Connection {
    pub(crate) fn new(visitor: SocketAddr, local_port: u16, scheme: Scheme) -> Self {
        Self {
            visitor: Visitor::new(visitor).came_to(local_port),
            scheme,
            open: AtomicUsize::new(0),
            idle: Notify::new(),
            requests: AtomicU64::new(0),
            since: Instant::now(),
            head_began: AtomicU64::new(0),
            reset_on_drop: AtomicBool::new(false),
            breaks_off: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            received: AtomicBool::new(false),
            writing: AtomicBool::new(false),
            parked: AtomicUsize::new(0),
            left_over: LeftOver::default(),
            takeover: Takeover::default(),
            interim: Interim::default(),
            expectation: Expectation::default(),
            is_draining: AtomicBool::new(false),
            drains: Notify::new(),
            chunked: Mutex::default(),
            has_replaced: AtomicBool::new(false),
            replaced: Mutex::default(),
        }
    }

    pub(crate) const fn left_over(&self) -> &LeftOver {
        &self.left_over
    }

    pub(crate) const fn takeover(&self) -> &Takeover {
        &self.takeover
    }

    pub(crate) const fn interim(&self) -> &Interim {
        &self.interim
    }

    /// Of visitors who asked for `100 Continue`.
    pub(crate) const fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Nothing new is taken on it.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.drains.notify_waiters();
    }

    /// Waits until nothing new is taken on it.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn draining(&self) {
        let mut told = pin!(self.drains.notified());
        // Registered before the question is asked.
        told.as_mut().enable();
        if !self.is_draining.load(Ordering::Acquire) {
            told.await;
        }
    }

    /// The number of the next request, from 0.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// A head has begun, or may have.
    pub(crate) fn on_head(&self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.head_began.store(nanos.max(1), Ordering::Relaxed);
    }

    /// When the head began of a request that has been understood now.
    pub(crate) fn take_head_began(&self) -> Instant {
        match self.head_began.swap(0, Ordering::Relaxed) {
            0 => Instant::now(),
            nanos => self.since + Duration::from_nanos(nanos),
        }
    }

    /// The socket is to be closed with a reset: what has been sent must not look whole (P-7.1).
    pub(crate) fn reset_on_drop(&self) {
        self.reset_on_drop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_reset_on_drop(&self) -> bool {
        self.reset_on_drop.load(Ordering::Relaxed)
    }

    /// The socket is to be closed with a reset as soon as the visitor has all that was written to it (P-7.1).
    pub(crate) fn break_off(&self) {
        self.breaks_off.store(true, Ordering::Relaxed);
        self.reset_on_drop();
    }

    pub(crate) fn breaks_off(&self) -> bool {
        self.breaks_off.load(Ordering::Relaxed)
    }

    /// The visitor has taken nothing for too long: what is given up from here on was not given up by it.
    pub(crate) fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    /// Whether no request runs on it and nothing of an answer is left to be written.
    pub(crate) fn is_unused(&self) -> bool {
        let is_zero = |count: &AtomicUsize| count.load(Ordering::Relaxed) == 0;
        is_zero(&self.open) && is_zero(&self.parked) && !self.writing.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn on_received(&self) {
        self.received.store(true, Ordering::Relaxed);
    }

    /// Whether something has been read since this was last asked.
    pub(crate) fn take_received(&self) -> bool {
        self.received.swap(false, Ordering::Relaxed)
    }

    /// The socket has seen this of a head that hyper gets now.
    pub(crate) fn note(&self, noted: Noted) {
        match noted {
            Noted::Chunked(chunked) => lock(&self.chunked).push_back(chunked),
            Noted::Replaced(replaced) => {
                lock(&self.replaced).push_back(replaced);
                self.has_replaced.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The bytes that were replaced in the target of the request of this number.
    pub(crate) fn take_replaced(&self, request: u64) -> Vec<u8> {
        if !self.has_replaced.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut seen = lock(&self.replaced);
        let mut found = Vec::new();
        while seen.front().is_some_and(|next| next.head <= request) {
            if let Some(next) = seen.pop_front()
                && next.head == request
            {
                found = next.bytes;
            }
        }
        self.has_replaced.store(!seen.is_empty(), Ordering::Relaxed);
        found
    }

    /// Whether the chunked request of this number was one beyond doubt.
    pub(crate) fn is_only_chunked(&self, request: u64) -> bool {
        let mut seen = lock(&self.chunked);
        while let Some(chunked) = seen.pop_front() {
            if chunked.head >= request {
                return chunked.head == request && !chunked.has_length;
            }
        }
        false
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
