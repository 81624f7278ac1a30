//! A decoded message: its request, whether it ends the sender's direction, and its payload.

use bytes::Bytes;

use crate::{
    compressed::Compressed,
    error::BadMessage,
    head::{RequestHead, ResponseHead, WebSocketFrame},
    headers::HeaderBlock,
    id::{ProtocolType, RequestId, ResetCode},
};

/// A message, or one part of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The request that the message belongs to.
    pub id: RequestId,
    /// The sender's direction ends here. For a chunk in parts: set on the last part only.
    pub end_stream: bool,
    /// The payload of the message.
    pub payload: Payload,
}

/// The payload of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// No payload: the plain end.
    None,
    /// Opens a request.
    Request(RequestHead),
    /// The head of a response.
    Response(ResponseHead),
    /// Payload bytes.
    Chunk {
        /// A slice of the frame.
        data: Bytes,
        /// The first part of the message: a message is charged once.
        first: bool,
        /// The last part of the message.
        last: bool,
    },
    /// A WebSocket frame. The rest of its payload follows in chunks.
    Frame {
        /// The head of the frame.
        frame: WebSocketFrame,
        /// The start of the payload, or all of it.
        data: Bytes,
    },
    /// Payload that was compressed on this hop, complete: of a chunk, or the start of a frame's.
    Compressed {
        /// The algorithm, and the inflated size.
        compressed: Compressed,
        /// The frame's head.
        frame: Option<WebSocketFrame>,
        /// The compressed bytes.
        data: Bytes,
    },
    /// A UDP datagram.
    Datagram(Bytes),
    /// Trailers.
    Trailers(HeaderBlock),
    /// Credit.
    Window {
        /// Absolute limit.
        limit: u64,
        /// Absolute offset up to which cost has left the receiver.
        consumed: u64,
    },
    /// The peer requests the end of our direction.
    StopSending(ResetCode),
    /// Both directions are over.
    Reset {
        /// The code.
        code: ResetCode,
        /// The reason, for the log.
        reason: Bytes,
        /// The peer's direction broke off here: everything before it is delivered first.
        in_order: bool,
    },
    /// A control message, still encoded.
    Control(Bytes),
    /// A message that is invalid; only its request fails (P-2.4).
    Bad(BadMessage),
}

impl Payload {
    /// Whether a request of this protocol may have such a payload. Messages of credit and ends are allowed for all.
    pub const fn fits(&self, protocol: ProtocolType) -> bool {
        match self {
            Self::Response(head) => head.responds_to(protocol),
            Self::Chunk { .. } | Self::Compressed { frame: None, .. } => {
                !matches!(protocol, ProtocolType::Udp)
            }
            Self::Frame { .. } | Self::Compressed { .. } => {
                matches!(protocol, ProtocolType::WebSocket)
            }
            Self::Datagram(_) => matches!(protocol, ProtocolType::Udp),
            Self::Trailers(_) => matches!(protocol, ProtocolType::Http | ProtocolType::Grpc),
            Self::Request(_) | Self::Control(_) | Self::Bad(_) => false,
            Self::None | Self::Window { .. } | Self::StopSending(_) | Self::Reset { .. } => true,
        }
    }
}
