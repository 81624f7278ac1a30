//! Closes a stream on which bytes of the visitor are unread.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use adit_link::{Timer, Turn};
use adit_net::Stream;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    time::Instant,
};

/// A visitor that has not read the last response yet may continue to send for this long before the socket is closed:
/// closing a socket with unread bytes sends a reset, which destroys the response in transit (RFC 9112, 9.6).
const LINGER: Duration = Duration::from_secs(2);

/// The most bytes that are read and dropped in this time.
const LINGER_BYTES: usize = 4 << 20;

/// The bound of [`LINGER_BYTES`] for a visitor whose bytes were rejected: enough for the bytes in transit when the
/// response was sent.
const REFUSED_LINGER_BYTES: usize = 256 * 1024;

/// Reads and drops the rest of the visitor's bytes.
pub(super) struct Linger {
    until: Instant,
    timer: Timer,
    buffer: Box<[u8]>,
    left: usize,
}

impl Linger {
    /// Shuts this side of the stream. `refused`: whether bytes of the stream were rejected.
    pub(super) fn begin(cx: &mut Context<'_>, stream: &mut Stream, refused: bool) -> Self {
        // One system call, which is never pending. TLS sends its alert if there is room for it.
        let _ = Pin::new(stream).poll_shutdown(cx);
        Self {
            until: Instant::now() + LINGER,
            timer: Timer::default(),
            buffer: vec![0; 16 * 1024].into(),
            left: if refused {
                REFUSED_LINGER_BYTES
            } else {
                LINGER_BYTES
            },
        }
    }

    /// Ready when the visitor has ended its side as well, or its time is over.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        turn: &mut Turn,
    ) -> Poll<()> {
        if self.timer.poll(cx, self.until).is_ready() {
            return Poll::Ready(());
        }
        // When enough bytes have been dropped, the rest stays unread until the time is over. A visitor that cannot send
        // more then starts to read; one that could continue to send would receive the reset before the response.
        while self.left > 0 {
            ready!(turn.poll_yield(cx));
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let result = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
            let bytes = buffer.filled().len();
            if result.is_err() || bytes == 0 {
                return Poll::Ready(());
            }
            self.left = self.left.saturating_sub(bytes);
            turn.step(bytes);
        }
        Poll::Pending
    }
}
