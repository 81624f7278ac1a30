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
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_codec::{Pool, PooledBuffer, ResetCode, ResponseHead};
use adit_link::{
    Exchange, Failure, Part, Payload, Reason, RecvHalf, SendHalf, turn::wake_behind_others,
};
use bytes::{Buf, Bytes};
use tokio::time::{Sleep, sleep};

use super::socket::{Socket, is_transient};

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
pub struct BufferPools {
    /// For what comes after a silence.
    pub small: Pool,
    /// For what keeps coming.
    pub large: Pool,
}

/// Why the two were torn apart.
#[derive(Debug)]
pub enum SpliceError {
    /// The connection failed.
    Socket(io::Error),
    /// The exchange failed: its other end was reset, or the link was lost.
    Exchange(Failure),
}

/// What has happened in one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Read from the connection.
    pub read: u64,
    /// Written to it.
    pub written: u64,
    /// The other end has said that the service is there: said once.
    pub accepted: bool,
}

/// A connection and an exchange. Dropped before its end, it breaks the exchange off; the connection is the caller's to
/// reset.
///
/// A connection that fails has its place in the stream, as its end has (P-6.2): what came from it before is still read
/// and sent on, as far as credit goes, before [`SpliceError::Socket`] says so. The exchange's failure comes after what was
/// received of it has been written, when it was in order.
pub struct Splice<'s> {
    socket: &'s Socket,
    buffers: &'s BufferPools,
    send: Option<SendHalf>,
    /// None once nothing can be written any more.
    recv: Option<RecvHalf>,
    up: Up,
    down: Down,
    /// How the connection failed, while what it has received is read.
    failed: Option<io::Error>,
    /// For how long that may make no progress.
    patience: Duration,
    give_up: Option<Pin<Box<Sleep>>>,
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
    /// `first` is written before anything else. When the connection has failed, the exchange may take nothing of what it
    /// has received for as long as `patience`.
    pub fn new(
        socket: &'s Socket,
        exchange: Exchange,
        buffers: &'s BufferPools,
        first: Bytes,
        patience: Duration,
    ) -> Self {
        Self {
            socket,
            buffers,
            send: Some(exchange.send),
            recv: Some(exchange.recv),
            up: Up::default(),
            down: Down {
                first,
                ..Down::default()
            },
            failed: None,
            patience,
            give_up: None,
        }
    }

    /// Carries both directions to their ends. `moved` is told what has happened after each turn in which something has.
    ///
    /// # Errors
    /// What broke first. The exchange is still there, to be broken off with a code that says so.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing that the next call would not go on with.
    pub async fn run(&mut self, mut moved: impl FnMut(Progress)) -> Result<(), SpliceError> {
        let socket = self.socket;
        let mut failed = pin!(socket.failure());
        poll_fn(|cx| {
            let mut now = Progress::default();
            let was_accepted = self.down.accepted;
            let up = self.turn_up(cx, &mut now.read);
            let down = self.turn_down(cx, &mut now.written);
            now.accepted = self.down.accepted && !was_accepted;
            if now != Progress::default() {
                moved(now);
            }
            match (up?, down?) {
                (Wait::Over, Wait::Over) => return Poll::Ready(self.end()),
                (Wait::Turn, _) | (_, Wait::Turn) => wake_behind_others(cx),
                _ if self.failed.is_some() => {}
                (Wait::Socket, _) | (_, Wait::Socket) => {}
                // Nobody reads or writes: somebody must look after the connection.
                (Wait::Over | Wait::Exchange, Wait::Over | Wait::Exchange) => {
                    if let Poll::Ready(error) = failed.as_mut().poll(cx) {
                        self.on_failed(error);
                        cx.waker().wake_by_ref();
                    }
                }
            }
            self.poll_give_up(cx, now.read > 0)
        })
        .await
    }

    fn turn_up(&mut self, cx: &mut Context<'_>, read: &mut u64) -> Result<Wait, SpliceError> {
        let Some(send) = &self.send else {
            return Ok(Wait::Over);
        };
        let turn = self.up.turn(cx, self.socket, send, self.buffers, read);
        match turn? {
            // A connection that was reset ends as one that has ended, once its error has been taken.
            Turn::End => {
                if let Some(error) = self.failed.take_if(|error| !has_ended(error)) {
                    return Err(error.into());
                }
                // Fails only when nobody wants what it ends.
                let _ = send.finish();
                Ok(Wait::Over)
            }
            Turn::Wait(wait) => Ok(wait),
        }
    }

    fn turn_down(&mut self, cx: &mut Context<'_>, written: &mut u64) -> Result<Wait, SpliceError> {
        let Some(recv) = &mut self.recv else {
            return Ok(Wait::Over);
        };
        match self.down.turn(cx, self.socket, recv, written) {
            Err(SpliceError::Socket(error)) => {
                self.on_failed(error);
                Ok(Wait::Over)
            }
            result => result,
        }
    }

    /// Nothing more can be written. What the connection has received is still to be read.
    fn on_failed(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.down = Down {
            accepted: self.down.accepted,
            over: true,
            ..Down::default()
        };
        // Where nothing is left to read, what comes next says it all.
        if !self.up.over
            && let Some(recv) = self.recv.take()
        {
            recv.stop(ResetCode::Cancelled);
        }
    }

    /// Both directions are over.
    fn end(&mut self) -> Result<(), SpliceError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if let Some(failure) = self.up.refused.take() {
            return Err(failure.into());
        }
        self.send = None;
        Ok(())
    }

    /// Ready when the connection has failed and the exchange takes nothing of what it has received.
    fn poll_give_up(
        &mut self,
        cx: &mut Context<'_>,
        progress: bool,
    ) -> Poll<Result<(), SpliceError>> {
        if self.failed.is_none() {
            return Poll::Pending;
        }
        if progress {
            self.give_up = None;
        }
        let patience = self.patience;
        let give_up = self
            .give_up
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(give_up.as_mut().poll(cx));
        Poll::Ready(self.end())
    }

    /// Whether the other end has said that the service is there.
    pub const fn is_accepted(&self) -> bool {
        self.down.accepted
    }

    /// Whether any byte has been sent that did not ride in the head.
    pub const fn has_sent(&self) -> bool {
        self.up.has_sent
    }

    /// Whether the exchange failed behind all that has been written: the connection may be reset once that has been
    /// delivered.
    pub fn is_aborted(&self) -> bool {
        let behind_the_end = || self.recv.as_ref().is_some_and(RecvHalf::is_aborted);
        self.down.broken_off.is_some() || behind_the_end()
    }

    /// The exchange, to be broken off with a code that says why.
    pub fn into_send(mut self) -> Option<SendHalf> {
        self.send.take()
    }
}

