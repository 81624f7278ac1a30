//! Writers of the messages of the data stream, prefix and envelope included, in ascending field order.

use bytes::BytesMut;

use crate::{
    compressed::Compressed,
    frame::{PREFIX_BYTES, prefix_of},
    head::{EncodedHead, WEBSOCKET_FRAME_FIELD, WebSocketFrame},
    headers::{HeaderBlock, put_header},
    id::{MessageType, RequestId, ResetCode},
    wire::{Put, put_bytes, put_uint, put_varint, varint_len},
};

pub(crate) const TRAILERS_FIELD: u8 = 14;
pub(crate) const WINDOW_FIELD: u8 = 15;
pub(crate) const STOP_SENDING_FIELD: u8 = 16;
pub(crate) const RESET_FIELD: u8 = 17;
pub(crate) const DATAGRAM_FIELD: u8 = 20;
pub(crate) const CONTROL_FIELD: u8 = 21;
pub(crate) const CHUNK_FIELD: u8 = 31;

/// The longest datagram (P-11.1): the largest payload of UDP over IPv4.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// The longest start of a message: prefix (5), id (11), types (4), end (2), compression fields (10), and a frame's
/// field with its numbers (50).
const START_BYTES: usize = 88;

/// A message up to its payload. It is gathered here, where writing a number is a store or two, and appended to the
/// block at once.
struct Start {
    bytes: [u8; START_BYTES],
    length: usize,
}

impl Start {
    /// A message with room for the prefix, and the envelope's fields except its payload.
    fn new(id: RequestId, protocol: u8, message_type: MessageType, end_stream: bool) -> Self {
        let mut start = Self {
            bytes: [0; START_BYTES],
            length: PREFIX_BYTES,
        };
        put_uint(&mut start, 1, id.value());
        put_uint(&mut start, 2, u64::from(protocol));
        put_uint(&mut start, 3, u64::from(message_type.to_wire()));
        put_uint(&mut start, 4, u64::from(end_stream));
        start
    }

    /// Key and length of a payload field.
    fn put_field(&mut self, field: u8, length: usize) {
        put_varint(self, u64::from(field) << 3 | 2);
        put_varint(self, length as u64);
    }

    /// Appends the message to `out`, after the prefix, whose length includes the `following` bytes.
    fn finish(mut self, out: &mut BytesMut, following: usize) {
        let prefix = prefix_of(self.length - PREFIX_BYTES + following);
        self.bytes[..PREFIX_BYTES].copy_from_slice(&prefix);
        out.extend_from_slice(&self.bytes[..self.length]);
    }
}

impl Put for Start {
    fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn slice(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        self.bytes[self.length..end].copy_from_slice(bytes);
        self.length = end;
    }
}

/// A head, its headers and the first part of the body.
pub fn write_head(out: &mut BytesMut, id: RequestId, head: &EncodedHead, end_stream: bool) {
    let start = Start::new(id, head.protocol.to_wire(), head.message_type, end_stream);
    start.finish(out, head.field.len());
    out.extend_from_slice(&head.field);
}

/// The message of a chunk without its `length` payload bytes, which follow by reference.
pub fn write_chunk_prefix(out: &mut BytesMut, id: RequestId, length: usize, end_stream: bool) {
    let mut start = Start::new(id, 0, MessageType::StreamChunk, end_stream);
    start.put_field(CHUNK_FIELD, length);
    start.finish(out, length);
}

/// The message of a frame without the first `length` bytes of its payload, which follow by reference.
pub fn write_frame_prefix(
    out: &mut BytesMut,
    id: RequestId,
    frame: WebSocketFrame,
    length: usize,
    end_stream: bool,
) {
    let mut start = Start::new(id, 0, MessageType::Frame, end_stream);
    put_frame(&mut start, frame, length);
    start.finish(out, length);
}

