//! A TCP connection and an exchange, tied together: what one gives the other gets, in both directions at once.
//!
//! One future for both directions, none of which waits for the other (P-10.2). Bytes are read only when credit lets them
//! go on, and into a buffer that is taken when there is something to read, so that a connection that waits holds none.
//! Payload is written as it came, many at a time, and gives its credit back when it has been written.
//!
//! Cost of a bulk byte: one read for each 64 KiB of it on the one side, one write for as much as has come on the other.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    pin::pin,
    task::{Context, Poll},
};

use adit_codec::{AnswerHead, Pool, PooledBuffer, ResetCode};
use adit_link::{Exchange, Failure, Part, Payload, Reason, RecvHalf, SendHalf};
use bytes::{Buf, Bytes};

use super::socket::{Socket, is_no_failure};

/// Reads, and writes, in one turn: then the others of the thread have theirs.
const CALLS_PER_TURN: usize = 4;
/// Payloads in one write.
const MAX_SLICES: usize = 64;
/// Bytes in one write, beside the last payload: more at a time is slower, not faster.
const WRITE_BYTES: usize = 256 * 1024;
/// Payload smaller than this part of its buffer is copied: held, it would pin the whole (P-4.7).
const PIN_RATIO: usize = 4;
/// A queue that a burst of small payloads has made longer than this gives its memory back.
const KEPT_PIECES: usize = 1024;

/// Buffers to read into.
#[derive(Debug, Clone)]
pub struct Buffers {
    /// For what comes after a silence.
    pub small: Pool,
    /// For what keeps coming.
    pub large: Pool,
}

/// Why the two were torn apart.
#[derive(Debug)]
pub enum Broken {
    /// The connection failed.
    Socket(io::Error),
    /// The exchange failed: its other end was reset, or the link was lost.
    Exchange(Failure),
}

/// What has happened in one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Read from the connection.
    pub read: u64,
    /// Written to it.
    pub written: u64,
    /// The other end has said that the service is there: said once.
    pub accepted: bool,
}

/// A connection and an exchange. Dropped before its end, it resets the exchange; the connection is the caller's to
/// reset.
pub struct Splice<'s> {
    socket: &'s Socket,
    buffers: &'s Buffers,
    send: Option<SendHalf>,
    recv: RecvHalf,
    up: Up,
    down: Down,
}

/// What a direction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// Nothing: it is over.
    Over,
    /// The connection, which would say if it failed.
    Socket,
    /// The exchange.
    Exchange,
    /// Its next turn.
    Turn,
}

impl<'s> Splice<'s> {
    /// `first` is written before anything else.
    pub fn new(socket: &'s Socket, exchange: Exchange, buffers: &'s Buffers, first: Bytes) -> Self {
        Self {
            socket,
            buffers,
            send: Some(exchange.send),
            recv: exchange.recv,
            up: Up::default(),
            down: Down {
                first,
                ..Down::default()
            },
        }
    }

    /// Carries both directions to their ends. `moved` is told what has happened after each turn in which something has.
    ///
    /// # Errors
    /// What broke first. The exchange is still there, to be reset with a code that says so.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing that the next call would not go on with.
    pub async fn run(&mut self, mut moved: impl FnMut(Moved)) -> Result<(), Broken> {
        let Self {
            socket,
            buffers,
            send,
            recv,
            up,
            down,
        } = self;
        let Some(send) = send.as_ref() else {
            return Ok(());
        };
        let mut failed = pin!(socket.failed());
        let result = poll_fn(|cx| {
            let mut now = Moved::default();
            let up = up.turn(cx, socket, send, buffers, &mut now.read);
            let was_accepted = down.accepted;
            let went = down.turn(cx, socket, recv, &mut now.written);
            now.accepted = down.accepted && !was_accepted;
            if now != Moved::default() {
                moved(now);
            }
            match (up?, went?) {
                (Wait::Over, Wait::Over) => return Poll::Ready(Ok(())),
                (Wait::Turn, _) | (_, Wait::Turn) => cx.waker().wake_by_ref(),
                (Wait::Socket, _) | (_, Wait::Socket) => {}
                // Nobody reads or writes: somebody must look after the connection.
                (Wait::Over | Wait::Exchange, Wait::Over | Wait::Exchange) => {
                    if let Poll::Ready(error) = failed.as_mut().poll(cx) {
                        return Poll::Ready(Err(Broken::Socket(error)));
                    }
                }
            }
            Poll::Pending
        })
        .await;
        if result.is_ok() {
            self.send = None;
        }
        result
    }

    /// Whether the other end has said that the service is there.
    pub const fn is_accepted(&self) -> bool {
        self.down.accepted
    }

    /// Whether any byte has been sent that did not ride in the head.
    pub const fn has_sent(&self) -> bool {
        self.up.has_sent
    }

    /// The exchange, to be reset with a code that says why.
    pub fn give_up(mut self) -> Option<SendHalf> {
        self.send.take()
    }
}

impl Drop for Splice<'_> {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send.reset(ResetCode::Cancelled, "broken off");
        }
    }
}

