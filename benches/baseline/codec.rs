//! The way of a generated gRPC service, and the least that any way of copying costs.

use adit_proto::{TunnelMessage, tunnel_message::Payload};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

/// Encodes as a generated service does: prefix, then the message with its payload, into one buffer.
#[derive(Debug, Default)]
pub struct ProstEncoder {
    buffer: BytesMut,
}

impl ProstEncoder {
    /// The bytes of one chunk's message, ready to leave.
    pub fn chunk(&mut self, id: u64, payload: Bytes) -> Bytes {
        let message = TunnelMessage {
            request_id: id,
            message_type: adit_proto::MessageType::StreamChunk.into(),
            payload: Some(Payload::Chunk(payload)),
            ..TunnelMessage::default()
        };
        let length = message.encoded_len();
        self.buffer.reserve(5 + length);
        self.buffer.put_u8(0);
        self.buffer
            .put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        // The buffer has room: encoding cannot fail.
        let _ = message.encode(&mut self.buffer);
        self.buffer.split().freeze()
    }
}

/// Decodes as a generated service does: frames are joined in one buffer, messages are split off it.
#[derive(Debug, Default)]
pub struct ProstDecoder {
    buffer: BytesMut,
}

impl ProstDecoder {
    /// Takes a frame; gives the message that it completes.
    pub fn feed(&mut self, frame: &[u8]) -> Option<TunnelMessage> {
        self.buffer.extend_from_slice(frame);
        let prefix: [u8; 5] = self.buffer.get(..5)?.try_into().ok()?;
        let [_, a, b, c, d] = prefix;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
        if self.buffer.len() < 5 + length {
            return None;
        }
        self.buffer.advance(5);
        TunnelMessage::decode(self.buffer.split_to(length).freeze()).ok()
    }
}

/// Copies a payload once into a buffer that is used again.
#[derive(Debug, Default)]
pub struct Memcpy {
    buffer: Vec<u8>,
}

impl Memcpy {
    /// The copy.
    pub fn copy(&mut self, payload: &[u8]) -> &[u8] {
        self.buffer.clear();
        self.buffer.extend_from_slice(payload);
        &self.buffer
    }
}
