//! A socket that can be closed with a reset instead of an end that waits behind what cannot leave.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::Notify,
};

/// Resets one connection. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Abort(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    aborted: AtomicBool,
    wake: Notify,
}

impl Abort {
    /// The peer is silent: on a path that is dead in one direction a reset passes at once, where the end of a stream
    /// waits for segments that nobody acknowledges.
    pub(super) fn abort(&self) {
        self.0.aborted.store(true, Ordering::Relaxed);
        self.0.wake.notify_one();
    }

    pub(super) async fn aborted(&self) {
        self.0.wake.notified().await;
    }
}

/// The socket; reset when it is dropped after an abort.
#[derive(Debug)]
pub(super) struct Resettable {
    socket: TcpStream,
    abort: Abort,
}

impl Resettable {
    pub(super) const fn new(socket: TcpStream, abort: Abort) -> Self {
        Self { socket, abort }
    }
}

impl Drop for Resettable {
    fn drop(&mut self) {
        if self.abort.0.aborted.load(Ordering::Relaxed) {
            let socket = socket2::SockRef::from(&self.socket);
            if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
                tracing::debug!(%error, "a connection is closed without a reset");
            }
        }
    }
}

impl AsyncRead for Resettable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Resettable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }
}
