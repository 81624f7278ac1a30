//! The connection of a visitor or of a service. The peer can distinguish its orderly end from an abort.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use adit_net::{SharedStream, Stream};

/// A connection that is reset when it is dropped, unless both directions have ended ([`Socket::close`]): an aborted
/// connection must not look like one that ended (P-10.3).
#[derive(Debug)]
pub struct Socket {
    stream: SharedStream,
    ended: bool,
}

impl Socket {
    /// An open connection.
    #[must_use]
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self {
            stream: SharedStream::new(stream.into()),
            ended: false,
        }
    }

    /// Has the system send keepalive probes when the peer has been silent for this long: only these distinguish a peer whose
    /// machine is down from one that has nothing to send.
    pub fn set_keepalive(&self, silence: Duration) {
        self.stream.keep_alive(silence);
    }

    /// Ready when there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    /// Reads available bytes; 0 at the end of the peer's direction.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if no bytes are available, and the errors of the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.try_read(buffer)
    }

    /// Writes as much of the slices, `bytes` in all, as the system takes.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        self.stream.poll_write(cx, slices, bytes)
    }

    /// Sends bytes that a TLS session has buffered.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    /// Ends this end's direction; the peer reads an end of the stream (P-10.2).
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(cx)
    }

    /// Waits until the connection has failed, for a task that neither reads nor writes. The end of the peer's direction does
    /// not count as a failure.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn failure(&self) -> io::Error {
        self.stream.failed().await
    }

    /// Resets the connection once the written bytes are delivered to the peer, at the latest after `within`.
    ///
    /// # Cancel safety
    /// Dropping the future resets the connection at once.
    pub async fn reset_after_delivery(self, within: Duration) {
        let mut delivery = self.stream.begin_delivery(within);
        poll_fn(|cx| self.stream.poll_delivery(cx, &mut delivery)).await;
    }

    /// Closes the connection in order: both directions have ended.
    pub fn close(mut self) {
        self.ended = true;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.ended {
            self.stream.reset_on_drop();
        }
    }
}

/// Whether a failed call should be repeated.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
