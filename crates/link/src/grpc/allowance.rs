//! The socket of a connection that may carry no session yet (P-1.12).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_net::{Stream, Tapped};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use super::{
    abort::Abort,
    http2::{TURN_BYTES, buffered},
};
use crate::{FramePacer, control::Allowance, turn::poll_read_at_most};

/// A stream that is read within an allowance, and through a buffer once the allowance is lifted. Bytes beyond the
/// allowance stay in the kernel until then. Dropped after an abort, it resets the connection.
#[derive(Debug)]
pub(super) struct Allowed {
    /// Before the allowance is lifted, the buffer has capacity 1, which no read uses: a connection without a session has no
    /// buffer. Never `None` between calls.
    socket: Option<BufReader<PacedStream>>,
    allowance: Allowance,
    abort: Abort,
    is_buffered: bool,
}

type PacedStream = Tapped<Stream, FramePacer>;

impl Allowed {
    pub(super) fn new(stream: Stream, allowance: Allowance, abort: Abort) -> Self {
        let stream = Tapped::new(stream, FramePacer::of_client(TURN_BYTES));
        Self {
            socket: Some(BufReader::with_capacity(1, stream)),
            allowance,
            abort,
            is_buffered: false,
        }
    }

    fn socket(&mut self) -> io::Result<Pin<&mut BufReader<PacedStream>>> {
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

impl AsyncRead for Allowed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.allowance.is_lifted() {
            return self.poll_unbounded(cx, buf);
        }
        let left = self.allowance.left();
        if left == 0 {
            ready!(self.allowance.poll_lifted(cx));
            return self.poll_unbounded(cx, buf);
        }
        let before = buf.filled().len();
        ready!(poll_read_at_most(self.socket()?.get_mut(), cx, buf, left))?;
        let read = buf.filled().len().saturating_sub(before);
        self.allowance.use_up(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Allowed {
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

impl Drop for Allowed {
    fn drop(&mut self) {
        if self.abort.is_aborted()
            && let Some(socket) = &mut self.socket
        {
            socket.get_mut().stream_mut().reset_on_drop();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p_1_12_reading_stops_at_the_allowance_until_it_is_lifted() {
        let addr = ([192, 0, 2, 1], 1).into();
        let (mut peer, stream) = Stream::in_memory(1024, addr, addr);
        let allowance = Allowance::new(10);
        let mut allowed = Allowed::new(stream, allowance.clone(), Abort::default());
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
