//! The bytes after an accepted extended `CONNECT` (RFC 8441), as a socket.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::forward::response_body::Chunk;

/// Both directions of a stream. Dropping it ends the sending direction.
pub(super) struct Tunnel {
    send: SendStream<Chunk>,
    recv: RecvStream,
    /// The rest of a frame that has been read in part.
    unread: Bytes,
    is_ended: bool,
}

impl Tunnel {
    pub(super) fn new(send: SendStream<Chunk>, recv: RecvStream) -> Self {
        Self {
            send,
            recv,
            unread: Bytes::new(),
            is_ended: false,
        }
    }

    /// Whether the visitor has reset the stream, or its connection is over.
    pub(super) fn is_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.send.poll_reset(cx).is_ready()
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.is_ended, true) {
            // This fails only when the stream is over.
            let _ = self.send.send_data(Chunk::Own(Bytes::new()), true);
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(this.recv.poll_data(cx)) {
                Some(Ok(data)) => this.unread = data,
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => {
                    let is_end = matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL));
                    return Poll::Ready(if is_end { Ok(()) } else { Err(of(error)) });
                }
            }
        }
        let count = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread.split_to(count));
        // This fails only for more bytes than have arrived.
        let _ = this.recv.flow_control().release_capacity(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    /// Accepts as many bytes as the visitor's windows allow.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        this.send.reserve_capacity(bytes.len());
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(of(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let count = bytes.len().min(this.send.capacity());
        let data = Bytes::copy_from_slice(bytes.get(..count).unwrap_or_default());
        this.send.send_data(Chunk::Own(data), false).map_err(of)?;
        Poll::Ready(Ok(count))
    }

    /// h2 sends written bytes without further calls.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().end();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.end();
    }
}

fn of(error: h2::Error) -> io::Error {
    io::Error::other(error)
}
