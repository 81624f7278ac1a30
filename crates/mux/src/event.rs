//! What a frame from the peer means to the request it belongs to.

use adit_codec::{HeaderBlock, HttpRequest, HttpResponse, RequestId, ResetCode};
use bytes::Bytes;

/// The head of a request that the peer opens: one variant for each protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenHead {
    /// An HTTP exchange.
    Http(Box<HttpRequest>),
}

/// What happened to a request. In the order in which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer opened a request. The body that rode along is still in the head, its cost is not consumed yet.
    Opened {
        /// The new request.
        id: RequestId,
        /// Its head.
        head: OpenHead,
        /// The peer's direction is over already.
        end: bool,
    },
    /// The answer's head, final or interim. The body that rode along is in it, its cost is not consumed yet.
    Answer {
        /// The request.
        id: RequestId,
        /// The head.
        head: Box<HttpResponse>,
        /// The peer's direction is over.
        end: bool,
    },
    /// Payload. Give `cost` back with [`crate::Mux::consume`] once it has left.
    Data {
        /// The request.
        id: RequestId,
        /// A slice of the frame.
        data: Bytes,
        /// What it costs.
        cost: u64,
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
    /// A sender that was told to wait may try again.
    Writable {
        /// The request.
        id: RequestId,
    },
    /// The peer wants no more of our direction, which is over now.
    Stopped {
        /// The request.
        id: RequestId,
        /// Why.
        code: ResetCode,
    },
    /// Both directions are over. The request is gone.
    Reset {
        /// The request.
        id: RequestId,
        /// Why.
        code: ResetCode,
        /// The peer said so; otherwise the peer broke a rule and this end reset it.
        by_peer: bool,
        /// For the log.
        reason: Bytes,
    },
    /// The link's own business, encoded.
    Control(Bytes),
}
