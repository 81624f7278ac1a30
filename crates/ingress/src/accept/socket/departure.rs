//! Departures of visitors whose streams are not read (P-7.3).

use std::{
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_net::{Departure, Stream};

use super::timeout::Timeout;
use crate::accept::framing::Framing;

/// How often an unread stream is checked: a departure is detected within a second.
const LOOK: Duration = Duration::from_millis(400);

/// Unread bytes that are searched for the end of a request, at most.
const PEEK_BYTES: usize = 256 * 1024;

/// The information about a visitor that may disconnect.
pub(super) struct Presence {
    /// The end of the stream has been read.
    eof: bool,
    /// The visitor has sent a FIN after unread bytes.
    fin: bool,
    /// Bytes of the next request are unread.
    watched: bool,
    /// When an unread socket is checked next.
    look: Timeout,
    /// The visitor has shut its side, and nothing has been written since.
    half_closed: Timeout,
    half_close: Duration,
}

impl Presence {
    /// A visitor that has shut its side may receive for `half_close` after the last write.
    pub(super) fn new(half_close: Duration) -> Self {
        Self {
            eof: false,
            fin: false,
            watched: false,
            look: Timeout::default(),
            half_closed: Timeout::default(),
            half_close,
        }
    }

    /// Called when the end of the stream has been read.
    pub(super) const fn on_end(&mut self) {
        self.eof = true;
    }

    /// Called when bytes have been read. The service still reads the body of a visitor that has shut its side.
    pub(super) const fn on_read(&mut self) {
        self.watched = false;
        self.half_closed.disarm();
    }

    /// Starts the time of `half_close` again: bytes have been written, or the time limit does not apply any more.
    pub(super) const fn restart_half_close(&mut self) {
        self.half_closed.disarm();
    }

    /// Whether the end of the stream has been read.
    pub(super) const fn is_at_end(&self) -> bool {
        self.eof
    }

    const fn has_left(&self) -> bool {
        self.eof || self.fin
    }

    /// Ready when bytes or an end have arrived after those that have been read; the result is true the first time.
    pub(super) fn poll_arrival(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<bool>> {
        if self.has_left() || self.watched {
            return Poll::Ready(Ok(false));
        }
        match ready!(stream.poll_peek(cx, &mut [0])) {
            Ok(1..) => self.watched = true,
            Ok(0) => self.eof = true,
            Err(error) => return Poll::Ready(Err(error)),
        }
        Poll::Ready(Ok(true))
    }

    /// Ready when the visitor has left and receives no more: it has reset the connection, it has shut its side for too long,
    /// or it has done so and `is_incomplete`: its request can never be complete.
    pub(super) fn poll_lost(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        is_incomplete: impl FnOnce(&mut Stream) -> bool,
    ) -> Poll<()> {
        if !self.has_left() {
            let is_lost = match ready!(self.poll_departure(cx, stream)) {
                Departure::Reset => true,
                // An early response may still be read; a request that can never be complete gets none.
                Departure::Fin => is_incomplete(stream),
            };
            if is_lost {
                return Poll::Ready(());
            }
            self.fin = true;
        }
        self.half_closed.arm(self.half_close);
        self.half_closed.poll(cx)
    }

    /// Checks an unread stream from time to time until the visitor has left.
    fn poll_departure(&mut self, cx: &mut Context<'_>, stream: &Stream) -> Poll<Departure> {
        loop {
            self.look.arm(LOOK);
            ready!(self.look.poll_once(cx));
            if let Some(how) = stream.departure() {
                return Poll::Ready(how);
            }
        }
    }
}

/// Whether the unread bytes before a FIN complete the request that `framing` is in. `None` when they cannot be known: too
/// many are unread, or TLS has not deciphered them.
pub(super) fn completes(stream: &mut Stream, framing: &Framing) -> Option<bool> {
    let mut unread = stream.peek_all(PEEK_BYTES)?;
    if unread.is_empty() {
        return Some(false);
    }
    framing.is_completed_by(&mut unread)
}
