//! The end of a connection, detected without reading it.

use std::{
    future::Future,
    io,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio::io::Ready;

/// How the peer has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// FIN: the peer sends nothing after the unread bytes.
    Fin,
    /// The connection failed.
    Reset,
}

/// A socket that is not read reports the end of its connection only in its readiness: `EPOLLRDHUP` for a FIN,
/// `EPOLLERR` for a reset, both also with unread bytes before.
pub(crate) fn departure(ready: impl Future<Output = io::Result<Ready>>) -> Option<Departure> {
    // No waker is registered: the caller checks again.
    match pin!(ready).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => None,
        Poll::Ready(Err(_)) => Some(Departure::Reset),
        Poll::Ready(Ok(ready)) if ready.is_error() => Some(Departure::Reset),
        Poll::Ready(Ok(ready)) => ready.is_read_closed().then_some(Departure::Fin),
    }
}
