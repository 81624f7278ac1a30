//! The effect of a frame from the peer on its request.

use adit_codec::{
    Compressed, HeaderBlock, RequestHead, RequestId, ResetCode, ResponseHead, WebSocketFrame,
};
use bytes::Bytes;

/// A change of a request. Events are in the order in which the changes happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a request. The body in the head has not been consumed yet.
    Opened {
        /// The new request.
        id: RequestId,
        /// The head of the request.
        head: RequestHead,
        /// The peer's direction is over already.
        end: bool,
    },
    /// The head of the response, final or interim. The body in it has not been consumed yet.
    Response {
        /// The request.
        id: RequestId,
        /// The head.
        head: ResponseHead,
        /// The peer's direction is over.
        end: bool,
    },
    /// Payload. Return `cost` with [`crate::Mux::consume`] once the payload has left the process.
    Data {
        /// The request.
        id: RequestId,
        /// A slice of the frame.
        data: Bytes,
        /// The cost of the payload.
        cost: u64,
        /// The peer's direction is over.
        end: bool,
    },
    /// A WebSocket frame with the payload that it carried. Return `cost` as that of [`Event::Data`].
    Frame {
        /// The request.
        id: RequestId,
        /// The head of the frame.
        frame: WebSocketFrame,
        /// A slice of the transport's frame.
        data: Bytes,
        /// The cost of the payload.
        cost: u64,
        /// The peer's direction is over.
        end: bool,
    },
    /// Payload that was compressed on the hop: that of [`Event::Data`], or of [`Event::Frame`] if there is a frame. Its
    /// cost is that of the inflated payload (P-13.4).
    Compressed {
        /// The request.
        id: RequestId,
        /// The head of the frame whose payload it starts.
        frame: Option<WebSocketFrame>,
        /// The algorithm, and the inflated size.
        compressed: Compressed,
        /// A slice of the transport's frame.
        data: Bytes,
        /// The cost of the frame.
        cost: u64,
        /// The peer's direction is over.
        end: bool,
    },
    /// A UDP datagram. It costs no credit: a receiver without room for it drops it.
    Datagram {
        /// The request.
        id: RequestId,
        /// A slice of the transport's frame.
        data: Bytes,
        /// The peer's direction is over.
        end: bool,
    },
    /// Trailers; the peer's direction is over.
    Trailers {
        /// The request.
        id: RequestId,
        /// The lines.
        trailers: HeaderBlock,
    },
    /// The peer's direction is over.
    End {
        /// The request.
        id: RequestId,
    },
    /// A sender that got [`crate::Sendable::Later`] may try again.
    Writable {
        /// The request.
        id: RequestId,
    },
    /// The peer sent `StopSending` for this end's direction, which is over now.
    Stopped {
        /// The request.
        id: RequestId,
        /// The code.
        code: ResetCode,
    },
    /// Both directions are over. The request is gone.
    Reset {
        /// The request.
        id: RequestId,
        /// The code.
        code: ResetCode,
        /// Whether the peer reset the request; otherwise the peer violated a rule and this end reset the request.
        by_peer: bool,
        /// The reason, for the log.
        reason: Bytes,
        /// The peer's direction broke off at this place: everything before it is still to be delivered (P-6.2).
        in_order: bool,
    },
    /// A control message, encoded.
    Control(Bytes),
}
