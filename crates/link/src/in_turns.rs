//! HTTP/2 connections that are read in turns.
//!
//! hyper and h2 parse all bytes of a read before any other task runs: 64 KiB of empty frames take some milliseconds.
//! The pacer needs no change in either: it taps the stream, follows the frames ([`Frames`]), makes reads smaller while
//! frames are small ([`Turn::read`]), and ends a connection whose frames have no content ([`Overhead`]).

use std::{
    io,
    task::{Context, Poll, ready},
};

use adit_net::Tap;
use tokio::io::{AsyncRead, ReadBuf};

use crate::{
    frames::{Frames, Piece},
    overhead::Overhead,
    turn::{Turn, poll_read_at_most},
};

/// The turns of one HTTP/2 connection.
#[derive(Debug, Clone)]
pub struct FramePacer {
    turn: Turn,
    frames: Frames,
    overhead: Overhead,
}

impl FramePacer {
    /// The pacer of a connection on which frames of a client are received, in turns of `limit` bytes.
    pub fn of_client(limit: usize) -> Self {
        Self::new(limit, Frames::of_client())
    }

    /// The pacer of a connection on which frames of a server are received, in turns of `limit` bytes.
    pub fn of_server(limit: usize) -> Self {
        Self::new(limit, Frames::of_server())
    }

    fn new(limit: usize, frames: Frames) -> Self {
        Self {
            turn: Turn::new(limit),
            frames,
            overhead: Overhead::new(),
        }
    }

    /// Reads from `stream`, once the turn allows it.
    ///
    /// # Errors
    /// Returns the errors of the stream; [`TooMuchOverhead`](crate::overhead::TooMuchOverhead) as `InvalidData`.
    pub fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.turn.poll_yield(cx));
        let before = buffer.filled().len();
        let limit = self.turn.read_limit();
        let Poll::Ready(read) = poll_read_at_most(stream, cx, buffer, limit) else {
            self.turn.end();
            return Poll::Pending;
        };
        read?;
        let bytes = buffer.filled().get(before..).unwrap_or_default();
        let mut frames = 0;
        let mut allowed = Ok(());
        self.frames.on_bytes(bytes, |piece| {
            if let Piece::Head(head) = piece {
                frames += 1;
                if allowed.is_ok() {
                    allowed = self.overhead.on_frame(head);
                }
            }
        });
        self.turn.read(bytes.len(), frames);
        Poll::Ready(allowed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    /// Counts sent bytes: they pay off overhead.
    pub const fn on_written(&mut self, bytes: usize) {
        self.overhead.on_content(bytes as u64);
    }
}

impl Tap for FramePacer {
    fn poll_read<S: AsyncRead + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_read(stream, cx, buffer)
    }

    fn on_written(&mut self, bytes: usize) {
        self.on_written(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use adit_net::Tapped;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _},
        task::JoinSet,
    };

    use super::*;
    use crate::{
        overhead::TooMuchOverhead,
        turn::{STEP_BYTES, TURN_BYTES},
    };

    /// A stream on which frames of a server are received.
    fn paced<S>(stream: S, limit: usize) -> Tapped<S, FramePacer> {
        Tapped::new(stream, FramePacer::of_server(limit))
    }

    /// An endless source: DATA frames of 1,024 bytes.
    struct Endless;

    impl AsyncRead for Endless {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let room = buffer.remaining();
            for frame in buffer.initialize_unfilled_to(room).chunks_mut(1024) {
                frame.fill(0);
                // A DATA frame (type 0) with a length of 1,015.
                frame[1] = 3;
                frame[2] = 0xf7;
            }
            buffer.advance(room);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn floods_and_their_neighbours_take_turns() {
        const FLOODS: usize = 20;
        const ROUNDS: usize = 50;
        // Each read counts as its 1,024 bytes and one step, and a turn ends at 4,096.
        const READS_PER_TURN: usize = 4;
        let reads: Arc<[AtomicUsize]> = (0..FLOODS).map(|_| AtomicUsize::new(0)).collect();
        let all = || -> Vec<_> { reads.iter().map(|one| one.load(Relaxed)).collect() };
        let mut floods = JoinSet::new();
        for number in 0..FLOODS {
            let reads = reads.clone();
            floods.spawn(async move {
                let mut stream = paced(Endless, 4096);
                let mut buffer = [0; 1024];
                while stream.read(&mut buffer).await.is_ok() {
                    reads[number].fetch_add(1, Relaxed);
                }
            });
        }
        // The flooding tasks begin.
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
    async fn a_turn_ends_when_the_peer_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = paced(near, 8 * STEP_BYTES);
        for _ in 0..100 {
            far.write_u8(1).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), 1);
            let mut buffer = [0];
            // No bytes are available: the wait ends the turn.
            tokio::select! {
                biased;
                _ = stream.read(&mut buffer) => panic!("nothing was sent"),
                () = std::future::ready(()) => {}
            }
            assert_eq!(stream.tap().turn, Turn::new(8 * STEP_BYTES));
        }
    }

    #[tokio::test]
    async fn flooded_empty_frames_are_read_in_small_parts_then_refused() {
        // A frame with length 0, an unassigned type, and stream 0.
        const UNKNOWN: [u8; 9] = [0, 0, 0, 0xfe, 0, 0, 0, 0, 0];
        let flood = UNKNOWN.repeat(10_000);
        let mut stream = paced(&flood[..], TURN_BYTES);
        let mut buffer = vec![0; TURN_BYTES];
        let mut reads = Vec::new();
        let error = loop {
            match stream.read(&mut buffer).await {
                Ok(read) => reads.push(read),
                Err(error) => break error,
            }
        };
        // Only the first read is as large as the buffer.
        assert!(reads.len() <= 1, "{reads:?}");
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        assert_eq!(inner, Some(&TooMuchOverhead));
    }

    #[tokio::test]
    async fn small_frames_are_read_in_small_parts() {
        // DATA frames of one byte.
        let small = [0, 0, 1, 0, 0, 0, 0, 0, 1, 7].repeat(20_000);
        let mut stream = paced(&small[..], TURN_BYTES);
        let mut buffer = vec![0; TURN_BYTES];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), TURN_BYTES);
        for _ in 0..20 {
            let read = stream.read(&mut buffer).await.unwrap();
            assert!(read <= TURN_BYTES * 10 / STEP_BYTES + 10, "{read}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_pays_for_windows() {
        let windows = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 1, 0].repeat(20_000);
        let near = tokio::io::join(&windows[..], tokio::io::sink());
        let mut stream = paced(near, TURN_BYTES);
        let mut buffer = vec![0; 13 * 100];
        let response = vec![7; 100 * 1024];
        while stream.read(&mut buffer).await.unwrap() > 0 {
            poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, &response))
                .await
                .unwrap();
        }
    }
}
