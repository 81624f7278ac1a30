//! A stream for one task that drives both directions at once.
//!
//! A splice reads, writes and waits for a failure in one future, and needs a shared reference for that. TCP has all its
//! calls by shared reference; the other kinds are behind a lock that only this task takes and no wait holds.

use std::{
    future::{Future as _, poll_fn},
    io::{self, IoSlice, Read as _, Write as _},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::Mutex;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf},
    net::TcpStream,
    time::sleep,
};

use crate::{
    delivery::Delivery,
    departure::Departure,
    stream::Stream,
    tcp::{is_delivered, keep_alive, shrink_send_buffer},
};

/// How often a connection that is neither read nor written is checked, if no event reports its failure.
const LOOK: Duration = Duration::from_millis(400);

/// A stream whose directions one task drives by shared reference.
#[derive(Debug)]
pub struct SharedStream(Inner);

#[derive(Debug)]
enum Inner {
    Tcp(TcpStream),
    Other(Mutex<Stream>),
}

impl SharedStream {
    /// A stream for shared use.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self(match stream.try_into_tcp() {
            Ok(tcp) => Inner::Tcp(tcp),
            Err(stream) => Inner::Other(Mutex::new(stream)),
        })
    }

    /// The stream itself.
    #[must_use]
    pub fn into_inner(self) -> Stream {
        match self.0 {
            Inner::Tcp(tcp) => tcp.into(),
            Inner::Other(stream) => stream.into_inner(),
        }
    }

    /// Ready when bytes may be available.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Inner::Tcp(tcp) => tcp.poll_read_ready(cx),
            Inner::Other(stream) => stream.lock().poll_readable(cx),
        }
    }

    /// Reads the available bytes; 0 is the peer's end.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] without available bytes, and those of the connection.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.0 {
            Inner::Tcp(tcp) => {
                let full = buffer.len();
                call(tcp, Interest::READABLE, full, |mut tcp| tcp.read(buffer))
            }
            Inner::Other(stream) => {
                let mut buffer = ReadBuf::new(buffer);
                // Without available bytes, `poll_readable` registers the waker.
                let mut cx = Context::from_waker(std::task::Waker::noop());
                match Pin::new(&mut *stream.lock()).poll_read(&mut cx, &mut buffer) {
                    Poll::Ready(read) => read.map(|()| buffer.filled().len()),
                    Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
                }
            }
        }
    }

    /// Writes as much of the slices, `bytes` in all, as the system accepts.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_write(
        &self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
        bytes: usize,
    ) -> Poll<io::Result<usize>> {
        let tcp = match &self.0 {
            Inner::Tcp(tcp) => tcp,
            Inner::Other(stream) => {
                return Pin::new(&mut *stream.lock()).poll_write_vectored(cx, slices);
            }
        };
        loop {
            ready!(tcp.poll_write_ready(cx))?;
            let result = call(tcp, Interest::WRITABLE, bytes, |mut tcp| {
                tcp.write_vectored(slices)
            });
            match result {
                Err(error) if is_transient(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Sends the bytes that TLS buffers. TCP, Unix sockets and memory buffer none.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Inner::Tcp(_) => Poll::Ready(Ok(())),
            Inner::Other(stream) => Pin::new(&mut *stream.lock()).poll_flush(cx),
        }
    }

    /// Ends this direction: the peer reads the end of the stream.
    ///
    /// # Errors
    /// Returns the errors of the connection.
    pub fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            Inner::Tcp(tcp) => Poll::Ready(SockRef::from(tcp).shutdown(Shutdown::Write)),
            Inner::Other(stream) => Pin::new(&mut *stream.lock()).poll_shutdown(cx),
        }
    }

    /// Waits until the connection has failed: for a task that neither reads nor writes, and would not notice. The
    /// end of the peer's direction is not a failure. TCP and memory report a failure at once; the other kinds are checked
    /// from time to time.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn failed(&self) -> io::Error {
        match &self.0 {
            Inner::Tcp(tcp) => {
                if let Err(error) = tcp.ready(Interest::ERROR).await {
                    return error;
                }
                let cause = tcp.take_error().ok().flatten();
                cause.unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
            }
            Inner::Other(stream) => {
                // The future is boxed: it is rarely used, and unboxed it would enlarge every future.
                let mut look = Box::pin(sleep(LOOK));
                poll_fn(|cx| {
                    loop {
                        let stream = stream.lock();
                        if let Some(failed) = stream.poll_failed(cx) {
                            return failed;
                        }
                        if stream.departure() == Some(Departure::Reset) {
                            return Poll::Ready(io::ErrorKind::ConnectionReset.into());
                        }
                        drop(stream);
                        ready!(look.as_mut().poll(cx));
                        look.as_mut().reset(tokio::time::Instant::now() + LOOK);
                    }
                })
                .await
            }
        }
    }

    /// See [`Stream::begin_delivery`].
    #[must_use]
    pub fn begin_delivery(&self, within: Duration) -> Delivery {
        match &self.0 {
            Inner::Tcp(tcp) => {
                shrink_send_buffer(tcp);
                Delivery::new(within)
            }
            Inner::Other(stream) => stream.lock().begin_delivery(within),
        }
    }

    /// See [`Stream::poll_delivery`].
    pub fn poll_delivery(&self, cx: &mut Context<'_>, delivery: &mut Delivery) -> Poll<()> {
        match &self.0 {
            Inner::Tcp(tcp) => delivery.poll(cx, || is_delivered(tcp)),
            Inner::Other(stream) => stream.lock().poll_delivery(cx, delivery),
        }
    }

    /// Has the kernel probe a silent peer; see [`Stream::keep_alive`].
    pub fn keep_alive(&self, silence: Duration) {
        match &self.0 {
            Inner::Tcp(tcp) => keep_alive(tcp, silence),
            Inner::Other(stream) => stream.lock().keep_alive(silence),
        }
    }

    /// See [`Stream::reset_on_drop`].
    pub fn reset_on_drop(&mut self) {
        match &mut self.0 {
            // If this fails, the connection has ended.
            Inner::Tcp(tcp) => drop(tcp.set_zero_linger()),
            Inner::Other(stream) => stream.get_mut().reset_on_drop(),
        }
    }
}

/// One system call. Readiness is reported once, when it begins: after a call that transferred less than requested, the
/// socket is empty or full, and the call that would only report that is saved, as in tokio's own streams.
fn call(
    tcp: &TcpStream,
    interest: Interest,
    full: usize,
    call: impl FnOnce(&socket2::Socket) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = None;
    let result = tcp.try_io(interest, || {
        let count = call(&SockRef::from(tcp))?;
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

/// Whether the call only has to be repeated.
fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
