//! One TCP connection of a visitor or of a service: with the calls that cost least, and with an end that is said aloud.

use std::{
    future::poll_fn,
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::{SockRef, TcpKeepalive};
use tokio::{io::Interest, net::TcpStream};

use super::delivery::Delivery;

/// Probes of a silent connection follow each other at this share of the silence that began them.
const PROBES_PER_SILENCE: u32 = 4;

/// A connection that is reset when it is dropped, unless both directions have come to their ends ([`Socket::close`]): a
/// connection that breaks off must not look like one that ended (P-10.3).
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    ended: bool,
}

impl Socket {
    /// A connection that is open.
    pub const fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            ended: false,
        }
    }

    /// [`set_keepalive`] for this connection.
    pub fn set_keepalive(&self, silence: Duration) {
        set_keepalive(&self.stream, silence);
    }

    /// Ready when there may be something to read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(cx)
    }

    /// Reads what is there; 0 is the peer's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing is there, and those of the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let full = buffer.len();
        self.call(Interest::READABLE, full, |mut socket| socket.read(buffer))
    }

    /// Writes as much of the slices, `bytes` in all, as the system takes.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let result = self.call(Interest::WRITABLE, bytes, |mut socket| {
                socket.write_vectored(slices)
            });
            match result {
                Err(error) if is_transient(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Ends our direction: the peer reads to its end (P-10.2).
    pub fn finish(&self) -> io::Result<()> {
        SockRef::from(&self.stream).shutdown(Shutdown::Write)
    }

    /// Waits until the connection has failed: for whoever neither reads nor writes, and would not hear of it. An end of
    /// the peer's direction is no failure.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn failure(&self) -> io::Error {
        if let Err(error) = self.stream.ready(Interest::ERROR).await {
            return error;
        }
        let cause = self.stream.take_error().ok().flatten();
        cause.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    /// Resets the connection once the peer has what was written to it, at the latest after `within`.
    ///
    /// # Cancel safety
    /// Dropped, it resets the connection at once.
    pub async fn reset_after_delivery(self, within: Duration) {
        let mut delivery = Delivery::new(&self.stream, within);
        poll_fn(|cx| delivery.poll(cx, &self.stream)).await;
    }

    /// Both directions have come to their ends.
    pub fn close(mut self) {
        self.ended = true;
    }

    /// One call of the system. Readiness is told once, when it begins: a call that got less than it asked for has found
    /// that there is no more, and another one that only says so is saved, as tokio's own streams do it.
    fn call(
        &self,
        interest: Interest,
        full: usize,
        call: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut done = None;
        let result = self.stream.try_io(interest, || {
            let count = call(&SockRef::from(&self.stream))?;
            done = Some(count);
            if (1..full).contains(&count) {
                Err(io::ErrorKind::WouldBlock.into())
            } else {
                Ok(())
            }
        });
        match (done, result) {
            (Some(count), _) => Ok(count),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.ended {
            // If it cannot be had, the connection is over already.
            let _ = self.stream.set_zero_linger();
        }
    }
}

/// Has the system send keepalive probes when the peer has been silent for this long: only these distinguish a peer whose
/// machine is down from one that has nothing to send. A failure is logged.
pub fn set_keepalive(stream: &TcpStream, silence: Duration) {
    let times = TcpKeepalive::new()
        .with_time(silence)
        .with_interval((silence / PROBES_PER_SILENCE).max(Duration::from_secs(1)));
    if let Err(error) = SockRef::from(stream).set_tcp_keepalive(&times) {
        tracing::debug!(%error, "keepalive could not be set");
    }
}

/// Whether a call is only to be made again.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
