//! Bodies of the tunnel connection: a lane's outbound side, or a generated message.

use std::{
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll, ready},
};

use adit_codec::Batch;
use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tonic::{Code, Status};

use super::status::with_reason;
use crate::{
    failure::Failure,
    transport::{TransportError, TransportReader, TransportWriter},
};

/// The content of one DATA frame.
#[derive(Debug)]
pub enum TunnelData {
    /// A generated message.
    Bytes(Bytes),
    /// A batch of a data stream, written at once without being joined.
    Batch(Batch),
}

impl Buf for TunnelData {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::Batch(batch) => batch.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::Batch(batch) => batch.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.chunks_vectored(slices),
            Self::Batch(batch) => batch.chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Batch(batch) => batch.advance(count),
        }
    }
}

/// The body of a request or response on the tunnel connection.
pub struct TunnelBody(Kind);

enum Kind {
    Generated(tonic::body::Body),
    Lane {
        outbound: TransportWriter,
        /// Whether the stream ends with trailers: a server sends its status in them, a client only ends the stream.
        trailers: bool,
    },
    Done,
}

impl TunnelBody {
    pub(super) const fn generated(body: tonic::body::Body) -> Self {
        Self(Kind::Generated(body))
    }

    pub(super) const fn lane(outbound: TransportWriter, trailers: bool) -> Self {
        Self(Kind::Lane { outbound, trailers })
    }
}

impl Body for TunnelBody {
    type Data = TunnelData;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<TunnelData>, Status>>> {
        let frame = match &mut self.0 {
            Kind::Generated(body) => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                return Poll::Ready(frame.map(|frame| Ok(frame?.map_data(TunnelData::Bytes))));
            }
            Kind::Lane { outbound, trailers } => match ready!(outbound.poll_batch(cx)) {
                Some(batch) => return Poll::Ready(Some(Ok(Frame::data(TunnelData::Batch(batch))))),
                None => trailers.then(|| Ok(Frame::trailers(end_status(outbound.failure())))),
            },
            Kind::Done => None,
        };
        self.0 = Kind::Done;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Generated(body) => body.is_end_stream(),
            Kind::Lane { .. } => false,
            Kind::Done => true,
        }
    }
}

/// The trailers that end a data stream for its client: status 0 if the client ended it, otherwise the reason with its
/// status (P-1.13).
fn end_status(failure: Option<Failure>) -> HeaderMap {
    let failure = failure.filter(|failure| !failure.is_end_of_peer());
    let status = failure.map_or_else(
        || Status::ok(""),
        |failure| {
            let reason = failure.reason;
            let code = Code::from_i32(reason.grpc_status().into());
            with_reason(Status::new(code, failure.detail), reason.as_str())
        },
    );
    let mut trailers = HeaderMap::new();
    // An invalid header value is left out; the status itself is always valid.
    if status.add_header(&mut trailers).is_err() {
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    trailers
}

/// The bytes of a data stream as received from the connection.
#[derive(Debug)]
pub struct GrpcReader {
    body: Incoming,
}

impl GrpcReader {
    pub(super) const fn new(body: Incoming) -> Self {
        Self { body }
    }
}

impl TransportReader for GrpcReader {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(TransportError(error.to_string()))));
                }
                None => return Poll::Ready(None),
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(data))),
                // Trailers end the peer's direction.
                Err(_) => return Poll::Ready(None),
            }
        }
    }
}
