//! What the task of a request receives.

use adit_codec::{HeaderBlock, ResponseHead, WebSocketFrame};
use bytes::Bytes;

use crate::payload::Payload;

/// One thing the peer sent for a request.
#[derive(Debug)]
pub enum Part {
    /// The answer's head, interim or final; the body that rode along follows as [`Part::Data`].
    Response(ResponseHead),
    /// Payload. Dropping it gives its credit back.
    Data(Payload),
    /// A WebSocket frame and the payload that rode along, which may be empty; the rest follows as [`Part::Data`].
    Frame(WebSocketFrame, Payload),
    /// A UDP datagram. It costs no credit; those that nobody takes in time are dropped.
    Datagram(Bytes),
    /// Trailers, the last part.
    Trailers(HeaderBlock),
}