impl Drop for Splice<'_> {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send.abort(ResetCode::Cancelled, "broken off");
        }
    }
}

/// Whether the peer had ended its direction before the connection failed.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// From the connection to the exchange.
#[derive(Debug, Default)]
struct Up {
    over: bool,
    has_sent: bool,
    /// The last read filled its buffer: more waits.
    full: bool,
    /// Nobody wants what the connection gives: why.
    refused: Option<Failure>,
}

/// How a turn of [`Up`] has ended.
enum Turn {
    Wait(Wait),
    /// The connection has nothing more to give.
    End,
}

impl Up {
    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        socket: &Socket,
        send: &SendHalf,
        buffers: &BufferPools,
        read: &mut u64,
    ) -> Result<Turn, SpliceError> {
        if self.over {
            return Ok(Turn::Wait(Wait::Over));
        }
        for _ in 0..CALLS_PER_TURN {
            let allowed = match send.poll_ready(cx) {
                Poll::Ready(Ok(allowed)) => allowed,
                Poll::Ready(Err(failure)) => return Ok(self.refuse(failure)),
                Poll::Pending => return Ok(Turn::Wait(Wait::Exchange)),
            };
            match socket.poll_readable(cx) {
                Poll::Ready(readable) => readable?,
                Poll::Pending => return Ok(Turn::Wait(Wait::Socket)),
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
                    self.over = true;
                    return Ok(Turn::End);
                }
                Ok(count) => {
                    if let Err(failure) = send.send(keep(buffer, count), false) {
                        return Ok(self.refuse(failure));
                    }
                    self.full = count == limit;
                    self.has_sent = true;
                    *read += count as u64;
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Turn::Wait(Wait::Turn))
    }

    /// The other direction may still have something to deliver: it says what has happened.
    fn refuse(&mut self, failure: Failure) -> Turn {
        self.over = true;
        self.refused = Some(failure);
        Turn::Wait(Wait::Over)
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
    /// But this, when it has been written (P-6.2).
    broken_off: Option<Failure>,
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
    ) -> Result<Wait, SpliceError> {
        if self.over {
            return Ok(Wait::Over);
        }
        for _ in 0..CALLS_PER_TURN {
            self.take(cx, recv)?;
            if self.first.is_empty() && self.queue.is_empty() {
                if let Some(failure) = &self.broken_off {
                    return Err(failure.clone().into());
                }
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
    fn take(&mut self, cx: &mut Context<'_>, recv: &mut RecvHalf) -> Result<(), SpliceError> {
        while !self.ended {
            match recv.poll_part(cx) {
                Poll::Ready(Some(Err(failure))) if recv.is_aborted() => {
                    self.broken_off = Some(failure);
                    self.ended = true;
                }
                Poll::Ready(Some(part)) => match part? {
                    Part::Data(payload) if payload.has_remaining() => self.queue.push_back(payload),
                    Part::Data(_) => {}
                    Part::Response(ResponseHead::Accepted) => self.accepted = true,
                    _ => {
                        let what = "this is no part of a TCP connection";
                        return Err(Failure::new(Reason::ProtocolError, what).into());
                    }
                },
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return Ok(()),
            }
        }
        // Nothing is taken any more, and a loss has to be heard of all the same.
        match recv.poll_failure(cx) {
            Poll::Ready(failure) => Err(failure.into()),
            Poll::Pending => Ok(()),
        }
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

impl From<io::Error> for SpliceError {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

impl From<Failure> for SpliceError {
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
