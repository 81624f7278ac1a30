//! State that the requests of one visitor's connection share with its socket.

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

use crate::forward::{
    expectation::Expectation,
    interim::InterimSlot,
    request_meta::{Scheme, Visitor},
    served_hosts::Admitted,
    stuck::StuckResponses,
};

/// A fact about a head of HTTP/1 that hyper does not pass on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeadNote {
    Chunked(Chunked),
    Replaced(Replaced),
}

/// A chunked head: its number on the connection, from 0, and whether it had a `content-length` as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    pub(crate) head: u64,
    pub(crate) has_length: bool,
}

/// The bytes that were replaced in the target of one request (`target.rs`): its number on the connection, from 0.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaced {
    pub(crate) head: u64,
    pub(crate) bytes: Vec<u8>,
}

/// State that the requests of one visitor's connection share with its socket.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) visitor: Visitor,
    pub(crate) scheme: Scheme,
    /// The requests that the connection may carry.
    pub(crate) admitted: Admitted,
    /// Requests whose responses have not ended.
    pub(crate) open: AtomicUsize,
    /// Notified when an HTTP/2 connection has been idle for too long.
    pub(crate) idle: Notify,
    /// Requests so far.
    requests: AtomicU64,
    since: Instant,
    /// When the head that no request has claimed yet began, in nanoseconds from `since`; 0 if there is none.
    head_began: AtomicU64,
    reset_on_drop: AtomicBool,
    breaks_off: AtomicBool,
    stalled: AtomicBool,
    /// HTTP/2: something has been read since the last [`Connection::take_received`].
    received: AtomicBool,
    /// The end of a response is still being sent: a write is pending, or the socket is being shut down.
    writing: AtomicBool,
    /// HTTP/2: responses that h2 has not dropped yet.
    pub(crate) buffered: AtomicUsize,
    /// The responses in `buffered` whose exchanges failed.
    stuck_responses: StuckResponses,
    interim: InterimSlot,
    expectation: Expectation,
    /// No new requests are accepted; open WebSockets send close code 1001 (Going Away).
    is_draining: AtomicBool,
    drains: Notify,
    /// Chunked heads that the socket has read and no request has claimed yet. Bounded by what hyper reads ahead.
    chunked: Mutex<VecDeque<Chunked>>,
    /// `replaced` is not empty. Most connections never have any, and skip the lock.
    has_replaced: AtomicBool,
    replaced: Mutex<VecDeque<Replaced>>,
}

impl Connection {
    pub(crate) fn new(visitor: SocketAddr, local_port: u16, scheme: Scheme) -> Self {
        Self {
            visitor: Visitor::new(visitor).on_port(local_port),
            scheme,
            admitted: Admitted::All,
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
            buffered: AtomicUsize::new(0),
            stuck_responses: StuckResponses::default(),
            interim: InterimSlot::default(),
            expectation: Expectation::default(),
            is_draining: AtomicBool::new(false),
            drains: Notify::new(),
            chunked: Mutex::default(),
            has_replaced: AtomicBool::new(false),
            replaced: Mutex::default(),
        }
    }

    /// The connection may carry these requests.
    pub(crate) fn admitting(self, admitted: Admitted) -> Self {
        Self { admitted, ..self }
    }

    pub(crate) const fn stuck_responses(&self) -> &StuckResponses {
        &self.stuck_responses
    }

    pub(crate) const fn interim(&self) -> &InterimSlot {
        &self.interim
    }

    /// The state of visitors that sent `Expect: 100-continue`.
    pub(crate) const fn expectation(&self) -> &Expectation {
        &self.expectation
    }

    /// Starts to drain: no new requests are accepted.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, Ordering::Release);
        self.drains.notify_waiters();
    }

    /// Waits until the connection drains.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn draining(&self) {
        let mut drains = pin!(self.drains.notified());
        // The waker is registered before the flag is read, so that a change in between is not missed.
        drains.as_mut().enable();
        if !self.is_draining.load(Ordering::Acquire) {
            drains.await;
        }
    }

    /// The number of the next request, from 0.
    pub(crate) fn next_request(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Notes that a head has begun, or may have begun.
    pub(crate) fn on_head(&self) {
        let nanos = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.head_began.store(nanos.max(1), Ordering::Relaxed);
    }

    /// When the head that was just read began.
    pub(crate) fn take_head_began(&self) -> Instant {
        match self.head_began.swap(0, Ordering::Relaxed) {
            0 => Instant::now(),
            nanos => self.since + Duration::from_nanos(nanos),
        }
    }

    /// Has the socket close with a reset: a truncated response must not look complete (P-7.1).
    pub(crate) fn reset_on_drop(&self) {
        self.reset_on_drop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_reset_on_drop(&self) -> bool {
        self.reset_on_drop.load(Ordering::Relaxed)
    }

    /// Has the socket close with a reset as soon as the visitor has received all that was written (P-7.1).
    pub(crate) fn break_off(&self) {
        self.breaks_off.store(true, Ordering::Relaxed);
        self.reset_on_drop();
    }

    pub(crate) fn breaks_off(&self) -> bool {
        self.breaks_off.load(Ordering::Relaxed)
    }

    /// Notes that the visitor has read nothing for too long: the reason of a request that is cancelled after this is
    /// `stalled`.
    pub(crate) fn set_stalled(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn set_writing(&self, writing: bool) {
        self.writing.store(writing, Ordering::Relaxed);
    }

    /// Whether no request is open and no part of a response is left to be written.
    pub(crate) fn is_unused(&self) -> bool {
        let is_zero = |count: &AtomicUsize| count.load(Ordering::Relaxed) == 0;
        is_zero(&self.open) && is_zero(&self.buffered) && !self.writing.load(Ordering::Relaxed)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    pub(crate) fn on_received(&self) {
        self.received.store(true, Ordering::Relaxed);
    }

    /// Whether something has been read since the last call.
    pub(crate) fn take_received(&self) -> bool {
        self.received.swap(false, Ordering::Relaxed)
    }

    /// Keeps a fact about a head that hyper reads now.
    pub(crate) fn note(&self, note: HeadNote) {
        match note {
            HeadNote::Chunked(chunked) => lock(&self.chunked).push_back(chunked),
            HeadNote::Replaced(replaced) => {
                lock(&self.replaced).push_back(replaced);
                self.has_replaced.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The bytes that were replaced in the target of the request with this number.
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

    /// Whether the chunked request with this number had no `content-length`.
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
