//! The state that the calls of one connection share.

use std::{
    future::poll_fn,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use adit_tls::ProvedCertificate;

/// Bytes that are read of a connection before it carries a session: the preface, settings, and some attempts to
/// register.
pub const UNAUTHENTICATED_BYTES: usize = 16 * 1024;

/// The number of one connection of a client; unique in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelId(u64);

impl ChannelId {
    /// A number that no other connection of this process has.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// The number, for logs.
    pub const fn value(self) -> u64 {
        self.0
    }
}

/// A connection of a client, at the server.
#[derive(Debug, Clone)]
pub struct ClientConnection {
    /// The number of the connection.
    pub channel: ChannelId,
    /// The address of the peer.
    pub peer: SocketAddr,
    /// The client's certificate, which the handshake has proved.
    pub certificate: Option<Arc<ProvedCertificate>>,
    /// The bound of the bytes that are read before the connection carries a session.
    pub allowance: Allowance,
}

impl ClientConnection {
    /// A connection that carries no session yet.
    pub fn new(channel: ChannelId, peer: SocketAddr) -> Self {
        Self {
            channel,
            peer,
            certificate: None,
            allowance: Allowance::new(UNAUTHENTICATED_BYTES),
        }
    }
}

/// Bounds the bytes that are read of a connection before it carries a session (P-1.12). Clones share the bound.
///
/// The limits of a transport (of HTTP/2: windows, frame sizes, header lists) each bound one thing, and not all of them
/// can change on a running connection. A bound on all bytes that are read also bounds the memory that they can cause.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    left: AtomicUsize,
    lifted: AtomicBool,
    /// The wakers of the reader that has used all of it, and of the task that waits for the session.
    waiting: Mutex<Vec<Waker>>,
}

impl Allowance {
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner {
            left: AtomicUsize::new(bytes),
            lifted: AtomicBool::new(false),
            waiting: Mutex::default(),
        }))
    }

    /// Removes the bound: the connection carries a session, and the windows of its transport are enough.
    pub fn lift(&self) {
        if self.0.lifted.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until the connection carries a session.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn lifted(&self) {
        poll_fn(|cx| self.poll_lifted(cx)).await;
    }

    /// Whether all of the allowance has been used and the connection carries no session.
    pub fn is_used_up(&self) -> bool {
        !self.is_lifted() && self.left() == 0
    }

    pub(crate) fn is_lifted(&self) -> bool {
        self.0.lifted.load(Ordering::Acquire)
    }

    /// Bytes that may still be read.
    pub(crate) fn left(&self) -> usize {
        self.0.left.load(Ordering::Relaxed)
    }

    /// Counts bytes that were read, at most [`Allowance::left`].
    pub(crate) fn use_up(&self, bytes: usize) {
        self.0.left.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn poll_lifted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_lifted() {
            return Poll::Ready(());
        }
        let mut waiting = self.lock();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // The allowance may have been lifted before the waker was stored.
        if self.is_lifted() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waker>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
