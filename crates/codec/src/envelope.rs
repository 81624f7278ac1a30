//! What a message is once it has been read: its request, whether its sender's direction ends, and what it carries.

use bytes::Bytes;

use crate::{
    compressed::Compressed,
    error::BadMessage,
    head::{RequestHead, ResponseHead, WebSocketFrame},
    headers::HeaderBlock,
    id::{ProtocolType, RequestId, ResetCode},
};

/// One message, or one part of a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Which request.
    pub id: RequestId,
    /// The sender's direction ends here. For a chunk in parts: set on the last part only.
    pub end_stream: bool,
    /// What it carries.
    pub payload: Payload,
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// Nothing: the plain end.
    None,
    /// Opens a request.
    Request(RequestHead),
    /// Responds to it.
    Response(ResponseHead),
    /// Payload bytes.
    Chunk {
        /// A slice of the frame.
        data: Bytes,
        /// The first part of its message: the cost of a message is due once.
        first: bool,
        /// The last part of its message.
        last: bool,
    },
    /// A WebSocket frame. What of its payload did not ride along follows in chunks.
    Frame {
        /// Its head.
        frame: WebSocketFrame,
        /// The start of its payload, or all of it.
        data: Bytes,
    },
    /// Payload that was compressed on this hop, whole: of a chunk, or the start of a frame's.
    Compressed {
        /// How, and its length before.
        compressed: Compressed,
        /// The frame's head.
        frame: Option<WebSocketFrame>,
        /// What it is now: shorter than before.
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
        /// Absolute offset of what has left the receiver.
        consumed: u64,
    },
    /// End your direction, please.
    StopSending(ResetCode),
    /// Both directions are over.
    Reset {
        /// Why.
        code: ResetCode,
        /// For the log.
        reason: Bytes,
        /// The peer's direction broke off here: what came before it is to be delivered first.
        in_order: bool,
    },
    /// The link's own business, still encoded.
    Control(Bytes),
    /// A message that its request cannot survive (P-2.4).
    Bad(BadMessage),
}

impl Payload {
    /// Whether a request of this protocol may carry it. What concerns credit and ends, any may.
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
