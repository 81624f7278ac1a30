//! Knows when a service has shown its settings.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
};

/// The start of a frame: length, type, flags, stream (RFC 9113, 4.1).
const FRAME_START: usize = 9;

/// A socket that says when the first frame that came has been taken in. What speaks HTTP/2 sends its settings first
/// (RFC 9113, 3.4): before they are known it is not known either how many requests it takes at a time, or whether it
/// speaks HTTP/2 at all.
pub(super) struct Settled<S> {
    socket: S,
    /// Gone once it has been said.
    wait: Option<Wait>,
}

struct Wait {
    start: [u8; FRAME_START],
    /// Bytes of the first frame that have come.
    seen: usize,
    tell: oneshot::Sender<()>,
}

impl<S> Settled<S> {
    /// The channel answers with an error when the socket is given up before.
    pub(super) fn new(socket: S) -> (Self, oneshot::Receiver<()>) {
        let (tell, told) = oneshot::channel();
        let wait = Wait {
            start: [0; FRAME_START],
            seen: 0,
            tell,
        };
        let wait = Some(wait);
        (Self { socket, wait }, told)
    }
}

impl Wait {
    fn on_bytes(&mut self, bytes: &[u8]) {
        let gap = self.start.iter_mut().skip(self.seen);
        for (into, byte) in gap.zip(bytes) {
            *into = *byte;
        }
        self.seen = self.seen.saturating_add(bytes.len());
    }

    fn is_over(&self) -> bool {
        let [a, b, c, ..] = self.start;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        self.seen >= FRAME_START + length
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Settled<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever reads on has taken in what was there.
        if let Some(wait) = this.wait.take_if(|wait| wait.is_over()) {
            let _ = wait.tell.send(());
        }
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.socket).poll_read(cx, buffer);
        if let Some(wait) = &mut this.wait {
            wait.on_bytes(buffer.filled().get(before..).unwrap_or_default());
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Settled<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn it_tells_when_the_first_frame_is_read_and_more_is_wanted() {
        let (mut service, socket) = tokio::io::duplex(64);
        let (mut socket, mut told) = Settled::new(socket);
        // Two bytes of payload; what comes behind it does not count.
        let frame = [0, 0, 2, 4, 0, 0, 0, 0, 0, 7, 7, 9, 9];
        let mut buffer = [0; 4];
        for piece in frame.chunks(4) {
            assert!(told.try_recv().is_err());
            service.write_all(piece).await.unwrap();
            assert_eq!(socket.read(&mut buffer).await.unwrap(), piece.len());
            assert_eq!(buffer.get(..piece.len()).unwrap(), piece);
        }
        service.write_all(b"more").await.unwrap();
        let _ = socket.read(&mut buffer).await.unwrap();
        told.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_given_up_tells_that_too() {
        let (_service, socket) = tokio::io::duplex(64);
        let (socket, told) = Settled::new(socket);
        drop(socket);
        told.await.unwrap_err();
    }
}
