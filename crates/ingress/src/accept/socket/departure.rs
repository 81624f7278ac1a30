//! Departures of visitors whose sockets nobody reads (P-7.3).
//!
//! A socket that is not read reports the end of its connection only in its readiness: `EPOLLRDHUP` for a FIN, `EPOLLERR`
//! for a reset. Both stand beside unread bytes and cost no system call.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    io::{Interest, ReadBuf},
    net::TcpStream,
};

use crate::accept::framing::Framing;

/// How often an unread socket is looked at: a departure is noticed within a second.
pub(super) const LOOK: Duration = Duration::from_millis(400);

/// Unread bytes that are searched for the end of a request, at most.
const PEEK_BYTES: usize = 256 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// FIN: the visitor sends nothing behind the unread bytes.
    Fin,
    /// The connection failed.
    Reset,
}

/// The end of the connection, seen without reading.
pub(super) fn departure(stream: &TcpStream) -> Option<Departure> {
    let ready = pin!(stream.ready(Interest::READABLE | Interest::ERROR));
    // No waker is left behind: the caller looks again.
    match ready.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Err(_)) => Some(Departure::Reset),
        Poll::Ready(Ok(ready)) if ready.is_error() => Some(Departure::Reset),
        Poll::Ready(Ok(ready)) => ready.is_read_closed().then_some(Departure::Fin),
    }
}

/// Whether the unread bytes before a FIN complete the request that `framing` is in. `None` when too many are unread to
/// search them.
pub(super) fn completes(stream: &TcpStream, framing: &Framing) -> Option<bool> {
    let mut bytes = vec![0; PEEK_BYTES];
    let mut buffer = ReadBuf::new(&mut bytes);
    let peeked = stream.poll_peek(&mut Context::from_waker(Waker::noop()), &mut buffer);
    let unread = buffer.filled_mut();
    match peeked {
        Poll::Ready(Ok(_)) if unread.len() == PEEK_BYTES => None,
        Poll::Ready(Ok(_)) => framing.is_completed_by(unread),
        Poll::Ready(Err(_)) => Some(false),
        Poll::Pending => Some(false),
    }
}
