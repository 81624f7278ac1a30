//! Turns: the work that a task may do before the other tasks of its thread run.
//!
//! A peer that sends without a pause keeps its connection readable. tokio ends a turn after 128 reads, whatever their
//! size, and does not count frames and messages that are read from a buffer. A [`Turn`] counts bytes and messages.
//!
//! A task whose turn is over is woken after everything that is ready, the sockets that have become readable included:
//! tokio defers the wake until the run queue is empty or the driver has been polled. A task that woke itself directly
//! would run again before the driver is polled.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

/// The default work of one turn. It takes some ten microseconds to copy and less than a millisecond to parse.
pub const TURN_BYTES: usize = 64 * 1024;

/// The work of a read or a message beyond its bytes, so that empty ones count.
pub const STEP_BYTES: usize = 256;

/// Counts the work of one task, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    limit: usize,
    done: usize,
    /// The size of the next read.
    read: usize,
}

impl Turn {
    /// Turns of `limit` bytes each.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            done: 0,
            read: limit,
        }
    }

    /// Counts one read of `bytes` with `items` (chunks, frames) in it. If they are small, one read can be more work
    /// than a turn: the next read is made smaller, so that it is about one turn again.
    pub const fn read(&mut self, bytes: usize, items: usize) {
        let work = items.saturating_mul(STEP_BYTES);
        if work <= bytes {
            self.step(bytes);
            let doubled = self.read.saturating_mul(2);
            self.read = if doubled < self.limit {
                doubled
            } else {
                self.limit
            };
            return;
        }
        self.step(work);
        // A few small items at a time are the usual case, and cost little.
        if work >= self.limit / 4 {
            // `bytes` is below `work`, and the quotient is below the limit.
            let read = self.limit.saturating_mul(bytes) / work;
            self.read = if read > STEP_BYTES { read } else { STEP_BYTES };
        }
    }

    /// The size of the next read.
    pub const fn read_limit(&self) -> usize {
        // If items are large, the reader's own buffer is the limit.
        if self.read < self.limit {
            self.read
        } else {
            usize::MAX
        }
    }

    /// Counts one read or message of `bytes`.
    pub const fn step(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes).saturating_add(STEP_BYTES);
    }

    /// Counts messages without content, or whose content is ignored.
    pub const fn steps(&mut self, count: usize) {
        self.done = self.done.saturating_add(count.saturating_mul(STEP_BYTES));
    }

    /// Whether the other tasks should run before this one continues.
    pub const fn is_over(&self) -> bool {
        self.done >= self.limit
    }

    /// Called when the task waits for another event: its next turn begins after that.
    pub const fn end(&mut self) {
        self.done = 0;
    }

    /// Ready while the turn is not over. Otherwise the next turn begins, and the task is woken after the other tasks.
    pub fn poll_yield(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over() {
            return Poll::Ready(());
        }
        self.end();
        wake_behind_others(cx);
        Poll::Pending
    }

    /// Lets the other tasks run when the turn is over.
    ///
    /// # Cancel safety
    /// Yes.
    pub async fn yield_if_over(&mut self) {
        if self.is_over() {
            poll_fn(|cx| self.poll_yield(cx)).await;
        }
    }
}

/// Wakes the task after everything that is ready now.
pub fn wake_behind_others(cx: &mut Context<'_>) {
    // The first poll of this future is pending and defers the wake.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Reads at most `limit` bytes.
pub fn poll_read_at_most<S: AsyncRead + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    buffer: &mut ReadBuf<'_>,
    limit: usize,
) -> Poll<io::Result<()>> {
    let stream = Pin::new(stream);
    if limit >= buffer.remaining() {
        return stream.poll_read(cx, buffer);
    }
    let mut part = ReadBuf::new(buffer.initialize_unfilled_to(limit));
    ready!(stream.poll_read(cx, &mut part))?;
    let read = part.filled().len();
    buffer.advance(read);
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn empty_steps_end_a_turn_as_bytes_do() {
        let steps = |bytes: usize| {
            let mut turn = Turn::new(TURN_BYTES);
            let mut steps = 0;
            while !turn.is_over() {
                turn.step(bytes);
                steps += 1;
            }
            steps
        };
        assert_eq!(steps(0), TURN_BYTES / STEP_BYTES);
        assert_eq!(steps(TURN_BYTES), 1);
        assert_eq!(steps(usize::MAX), 1);
    }

    #[tokio::test]
    async fn a_finished_turn_is_followed_by_readable_sockets() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (mut near, _) = listener.accept().await.unwrap();
        let order = Arc::new(Mutex::new(Vec::new()));
        let ran = order.clone();
        let neighbour = tokio::spawn(async move {
            near.read_u8().await.unwrap();
            ran.lock().unwrap().push("neighbour");
        });
        tokio::task::yield_now().await;
        let ran = order.clone();
        let flood = tokio::spawn(async move {
            far.write_u8(1).await.unwrap();
            let mut turn = Turn::new(1);
            turn.step(1);
            turn.yield_if_over().await;
            ran.lock().unwrap().push("flood");
            assert!(!turn.is_over(), "the next turn has begun");
        });
        flood.await.unwrap();
        neighbour.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["neighbour", "flood"]);
    }

    #[test]
    fn many_small_items_make_the_next_read_smaller() {
        let mut turn = Turn::new(TURN_BYTES);
        turn.read(TURN_BYTES, TURN_BYTES / 1_000);
        assert_eq!(turn.read_limit(), usize::MAX);
        // Unknown frames of HTTP/2, nine bytes each.
        turn.read(9 * 10, 10);
        assert_eq!(turn.read_limit(), usize::MAX, "they are few");
        turn.read(9 * 7_000, 7_000);
        assert_eq!(turn.read_limit(), TURN_BYTES * 9 / STEP_BYTES);
        turn.read(9 * 256, 256);
        assert_eq!(turn.read_limit(), TURN_BYTES * 9 / STEP_BYTES);
        turn.read(1, usize::MAX);
        assert_eq!(turn.read_limit(), STEP_BYTES);
        for _ in 0..8 {
            assert!(turn.read_limit() < usize::MAX);
            turn.read(turn.read_limit(), 0);
        }
        assert_eq!(turn.read_limit(), usize::MAX);
    }

    #[tokio::test]
    async fn a_read_takes_at_most_its_limit() {
        let (mut near, mut far) = tokio::io::duplex(64);
        far.write_all(&[7; 40]).await.unwrap();
        let mut bytes = [0; 40];
        let mut buffer = ReadBuf::new(&mut bytes);
        for (limit, filled) in [(3, 3), (0, 3), (30, 33), (usize::MAX, 40)] {
            poll_fn(|cx| poll_read_at_most(&mut near, cx, &mut buffer, limit))
                .await
                .unwrap();
            assert_eq!(buffer.filled().len(), filled);
        }
    }
}