/// The message of a chunk or a frame with compressed payload, without the `length` compressed bytes, which follow by
/// reference.
pub fn write_compressed_prefix(
    out: &mut BytesMut,
    id: RequestId,
    compressed: Compressed,
    frame: Option<WebSocketFrame>,
    length: usize,
    end_stream: bool,
) {
    let message_type = match frame {
        Some(_) => MessageType::Frame,
        None => MessageType::StreamChunk,
    };
    let mut start = Start::new(id, 0, message_type, end_stream);
    compressed.put(&mut start);
    match frame {
        // The fields are not ascending, because the payload must be last. A frame is read as a whole in any case.
        Some(frame) => put_frame(&mut start, frame, length),
        None => start.put_field(CHUNK_FIELD, length),
    }
    start.finish(out, length);
}

/// A frame's field up to its payload.
fn put_frame(out: &mut Start, frame: WebSocketFrame, length: usize) {
    // The values are masked to the bits of a frame: the length written before assumes that.
    let (rsv, opcode) = (frame.rsv & 0x7, frame.opcode & 0xf);
    let small = [u64::from(rsv), u64::from(opcode)];
    let mut head = 2 * small.iter().filter(|value| **value != 0).count();
    head += if frame.fin { 2 } else { 0 };
    for number in [frame.length, length as u64] {
        head += if number == 0 {
            0
        } else {
            1 + varint_len(number)
        };
    }
    out.put_field(WEBSOCKET_FRAME_FIELD, head + length);
    put_uint(out, 1, u64::from(frame.fin));
    put_uint(out, 2, u64::from(rsv));
    put_uint(out, 3, u64::from(opcode));
    put_uint(out, 4, frame.length);
    if length > 0 {
        out.put_field(5, length);
    }
}

/// The message of a datagram without its `length` bytes, which follow by reference.
pub fn write_datagram_prefix(out: &mut BytesMut, id: RequestId, length: usize) {
    let mut start = Start::new(id, 0, MessageType::Datagram, false);
    start.put_field(DATAGRAM_FIELD, length);
    start.finish(out, length);
}

/// The plain end of a direction.
pub fn write_end(out: &mut BytesMut, id: RequestId) {
    Start::new(id, 0, MessageType::StreamChunk, true).finish(out, 0);
}

/// Trailers, which end a direction.
pub fn write_trailers(out: &mut BytesMut, id: RequestId, trailers: &HeaderBlock) {
    let mut content = Vec::with_capacity(trailers.wire_len());
    for (name, value) in trailers.lines() {
        put_header(&mut content, 1, name, value);
    }
    let mut start = Start::new(id, 0, MessageType::Trailers, true);
    start.put_field(TRAILERS_FIELD, content.len());
    start.finish(out, content.len());
    out.extend_from_slice(&content);
}

/// Credit: both absolute offsets (P-4.2).
pub fn write_window(out: &mut BytesMut, id: RequestId, limit: u64, consumed: u64) {
    let mut length = 1 + varint_len(limit);
    if consumed != 0 {
        length += 1 + varint_len(consumed);
    }
    let mut start = Start::new(id, 0, MessageType::Window, false);
    start.put_field(WINDOW_FIELD, length);
    start.byte(1 << 3);
    put_varint(&mut start, limit);
    put_uint(&mut start, 2, consumed);
    start.finish(out, 0);
}

/// Requests the end of the peer's direction.
pub fn write_stop_sending(out: &mut BytesMut, id: RequestId, code: ResetCode) {
    let mut start = Start::new(id, 0, MessageType::StopSending, false);
    let length = if code == ResetCode::Unspecified { 0 } else { 2 };
    start.put_field(STOP_SENDING_FIELD, length);
    put_uint(&mut start, 1, u64::from(code.to_wire()));
    start.finish(out, 0);
}

