//! The connection of a visitor or of a service, with the calls that cost least, and with an end that the peer can tell
//! from a break.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    task::{Context, Poll},
    time::Duration,
};

use adit_net::{SharedStream, Stream};

/// A connection that is reset when it is dropped, unless both directions have come to their ends ([`Socket::close`]): a
/// connection that breaks off must not look like one that ended (P-10.3).
#[derive(Debug)]
pub struct Socket {
    stream: SharedStream,
    ended: bool,
}

impl Socket {
    /// A connection that is open.
    #[must_use]
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self {
            stream: SharedStream::new(stream.into()),
            ended: false,
        }
    }

    /// Has the kernel probe the peer when it has been silent for this long: a machine that is gone sends no FIN, and a
    /// peer that has nothing to send is as silent.
    pub fn set_keepalive(&self, silence: Duration) {
        self.stream.keep_alive(silence);
    }

    /// Ready when there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_readable(cx)
    }

    /// Reads what is there; 0 is the peer's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there, and those of the connection.
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

    /// Sends what a TLS session holds back.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    /// Ends our direction: the peer reads to its end (P-10.2).
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_finish(cx)
    }

    /// Waits until the connection has failed: for a task that neither reads nor writes, and would not notice. An end of
    /// the peer's direction is no failure.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn failure(&self) -> io::Error {
        self.stream.failed().await
    }

    /// Resets the connection once the peer has what was written to it, at the latest after `within`.
    ///
    /// # Cancel safety
    /// Dropped, it resets the connection at once.
    pub async fn reset_after_delivery(self, within: Duration) {
        let mut delivery = self.stream.begin_delivery(within);
        poll_fn(|cx| self.stream.poll_delivery(cx, &mut delivery)).await;
    }

    /// Both directions have come to their ends.
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

/// Whether a call is only to be made again.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
