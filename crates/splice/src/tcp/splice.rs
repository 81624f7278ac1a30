//! Splices a TCP connection and an exchange: forwards what arrives at one to the other, in both directions at once.
//!
//! One future serves both directions, and neither waits for the other (P-10.2). Bytes are read only within credit, into a
//! buffer that is taken when there is something to read, so that a connection that waits holds none. Many payloads are
//! written with one call, without a copy; their credit is returned when they have been written.
//!
//! Cost of bulk data: one read for each 64 KiB on one side, one write for all that has arrived on the other.

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

/// The most reads, and the most writes, in one turn; then the other tasks of the thread run.
const CALLS_PER_TURN: usize = 4;
/// The most payloads in one write.
const MAX_SLICES: usize = 64;
/// Payloads are added to a write until it has this many bytes: larger writes are slower, not faster.
const WRITE_BYTES: usize = 256 * 1024;
/// Payload smaller than this fraction of its buffer is copied: it would keep the whole buffer alive (P-4.7).
const PIN_RATIO: usize = 4;
/// A queue that a burst of small payloads has grown beyond this length is freed when it is empty.
const KEPT_PIECES: usize = 1024;

/// Buffers to read into.
#[derive(Debug, Clone)]
pub struct BufferPools {
    /// Buffers for the first read after a pause.
    pub small: Pool,
    /// Buffers for further reads while data keeps arriving.
    pub large: Pool,
}

/// Why a splice ended early.
#[derive(Debug)]
pub enum SpliceError {
    /// The connection failed.
    Socket(io::Error),
    /// The exchange failed: its other end reset it, or the link was lost.
    Exchange(Failure),
}

/// What was transferred in one turn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read from the connection.
    pub read: u64,
    /// Bytes written to the connection.
    pub written: u64,
    /// The other end has accepted the session. Set once.
    pub accepted: bool,
}

/// A connection and an exchange. Dropped before its end, it aborts the exchange; the caller resets the connection.
///
/// A failure of the connection is reported in order, as its end is (P-6.2): bytes that arrived before it are still read and
/// sent, as far as credit allows, before [`SpliceError::Socket`] is returned. A failure of the exchange that is in order is
/// returned after the payload before it has been written.
pub struct Splice<'s> {
    socket: &'s Socket,
    buffers: &'s BufferPools,
    send: Option<SendHalf>,
    /// `None` once nothing can be written any more.
    recv: Option<RecvHalf>,
    to_exchange: ToExchange,
    to_socket: ToSocket,
    /// The failure of the connection, while the bytes before it are still read.
    failed: Option<io::Error>,
    /// The longest time without progress in which the bytes before a failure are read.
    patience: Duration,
    give_up: Option<Pin<Box<Sleep>>>,
}

/// What a direction waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// The direction has ended.
    Over,
    /// The connection; its failure is reported by the read or write that waits.
    Socket,
    /// The exchange, for payload or credit.
    Exchange,
    /// The next turn of the direction.
    Turn,
}

