//! Turns: what a task may do before the other tasks of its thread run.
//!
//! A peer that sends without a pause keeps its connection readable. tokio ends a turn after 128 reads, whatever they
//! hold, and does not count frames and messages that are read from a buffer. A [`Turn`] counts bytes and messages.
//!
//! A task whose turn is over is woken behind everything that is ready, the sockets that have become readable included:
//! tokio defers the wake until the run queue is empty or the driver has been polled. A task that woke itself directly
//! would run again before the driver is polled.

use std::{
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The work of one turn by default. It takes some ten microseconds to copy and less than a millisecond to parse.
pub const TURN_BYTES: usize = 64 * 1024;

/// The work that a read or a message takes beside its bytes, so that empty ones are counted.
pub const STEP_BYTES: usize = 256;

/// Counts the work of one task, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    limit: usize,
    done: usize,
}

impl Turn {
    /// Turns of `limit` bytes each.
    pub const fn new(limit: usize) -> Self {
        Self { limit, done: 0 }
    }

    /// Counts one read or message of `bytes`.
    pub const fn step(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes).saturating_add(STEP_BYTES);
    }

    /// Counts messages that hold nothing, or nothing that is looked at.
    pub const fn steps(&mut self, count: usize) {
        self.done = self.done.saturating_add(count.saturating_mul(STEP_BYTES));
    }

    /// Whether the other tasks are to run before this one goes on.
    pub const fn is_over(&self) -> bool {
        self.done >= self.limit
    }

    /// The task waits for something else: its next turn begins when that is there.
    pub const fn end(&mut self) {
        self.done = 0;
    }

    /// Ready as long as the turn is not over. When it is over, the next one begins, and the task is woken for it behind
    /// the others.
    pub fn poll_go_on(&mut self, cx: &mut Context<'_>) -> Poll<()> {
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
    pub async fn go_on(&mut self) {
        if self.is_over() {
            poll_fn(|cx| self.poll_go_on(cx)).await;
        }
    }
}

/// Wakes the task behind everything that is ready now.
pub fn wake_behind_others(cx: &mut Context<'_>) {
    // Its first poll defers the wake and is pending.
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// A connection that is read in turns.
#[derive(Debug)]
pub struct InTurns<S> {
    stream: S,
    turn: Turn,
}

impl<S> InTurns<S> {
    /// Reads `stream` in turns of `limit` bytes each.
    pub const fn new(stream: S, limit: usize) -> Self {
        Self {
            stream,
            turn: Turn::new(limit),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for InTurns<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.turn.poll_go_on(cx));
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        if read.is_ready() {
            this.turn.step(buffer.filled().len().saturating_sub(before));
        } else {
            this.turn.end();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for InTurns<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
        task::JoinSet,
    };

    use super::*;

    /// Never runs dry.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let room = buffer.remaining();
            buffer.initialize_unfilled_to(room).fill(b'0');
            buffer.advance(room);
            Poll::Ready(Ok(()))
        }
    }

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
    async fn floods_and_their_neighbours_take_turns() {
        const FLOODS: usize = 20;
        const ROUNDS: usize = 50;
        // 1,024 bytes and the step, until 4,096 are reached.
        const READS_PER_TURN: usize = 4;
        let reads: Arc<[AtomicUsize]> = (0..FLOODS).map(|_| AtomicUsize::new(0)).collect();
        let all = || -> Vec<_> { reads.iter().map(|one| one.load(Relaxed)).collect() };
        let mut floods = JoinSet::new();
        for number in 0..FLOODS {
            let reads = reads.clone();
            floods.spawn(async move {
                let mut stream = InTurns::new(Endless, 4096);
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok() {
                    reads[number].fetch_add(1, Relaxed);
                }
            });
        }
        // The floods begin.
        tokio::task::yield_now().await;
        let begun = all();
        for _ in 0..ROUNDS {
            let before = all();
            tokio::task::yield_now().await;
            for (before, after) in before.iter().zip(all()) {
                assert!(after - before <= READS_PER_TURN, "{before} to {after}");
            }
        }
        for (begun, after) in begun.iter().zip(all()) {
            assert_eq!(after - begun, ROUNDS * READS_PER_TURN, "none is starved");
        }
    }

    #[tokio::test]
    async fn a_task_whose_turn_is_over_runs_behind_a_socket_that_is_readable() {
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
            turn.go_on().await;
            ran.lock().unwrap().push("flood");
            assert!(!turn.is_over(), "the next turn has begun");
        });
        flood.await.unwrap();
        neighbour.await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["neighbour", "flood"]);
    }

    #[tokio::test]
    async fn a_turn_ends_when_the_peer_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = InTurns::new(near, 2 * STEP_BYTES);
        for _ in 0..100 {
            far.write_u8(1).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 1);
            let mut buffer = [0];
            // Nothing is there: the wait is the end of the turn.
            tokio::select! {
                biased;
                _ = stream.read(&mut buffer) => panic!("nothing was sent"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(stream.turn.done, 0);
        }
    }
}
