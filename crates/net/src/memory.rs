//! A connection within the process, which can end as TCP does: by FIN, by reset, and with a departure that is detected
//! without reading.
//!
//! Each direction is a bounded buffer under a lock that no wait holds. tokio's `duplex` has neither resets nor access
//! to unread bytes, and both affect what a visitor receives of an aborted response.

use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::coop,
};

use crate::departure::Departure;

/// One end of a connection in memory.
///
/// Dropping an end closes it as `close` does: with a reset if bytes are unread or after
/// [`MemoryStream::reset_on_drop`], otherwise with a FIN.
pub struct MemoryStream {
    incoming: Arc<Mutex<Direction>>,
    outgoing: Arc<Mutex<Direction>>,
    local: SocketAddr,
    peer: SocketAddr,
    resets: bool,
}

/// The bytes from one end to the other.
#[derive(Default)]
struct Direction {
    buffer: BytesMut,
    capacity: usize,
    end: End,
    /// The reading end is gone.
    unread_for_ever: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Waits for a reset.
    watcher: Option<Waker>,
}

/// The end after the buffered bytes.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Fin,
    Reset,
}

impl Direction {
    fn shared(capacity: usize) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self {
            capacity: capacity.max(1),
            ..Self::default()
        }))
    }

    fn end(&mut self, end: End) {
        if self.end != End::Reset && (self.end == End::Open || end == End::Reset) {
            self.end = end;
        }
        self.wake();
    }

    fn wake(&mut self) {
        let wakers = [&mut self.reader, &mut self.writer, &mut self.watcher];
        for waker in wakers.into_iter().filter_map(Option::take) {
            waker.wake();
        }
    }

    /// Ready when a read would not wait.
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffer.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.end {
            End::Open => {
                self.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            End::Fin => Poll::Ready(Ok(())),
            End::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Ready when a write would not wait.
    fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.end == End::Reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.end == End::Fin || self.unread_for_ever {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        match self.capacity.saturating_sub(self.buffer.len()) {
            0 => {
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }
}

impl MemoryStream {
    /// Both ends of a connection from `first` to `second`. Each direction holds `capacity` bytes that have not been read.
    #[must_use]
    pub fn pair(capacity: usize, first: SocketAddr, second: SocketAddr) -> (Self, Self) {
        let (there, back) = (Direction::shared(capacity), Direction::shared(capacity));
        let near = Self {
            incoming: back.clone(),
            outgoing: there.clone(),
            local: first,
            peer: second,
            resets: false,
        };
        let far = Self {
            incoming: there,
            outgoing: back,
            local: second,
            peer: first,
            resets: false,
        };
        (near, far)
    }

    pub(crate) const fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub(crate) const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Dropping this end then resets the connection.
    pub const fn reset_on_drop(&mut self) {
        self.resets = true;
    }

    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.incoming.lock().poll_readable(cx)
    }

    /// Copies unread bytes without consuming them; 0 bytes mean the peer's end.
    pub(crate) fn poll_peek(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut incoming = self.incoming.lock();
        ready!(incoming.poll_readable(cx))?;
        let count = incoming.buffer.len().min(buffer.remaining());
        buffer.put_slice(&incoming.buffer[..count]);
        Poll::Ready(Ok(count))
    }

    pub(crate) fn departure(&self) -> Option<Departure> {
        match self.incoming.lock().end {
            End::Open => None,
            End::Fin => Some(Departure::Fin),
            End::Reset => Some(Departure::Reset),
        }
    }

    /// Ready when the peer has reset the connection.
    pub(crate) fn poll_failed(&self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut incoming = self.incoming.lock();
        if incoming.end == End::Reset {
            return Poll::Ready(io::ErrorKind::ConnectionReset.into());
        }
        incoming.watcher = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Whether the peer has read everything that was written, or will read no more.
    pub(crate) fn is_delivered(&self) -> bool {
        let outgoing = self.outgoing.lock();
        outgoing.buffer.is_empty() || outgoing.unread_for_ever || outgoing.end == End::Reset
    }

    fn poll_write_parts<'b>(
        &self,
        cx: &mut Context<'_>,
        parts: impl Iterator<Item = &'b [u8]>,
    ) -> Poll<io::Result<usize>> {
        let coop = ready!(coop::poll_proceed(cx));
        let mut outgoing = self.outgoing.lock();
        let mut room = ready!(outgoing.poll_writable(cx))?;
        let mut written = 0;
        for part in parts {
            let count = part.len().min(room);
            outgoing.buffer.extend_from_slice(&part[..count]);
            room -= count;
            written += count;
        }
        if written > 0
            && let Some(reader) = outgoing.reader.take()
        {
            reader.wake();
        }
        coop.made_progress();
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let coop = ready!(coop::poll_proceed(cx));
        let mut incoming = self.incoming.lock();
        ready!(incoming.poll_readable(cx))?;
        let count = incoming.buffer.len().min(buffer.remaining());
        buffer.put_slice(&incoming.buffer[..count]);
        incoming.buffer.advance(count);
        if let Some(writer) = incoming.writer.take() {
            writer.wake();
        }
        coop.made_progress();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, std::iter::once(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_parts(cx, slices.iter().map(|slice| &**slice))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.lock().end(End::Fin);
        Poll::Ready(Ok(()))
    }
}

impl Drop for MemoryStream {
    fn drop(&mut self) {
        let mut incoming = self.incoming.lock();
        let resets = self.resets || !incoming.buffer.is_empty();
        incoming.unread_for_ever = true;
        if resets {
            incoming.end(End::Reset);
        } else {
            incoming.wake();
        }
        drop(incoming);
        let end = if resets { End::Reset } else { End::Fin };
        self.outgoing.lock().end(end);
    }
}

impl fmt::Debug for MemoryStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStream")
            .field("local", &self.local)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn pair(capacity: usize) -> (MemoryStream, MemoryStream) {
        let addr = |port| SocketAddr::from(([192, 0, 2, 1], port));
        MemoryStream::pair(capacity, addr(1), addr(2))
    }

    #[tokio::test]
    async fn a_writer_waits_for_room() {
        let (mut near, mut far) = pair(4);
        let mut read = Vec::new();
        let writing = async move {
            near.write_all(b"longer than the buffer").await.unwrap();
            near.shutdown().await.unwrap();
            near
        };
        let (near, count) = tokio::join!(writing, far.read_to_end(&mut read));
        assert_eq!(
            (count.unwrap(), &read[..]),
            (22, &b"longer than the buffer"[..])
        );
        assert_eq!(far.departure(), Some(Departure::Fin));
        assert_eq!(near.departure(), None, "the other direction is open");
    }

    #[tokio::test]
    async fn bytes_before_a_reset_are_read_first() {
        let (mut near, mut far) = pair(64);
        near.write_all(b"before").await.unwrap();
        near.reset_on_drop();
        drop(near);
        assert_eq!(far.departure(), Some(Departure::Reset));
        let error = poll_fn(|cx| far.poll_failed(cx)).await;
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let mut read = [0; 6];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"before");
        let error = far.read(&mut read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = far.write(&read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn an_end_dropped_with_unread_bytes_resets() {
        let (mut near, far) = pair(64);
        near.write_all(b"unread").await.unwrap();
        assert!(!near.is_delivered());
        drop(far);
        assert!(near.is_delivered());
        let error = near.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn peeked_bytes_stay() {
        let (mut near, mut far) = pair(64);
        near.write_all(b"abc").await.unwrap();
        let mut peeked = [0; 2];
        let mut buffer = ReadBuf::new(&mut peeked);
        let count = poll_fn(|cx| far.poll_peek(cx, &mut buffer)).await.unwrap();
        assert_eq!((count, buffer.filled()), (2, &b"ab"[..]));
        drop(near);
        let mut read = String::new();
        far.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "abc");
        let mut buffer = ReadBuf::new(&mut peeked);
        let count = poll_fn(|cx| far.poll_peek(cx, &mut buffer)).await.unwrap();
        assert_eq!(count, 0, "the end");
    }

    #[tokio::test]
    async fn a_waiting_reader_sees_the_end() {
        let (near, mut far) = pair(64);
        let mut buffer = [0];
        let (read, ()) = tokio::join!(far.read(&mut buffer), async {
            tokio::task::yield_now().await;
            drop(near);
        });
        assert_eq!(read.unwrap(), 0);
        let error = far.write(&[1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
