//! Bodies of which every byte can be checked, and bodies that are sent on request.

use std::{
    io,
    pin::Pin,
    sync::OnceLock,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use tokio::sync::mpsc;

/// A body of any kind.
pub type Body = BoxBody<Bytes, io::Error>;

/// The period of the pattern, a prime number, so that a lost, doubled or swapped piece of any usual size is detected.
const PERIOD: usize = 65_521;

/// The largest piece of the pattern at a time.
const PIECE: usize = 32 * 1024;

fn block() -> &'static Bytes {
    static BLOCK: OnceLock<Bytes> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut state = 0x9E37_79B9_u32;
        let mut bytes = Vec::with_capacity(PERIOD + PIECE);
        for _ in 0..PERIOD {
            // xorshift (Marsaglia, 2003)
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            bytes.push(state.to_be_bytes()[0]);
        }
        bytes.extend_from_within(..PIECE);
        bytes.into()
    })
}

/// The bytes of the pattern that begin at `offset`, at most `longest` and at most 32 KiB.
#[must_use]
pub fn piece(offset: u64, longest: u64) -> Bytes {
    let start = usize::try_from(offset % PERIOD as u64).unwrap_or_default();
    let length = usize::try_from(longest).unwrap_or(PIECE).min(PIECE);
    block().slice(start..start + length)
}

/// Reads a body, compares it with the pattern, and returns its length.
///
/// # Errors
/// The error of reading, or the position where the body differs.
pub async fn checked<B>(mut body: B) -> Result<u64, String>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut offset = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("after {offset} bytes: {error}"))?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        while data.has_remaining() {
            let expected = piece(offset, data.len() as u64);
            if data[..expected.len()] != expected {
                return Err(format!("other bytes than were sent, near {offset}"));
            }
            offset += expected.len() as u64;
            data.advance(expected.len());
        }
    }
    Ok(offset)
}

struct Pattern {
    offset: u64,
    length: u64,
    sized: bool,
}

impl HttpBody for Pattern {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.offset == self.length {
            return Poll::Ready(None);
        }
        let piece = piece(self.offset, self.length - self.offset);
        self.offset += piece.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        if self.sized {
            SizeHint::with_exact(self.length - self.offset)
        } else {
            SizeHint::default()
        }
    }

    fn is_end_stream(&self) -> bool {
        self.offset == self.length
    }
}

/// `length` bytes of the pattern, with a known length (`sized`) or without.
#[must_use]
pub fn pattern(length: u64, sized: bool) -> Body {
    BoxBody::new(Pattern {
        offset: 0,
        length,
        sized,
    })
}

/// A body with these bytes.
#[must_use]
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// An empty body.
#[must_use]
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// Any other body as a [`Body`], with its errors converted.
#[must_use]
pub fn body_of<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Sync + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    body.map_err(io::Error::other).boxed()
}

/// Feeds a body.
#[derive(Debug, Clone)]
pub struct Feeder(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

impl Feeder {
    /// Sends data; returns false when the body is not read any more.
    pub async fn send(&self, data: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(data.into()))).await.is_ok()
    }

    /// Sends trailers; nothing may follow.
    pub async fn trailers(&self, trailers: HeaderMap) -> bool {
        self.0.send(Ok(Frame::trailers(trailers))).await.is_ok()
    }

    /// Aborts the body.
    pub async fn abort(self) {
        let error = io::Error::other("broken off on purpose");
        let _ = self.0.send(Err(error)).await;
    }

    /// Waits until the body is not read any more.
    pub async fn unwanted(&self) {
        self.0.closed().await;
    }
}

struct Fed(mpsc::Receiver<Result<Frame<Bytes>, io::Error>>);

impl HttpBody for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx)
    }
}

/// A body without a known length, and its feeder. Dropping the last feeder ends it.
#[must_use]
pub fn feed() -> (Feeder, Body) {
    let (sender, receiver) = mpsc::channel(1);
    (Feeder(sender), BoxBody::new(Fed(receiver)))
}
