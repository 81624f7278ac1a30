//! The parts that the task of a request receives.

use adit_codec::{HeaderBlock, ResponseHead, WebSocketFrame};
use bytes::Bytes;

use crate::payload::Payload;

/// A message of the peer for a request.
#[derive(Debug)]
pub enum Part {
    /// The head of the response, interim or final; the body in its message follows as [`Part::Data`].
    Response(ResponseHead),
    /// Payload. Dropping it returns its credit.
    Data(Payload),
    /// A WebSocket frame and the payload in its message, which may be empty; the rest follows as [`Part::Data`].
    Frame(WebSocketFrame, Payload),
    /// A UDP datagram. It costs no credit; a datagram that is not taken in time is dropped.
    Datagram(Bytes),
    /// Trailers, the last part.
    Trailers(HeaderBlock),
}
