//! The body of a request as hyper or h2 read it from the visitor.

use std::{
    error::Error,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_link::{Failure, Reason};
use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// The body of a request as hyper or h2 read it.
pub(crate) enum Inbound {
    /// No body.
    None,
    /// A body that hyper reads.
    Http1(Incoming),
    /// A body that h2 reads.
    Http2(Stream),
}

/// The body of a request on a stream of HTTP/2.
pub(crate) struct Stream {
    recv: RecvStream,
    /// Bytes that have not arrived yet, if the length is known.
    left: Option<u64>,
    /// More data may follow; otherwise trailers only.
    has_data: bool,
    /// A frame that has arrived and has not been read.
    arrived: Option<Box<Arrived>>,
}

type Arrived = Option<Result<Frame<Bytes>, Failure>>;

impl Inbound {
    /// The body after a head of HTTP/2 with these header lines. h2 checks their length.
    pub(crate) fn on_stream(recv: RecvStream, headers: &HeaderMap) -> Self {
        if recv.is_end_stream() {
            return Self::None;
        }
        let length = headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        Self::Http2(Stream {
            recv,
            left: length,
            has_data: true,
            arrived: None,
        })
    }

    /// Waits until a part of a body of HTTP/2 has arrived, or its end. The part remains to be read.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn arrived(&mut self) {
        if let Self::Http2(stream) = self {
            poll_fn(|cx| stream.poll_arrived(cx)).await;
        }
    }
}

impl Stream {
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.arrived.is_none() {
            let arrived = ready!(self.poll_next(cx));
            self.arrived = Some(Box::new(arrived));
        }
        Poll::Ready(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        let arrived = match self.arrived.take() {
            Some(arrived) => *arrived,
            None => ready!(self.poll_next(cx)),
        };
        if let Some(Ok(frame)) = &arrived
            && let Some(data) = frame.data_ref()
        {
            // This fails only for more bytes than have arrived.
            let _ = self.recv.flow_control().release_capacity(data.len());
            if let Some(left) = &mut self.left {
                *left = left.saturating_sub(data.len() as u64);
            }
        }
        Poll::Ready(arrived)
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Arrived> {
        if self.has_data {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Err(error)) => return Poll::Ready(of_stream(&error)),
                None => self.has_data = false,
            }
        }
        Poll::Ready(match ready!(self.recv.poll_trailers(cx)) {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => of_stream(&error),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.arrived.is_none() && self.recv.is_end_stream()
    }
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Arrived> {
        match self.get_mut() {
            Self::None => Poll::Ready(None),
            Self::Http1(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                Poll::Ready(frame.map(|frame| frame.map_err(|error| of_hyper(&error))))
            }
            Self::Http2(stream) => stream.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::None => true,
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::None => SizeHint::with_exact(0),
            Self::Http1(body) => body.size_hint(),
            Self::Http2(stream) => stream
                .left
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// A reset without an error ends the body (RFC 9113, 8.1).
fn of_stream(error: &h2::Error) -> Arrived {
    (error.reason() != Some(h2::Reason::NO_ERROR)).then(|| Err(incomplete()))
}

fn of_hyper(error: &hyper::Error) -> Failure {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>()
            && matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
            )
        {
            return Failure::new(
                Reason::BadRequest,
                format!("invalid framing of the request body: {error}"),
            );
        }
        cause = error.source();
    }
    incomplete()
}

fn incomplete() -> Failure {
    Failure::new(
        Reason::Cancelled,
        "the visitor did not complete its request body",
    )
}