impl<'s> Splice<'s> {
    /// `first` is written before anything else. After a failure of the connection, the exchange may make no progress for as
    /// long as `patience`.
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
            to_exchange: ToExchange::default(),
            to_socket: ToSocket {
                first,
                ..ToSocket::default()
            },
            failed: None,
            patience,
            give_up: None,
        }
    }

    /// Forwards both directions to their ends. `on_progress` is called after each turn in which bytes were forwarded.
    ///
    /// # Errors
    /// The first failure. The exchange is not reset yet: [`Splice::into_send`] returns it for a reset with a code.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing; the next call continues.
    pub async fn run(&mut self, mut on_progress: impl FnMut(Progress)) -> Result<(), SpliceError> {
        let socket = self.socket;
        let mut failed = pin!(socket.failure());
        poll_fn(|cx| {
            let mut now = Progress::default();
            let was_accepted = self.to_socket.accepted;
            let to_exchange = self.turn_to_exchange(cx, &mut now.read);
            let to_socket = self.turn_to_socket(cx, &mut now.written);
            now.accepted = self.to_socket.accepted && !was_accepted;
            if now != Progress::default() {
                on_progress(now);
            }
            match (to_exchange?, to_socket?) {
                (Wait::Over, Wait::Over) => return Poll::Ready(self.end()),
                (Wait::Turn, _) | (_, Wait::Turn) => wake_behind_others(cx),
                _ if self.failed.is_some() => {}
                (Wait::Socket, _) | (_, Wait::Socket) => {}
                // Without a pending read or write, only this detects a failure of the connection.
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

    fn turn_to_exchange(
        &mut self,
        cx: &mut Context<'_>,
        read: &mut u64,
    ) -> Result<Wait, SpliceError> {
        let Some(send) = &self.send else {
            return Ok(Wait::Over);
        };
        let turn = self
            .to_exchange
            .turn(cx, self.socket, send, self.buffers, read);
        match turn? {
            // A connection that was reset reads as one that has ended, once another call has received its error.
            Turn::End => {
                if let Some(error) = self.failed.take_if(|error| !has_ended(error)) {
                    return Err(error.into());
                }
                // Fails only if the peer has stopped this direction.
                let _ = send.finish();
                Ok(Wait::Over)
            }
            Turn::Wait(wait) => Ok(wait),
        }
    }

    fn turn_to_socket(
        &mut self,
        cx: &mut Context<'_>,
        written: &mut u64,
    ) -> Result<Wait, SpliceError> {
        let Some(recv) = &mut self.recv else {
            return Ok(Wait::Over);
        };
        match self.to_socket.turn(cx, self.socket, recv, written) {
            Err(SpliceError::Socket(error)) => {
                self.on_failed(error);
                Ok(Wait::Over)
            }
            result => result,
        }
    }

    /// Nothing more can be written. What has arrived before is still read.
    fn on_failed(&mut self, error: io::Error) {
        self.failed = Some(error);
        self.to_socket = ToSocket {
            accepted: self.to_socket.accepted,
            over: true,
            ..ToSocket::default()
        };
        // If nothing is left to read, the failure is returned at once instead.
        if !self.to_exchange.over
            && let Some(recv) = self.recv.take()
        {
            recv.stop(ResetCode::Cancelled);
        }
    }

    /// Both directions have ended.
    fn end(&mut self) -> Result<(), SpliceError> {
        if let Some(error) = self.failed.take() {
            return Err(error.into());
        }
        if let Some(failure) = self.to_exchange.stopped.take() {
            return Err(failure.into());
        }
        self.send = None;
        Ok(())
    }

    /// Ready when the connection has failed and the exchange makes no progress with what arrived before.
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

    /// Whether the other end has accepted the session.
    pub const fn is_accepted(&self) -> bool {
        self.to_socket.accepted
    }

    /// Whether any byte has been sent that was not inlined in the head.
    pub const fn has_sent(&self) -> bool {
        self.to_exchange.has_sent
    }

    /// Whether the exchange failed in order, after the payload that has been written: the connection may be reset once that
    /// is delivered.
    pub fn is_aborted(&self) -> bool {
        let behind_the_end = || self.recv.as_ref().is_some_and(RecvHalf::is_aborted);
        self.to_socket.aborted.is_some() || behind_the_end()
    }

    /// The sending half of the exchange, to be reset with a code.
    pub fn into_send(mut self) -> Option<SendHalf> {
        self.send.take()
    }
}

impl Drop for Splice<'_> {
    fn drop(&mut self) {
        if let Some(send) = self.send.take() {
            send.abort(ResetCode::Cancelled, "dropped before its end");
        }
    }
}

/// Whether the peer had ended its direction before the connection failed.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// The direction from the connection to the exchange.
#[derive(Debug, Default)]
struct ToExchange {
    over: bool,
    has_sent: bool,
    /// The last read filled its buffer: there is more to read.
    full: bool,
    /// Why the exchange accepts no more bytes.
    stopped: Option<Failure>,
}

/// How a turn of [`ToExchange`] ended.
enum Turn {
    Wait(Wait),
    /// The connection has ended.
    End,
}

impl ToExchange {
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
                Poll::Ready(Err(failure)) => return Ok(self.stop(failure)),
                Poll::Pending => return Ok(Turn::Wait(Wait::Exchange)),
            };
            match socket.poll_readable(cx) {
                Poll::Ready(readable) => readable?,
                Poll::Pending => return Ok(Turn::Wait(Wait::Socket)),
            }
            let Poll::Ready(allowed) = send.poll_pace(cx, allowed) else {
                return Ok(Turn::Wait(Wait::Exchange));
            };
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
                        return Ok(self.stop(failure));
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

    /// Ends this direction. The failure is returned when the other direction has ended as well.
    fn stop(&mut self, failure: Failure) -> Turn {
        self.over = true;
        self.stopped = Some(failure);
        Turn::Wait(Wait::Over)
    }
}

/// The bytes at the start of a buffer as owned bytes: the buffer itself, or a copy if the buffer is much larger.
fn keep(mut buffer: PooledBuffer, count: usize) -> Bytes {
    let room = buffer.unfilled();
    if count < room.len() / PIN_RATIO {
        return Bytes::copy_from_slice(&room[..count]);
    }
    buffer.advance(count);
    buffer.freeze()
}

/// The direction from the exchange to the connection.
#[derive(Debug, Default)]
struct ToSocket {
    /// Bytes to be written before anything else.
    first: Bytes,
    /// Payload that has not been written. All that has arrived is taken at once, because a failure is reported after it;
    /// credit bounds the queue.
    queue: VecDeque<Payload>,
    accepted: bool,
    /// No more payload follows after the queue.
    ended: bool,
    /// The failure that follows the queue (P-6.2).
    aborted: Option<Failure>,
    /// The write direction of the connection has been shut down.
    over: bool,
}

impl ToSocket {
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
                if socket.poll_flush(cx)?.is_pending() {
                    return Ok(Wait::Socket);
                }
                if let Some(failure) = &self.aborted {
                    return Err(failure.clone().into());
                }
                if !self.ended {
                    return Ok(Wait::Exchange);
                }
                if socket.poll_finish(cx)?.is_pending() {
                    return Ok(Wait::Socket);
                }
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

    /// Takes all parts that have arrived.
    fn take(&mut self, cx: &mut Context<'_>, recv: &mut RecvHalf) -> Result<(), SpliceError> {
        while !self.ended {
            match recv.poll_part(cx) {
                Poll::Ready(Some(Err(failure))) if recv.is_aborted() => {
                    self.aborted = Some(failure);
                    self.ended = true;
                }
                Poll::Ready(Some(part)) => match part? {
                    Part::Data(payload) if payload.has_remaining() => self.queue.push_back(payload),
                    Part::Data(_) => {}
                    Part::Response(ResponseHead::Accepted) => self.accepted = true,
                    _ => {
                        let what = "unexpected message in a TCP session";
                        return Err(Failure::new(Reason::ProtocolError, what).into());
                    }
                },
                Poll::Ready(None) => self.ended = true,
                Poll::Pending => return Ok(()),
            }
        }
        // Nothing more is received; a failure of the exchange must be detected nevertheless.
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

    /// Drops what has been written, which returns its credit (P-4.5).
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
    fn small_payload_does_not_keep_its_buffer() {
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