/// Ends both directions. The reason is for the peer's log and is cut at 256 bytes. With `in_order` the peer delivers
/// everything sent before it (P-6.2).
pub fn write_reset(
    out: &mut BytesMut,
    id: RequestId,
    code: ResetCode,
    reason: &str,
    in_order: bool,
) {
    let mut end = reason.len().min(256);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut content = Vec::with_capacity(end + 10);
    put_uint(&mut content, 1, u64::from(code.to_wire()));
    put_bytes(&mut content, 2, &reason.as_bytes()[..end]);
    put_uint(&mut content, 3, u64::from(in_order));
    let mut start = Start::new(id, 0, MessageType::Reset, false);
    start.put_field(RESET_FIELD, content.len());
    start.finish(out, content.len());
    out.extend_from_slice(&content);
}

/// A control message, already encoded.
pub fn write_control(out: &mut BytesMut, control: &[u8]) {
    let protocol = crate::ProtocolType::Control.to_wire();
    let mut start = Start::new(RequestId::STREAM, protocol, MessageType::Control, false);
    start.put_field(CONTROL_FIELD, control.len());
    start.finish(out, control.len());
    out.extend_from_slice(control);
}

#[cfg(test)]
#[cfg(not(adit_loom))]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> BytesMut {
        let mut out = BytesMut::new();
        write(&mut out);
        out
    }

    #[test]
    fn messages_are_these_bytes() {
        let id = RequestId::new(2);
        assert_eq!(
            written(|out| write_end(out, id))[..],
            [0, 0, 0, 0, 6, 8, 2, 0x18, 3, 0x20, 1]
        );
        assert_eq!(
            written(|out| write_chunk_prefix(out, id, 300, false))[..],
            [0, 0, 0, 1, 0x34, 8, 2, 0x18, 3, 0xfa, 1, 0xac, 2]
        );
        assert_eq!(
            written(|out| write_window(out, id, 1, 0))[..],
            [0, 0, 0, 0, 8, 8, 2, 0x18, 5, 0x7a, 2, 8, 1]
        );
        assert_eq!(
            written(|out| write_window(out, id, 0, 128))[..],
            [0, 0, 0, 0, 11, 8, 2, 0x18, 5, 0x7a, 5, 8, 0, 0x10, 0x80, 1]
        );
        assert_eq!(
            written(|out| write_stop_sending(out, id, ResetCode::Unspecified))[..],
            [0, 0, 0, 0, 7, 8, 2, 0x18, 6, 0x82, 1, 0]
        );
        assert_eq!(
            written(|out| write_control(out, b"c"))[..],
            [0, 0, 0, 0, 8, 0x10, 6, 0x18, 11, 0xaa, 1, 1, b'c']
        );
    }

    #[test]
    fn no_envelope_is_longer_than_its_room() {
        let mut start = Start::new(RequestId::new(u64::MAX), u8::MAX, MessageType::Frame, true);
        let compressed = Compressed {
            by: crate::Compression::Zstd,
            inflated_bytes: u32::MAX,
        };
        compressed.put(&mut start);
        let frame = WebSocketFrame {
            fin: true,
            rsv: u8::MAX,
            opcode: u8::MAX,
            length: u64::MAX,
        };
        // No payload is this long; its lengths take nine bytes each instead of three.
        put_frame(&mut start, frame, usize::MAX >> 1);
        assert!(start.length <= START_BYTES, "{}", start.length);
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let reason = |text: &str| {
            let out =
                written(|out| write_reset(out, RequestId::new(2), ResetCode::Limit, text, false));
            let at = out.windows(2).position(|pair| pair == [8, 9]).unwrap();
            let reason = out[at + 2..].to_vec();
            assert_eq!(reason[0], 0x12);
            reason.len() - if reason[1] < 0x80 { 2 } else { 3 }
        };
        assert_eq!(reason(&"a".repeat(256)), 256);
        assert_eq!(reason(&"a".repeat(257)), 256);
        assert_eq!(reason(&"é".repeat(128)), 256);
        assert_eq!(reason(&format!("a{}", "é".repeat(200))), 255);
        assert_eq!(reason("why"), 3);
    }
}
