//! What a connection may send before it carries a session (P-1.12).
//!
//! Windows, frame sizes and header lists each bound one thing, and HTTP/2 cannot change all of them on a running
//! connection. A bound on the bytes that are read at all bounds everything that they can grow into.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use super::http2::{TURN_BYTES, buffered};
use crate::{PacedStream, turn::poll_read_at_most};

/// What is read of a connection before it carries a session: the preface, settings, and some tries to register.
pub const UNAUTHENTICATED_BYTES: usize = 16 * 1024;

/// The allowance of one connection. Clones are the same.
#[derive(Debug, Clone)]
pub struct Allowance(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    left: AtomicUsize,
    lifted: AtomicBool,
    /// Of the reader that has used all of it, and of the task that waits for the session.
    waiting: Mutex<Vec<Waker>>,
}

impl Allowance {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Inner {
            left: AtomicUsize::new(bytes),
            lifted: AtomicBool::new(false),
            waiting: Mutex::default(),
        }))
    }

    /// The connection carries a session: what it sends is bounded by the windows of HTTP/2 alone.
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

    /// Whether all of it has been used and no session is there.
    pub fn is_used_up(&self) -> bool {
        !self.is_lifted() && self.0.left.load(Ordering::Relaxed) == 0
    }

    fn is_lifted(&self) -> bool {
        self.0.lifted.load(Ordering::Acquire)
    }

    fn poll_lifted(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_lifted() {
            return Poll::Ready(());
        }
        let mut waiting = self.lock();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        drop(waiting);
        // It may have been lifted before the waker was there.
        if self.is_lifted() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that is read within an allowance, and through a buffer once that is lifted. What is beyond the allowance
/// stays in the kernel until then.
#[derive(Debug)]
pub(super) struct Allowed<S> {
    /// Of capacity 1 before, which no read uses: a connection without a session has no buffer. Always there.
    socket: Option<BufReader<PacedStream<S>>>,
    allowance: Allowance,
    is_buffered: bool,
}

impl<S: AsyncRead + Unpin> Allowed<S> {
    pub(super) fn new(socket: S, allowance: Allowance) -> Self {
        Self {
            socket: Some(BufReader::with_capacity(
                1,
                PacedStream::of_client(socket, TURN_BYTES),
            )),
            allowance,
            is_buffered: false,
        }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut BufReader<PacedStream<S>>>> {
        let socket = self.socket.as_mut().map(Pin::new);
        socket.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_unbounded(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.is_buffered {
            self.is_buffered = true;
            self.socket = self.socket.take().map(|bare| buffered(bare.into_inner()));
        }
        self.socket()?.poll_read(cx, buf)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Allowed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_lifted() {
            return self.poll_unbounded(cx, buf);
        }
        let left = self.allowance.0.left.load(Ordering::Relaxed);
        if left == 0 {
            ready!(self.allowance.poll_lifted(cx));
            return self.poll_unbounded(cx, buf);
        }
        let before = buf.filled().len();
        ready!(poll_read_at_most(self.socket()?.get_mut(), cx, buf, left))?;
        let read = buf.filled().len().saturating_sub(before);
        self.allowance.0.left.fetch_sub(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Allowed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.socket()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket
            .as_ref()
            .is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p_1_12_beyond_the_allowance_nothing_is_read_until_it_is_lifted() {
        let (mut peer, socket) = tokio::io::duplex(1024);
        let allowance = Allowance::new(10);
        let mut allowed = Allowed::new(socket, allowance.clone());
        peer.write_all(&[7; 25]).await.unwrap();
        let mut read = [0; 64];
        assert_eq!(allowed.read(&mut read[..6]).await.unwrap(), 6);
        assert!(!allowance.is_used_up());
        assert_eq!(allowed.read(&mut read).await.unwrap(), 4);
        assert!(allowance.is_used_up());
        let reading = allowed.read(&mut read);
        let waited = tokio::time::timeout(Duration::from_secs(60), reading).await;
        assert!(waited.is_err(), "{waited:?}");
        let lifting = async {
            tokio::task::yield_now().await;
            allowance.lift();
        };
        let (read, ()) = tokio::join!(allowed.read(&mut read), lifting);
        assert_eq!(read.unwrap(), 15);
        assert!(!allowance.is_used_up());
        allowance.lifted().await;
    }
}
