//! The socket of a connection that may carry no session yet (P-1.12).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};

use super::http2::{TURN_BYTES, buffered};
use crate::{PacedStream, control::Allowance, turn::poll_read_at_most};

/// A socket that is read within an allowance, and through a buffer once the allowance is lifted. Bytes beyond the
/// allowance stay in the kernel until then.
#[derive(Debug)]
pub(super) struct Allowed<S> {
    /// Before the allowance is lifted, the buffer has capacity 1, which no read uses: a connection without a session has no
    /// buffer. Never `None` between calls.
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