/// From the connection to the exchange.
#[derive(Debug, Default)]
struct Up {
    over: bool,
    has_sent: bool,
    /// The last read filled its buffer: more waits.
    full: bool,
}

impl Up {
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        send: &SendHalf,
        buffers: &Buffers,
        read: &mut u64,
    ) -> Result<Wait, Broken> {
        if self.over {
            return Ok(Wait::Over);
        }
        for _ in 0..CALLS_PER_TURN {
            let allowed = match send.poll_ready(cx) {
                Poll::Ready(allowed) => allowed?,
                Poll::Pending => return Ok(Wait::Exchange),
            };
            match socket.poll_readable(cx) {
                Poll::Ready(readable) => readable?,
                Poll::Pending => return Ok(Wait::Socket),
            }
            let pool = if self.full {
                &buffers.large
            } else {
                &buffers.small
            };
            let mut buffer = pool.take();
            let room = buffer.unfilled();
            let limit = allowed.min(room.len());
            match socket.try_read(&mut room[..limit]) {
                Ok(0) => {
                    send.finish()?;
                    self.over = true;
                    return Ok(Wait::Over);
                }
                Ok(count) => {
                    send.send(keep(buffer, count), false)?;
                    self.full = count == limit;
                    self.has_sent = true;
                    *read += count as u64;
                }
                Err(error) if is_no_failure(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Wait::Turn)
    }
}

/// The bytes at the start of a buffer as bytes of their own: the buffer itself, or a copy where that would pin far more
/// than it is.
fn keep(mut buffer: PooledBuffer, count: usize) -> Bytes {
    let room = buffer.unfilled();
    if count < room.len() / PIN_RATIO {
        return Bytes::copy_from_slice(&room[..count]);
    }
    buffer.advance(count);
    buffer.freeze()
}

/// From the exchange to the connection.
#[derive(Debug, Default)]
struct Down {
    /// Goes before everything else.
    first: Bytes,
    /// What has come and not been written. All that comes is taken at once, because a failure is told to whoever takes;
    /// credit bounds it, here as there.
    queue: VecDeque<Payload>,
    accepted: bool,
    /// Nothing comes after the queue.
    ended: bool,
    /// The end has been told to the connection.
    over: bool,
}

impl Down {
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        recv: &mut RecvHalf,
        written: &mut u64,
    ) -> Result<Wait, Broken> {
        if self.over {
            return Ok(Wait::Over);
        }
        for _ in 0..CALLS_PER_TURN {
            self.take(cx, recv)?;
            if self.first.is_empty() && self.queue.is_empty() {
                if !self.ended {
                    return Ok(Wait::Exchange);
                }
                socket.finish()?;
                self.over = true;
                return Ok(Wait::Over);
            }
            match self.write(cx, socket) {
                Poll::Ready(count) => {
                    let count = count?;
                    self.advance(count);
                    *written += count as u64;
                }
                Poll::Pending => return Ok(Wait::Socket),
            }
        }
        Ok(Wait::Turn)
    }

    /// Takes what has come.
    fn take(&mut self, cx: &mut Context<'_>, recv: &mut RecvHalf) -> Result<(), Broken> {
        while !self.ended {
            match recv.poll_part(cx) {
                Poll::Ready(Some(part)) => match part? {
                    Part::Data(payload) if payload.has_remaining() => self.queue.push_back(payload),
                    Part::Data(_) => {}
                    Part::Answer(AnswerHead::Accepted) => self.accepted = true,
                    _ => {
                        let what = "this is no part of a TCP connection";
                        return Err(Failure::new(Reason::ProtocolError, what).into());
                    }
                },
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    fn write(&self, cx: &mut Context<'_>, socket: &Socket) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let (mut count, mut bytes) = (0, 0);
        let queued = self.queue.iter().map(Payload::as_ref);
        let first = Some(&self.first[..]).filter(|first| !first.is_empty());
        for (slot, piece) in slices.iter_mut().zip(first.into_iter().chain(queued)) {
            *slot = IoSlice::new(piece);
            count += 1;
            bytes += piece.len();
            if bytes >= WRITE_BYTES {
                break;
            }
        }
        socket.poll_write(cx, &slices[..count], bytes)
    }

    /// Drops what has been written, which gives its credit back (P-4.5).
    fn advance(&mut self, mut count: usize) {
        let first = count.min(self.first.len());
        self.first.advance(first);
        count -= first;
        while count > 0
            && let Some(piece) = self.queue.front_mut()
        {
            let here = count.min(piece.remaining());
            piece.advance(here);
            count -= here;
            if !piece.has_remaining() {
                self.queue.pop_front();
            }
        }
        if self.queue.is_empty() && self.queue.capacity() > KEPT_PIECES {
            self.queue = VecDeque::new();
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        Self::Exchange(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_piece_does_not_keep_its_buffer() {
        let pool = Pool::new(64, 1);
        for (count, keeps) in [(1, false), (15, false), (16, true), (64, true)] {
            let mut buffer = pool.take();
            buffer.unfilled().fill(7);
            let kept = keep(buffer, count);
            assert_eq!(kept, vec![7; count]);
            assert_eq!(pool.free() == 0, keeps, "{count}");
        }
    }
}
