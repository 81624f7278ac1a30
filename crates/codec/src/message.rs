//! Writers of the messages of the data stream, prefix and envelope included, in ascending field order.

use bytes::{BufMut, BytesMut};

use crate::{
    compressed::Compressed,
    frame::{PREFIX_BYTES, write_prefix},
    head::{EncodedHead, WEBSOCKET_FRAME_FIELD, WebSocketFrame},
    headers::{HeaderBlock, put_header},
    id::{MessageType, RequestId, ResetCode},
    wire::{length_key, put_bytes, put_uint, put_varint, varint_len},
};

pub(crate) const TRAILERS_FIELD: u8 = 14;
pub(crate) const WINDOW_FIELD: u8 = 15;
pub(crate) const STOP_SENDING_FIELD: u8 = 16;
pub(crate) const RESET_FIELD: u8 = 17;
pub(crate) const DATAGRAM_FIELD: u8 = 20;
pub(crate) const CONTROL_FIELD: u8 = 21;
pub(crate) const CHUNK_FIELD: u8 = 31;

/// The longest datagram (P-11.1): what IPv4 leaves beside its own header and that of UDP.
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// The longest envelope without payload: id (11), types (4), end (2), two-byte key and length (12).
const ENVELOPE_BYTES: usize = 32;

/// Writes the prefix with a gap, then the envelope, then whatever `payload` writes, then fills the gap.
fn write_message(
    out: &mut BytesMut,
    id: RequestId,
    protocol: u8,
    message_type: MessageType,
    end_stream: bool,
    following: usize,
    payload: impl FnOnce(&mut BytesMut),
) {
    out.reserve(PREFIX_BYTES + ENVELOPE_BYTES);
    let prefix_at = out.len();
    write_prefix(out, 0);
    let start = out.len();
    put_uint(out, 1, id.value());
    put_uint(out, 2, u64::from(protocol));
    put_uint(out, 3, u64::from(message_type.to_wire()));
    put_uint(out, 4, u64::from(end_stream));
    payload(out);
    let length = out.len() - start + following;
    debug_assert!(length <= crate::MAX_MESSAGE_BYTES);
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    out[prefix_at + 1..start].copy_from_slice(&length);
}

/// Key of a length-delimited field of two bytes (numbers 16 and above).
fn put_long_key(out: &mut BytesMut, field: u8) {
    put_varint(out, u64::from(field) << 3 | 2);
}

/// A head, its headers and the part of the body that rides in it.
pub fn write_head(out: &mut BytesMut, id: RequestId, head: &EncodedHead, end_stream: bool) {
    let protocol = head.protocol.to_wire();
    write_message(out, id, protocol, head.message_type, end_stream, 0, |out| {
        out.extend_from_slice(&head.field);
    });
}

/// Everything of a chunk's message but its `length` payload bytes, which follow by reference.
pub fn write_chunk_prefix(out: &mut BytesMut, id: RequestId, length: usize, end_stream: bool) {
    write_message(
        out,
        id,
        0,
        MessageType::StreamChunk,
        end_stream,
        length,
        |out| {
            put_long_key(out, CHUNK_FIELD);
            put_varint(out, length as u64);
        },
    );
}

/// Everything of a frame's message but the `length` bytes of its payload that ride in it, which follow by reference.
pub fn write_frame_prefix(
    out: &mut BytesMut,
    id: RequestId,
    frame: WebSocketFrame,
    length: usize,
    end_stream: bool,
) {
    let message_type = MessageType::Frame;
    write_message(out, id, 0, message_type, end_stream, length, |out| {
        put_frame(out, frame, length);
    });
}

/// Everything of a message with compressed payload but the `length` bytes that it is now, which follow by reference:
/// that of a chunk, or that of a frame.
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
    write_message(out, id, 0, message_type, end_stream, length, |out| {
        compressed.put(out);
        match frame {
            // Not ascending, for the payload has to come last. A frame is read as a whole in any case.
            Some(frame) => put_frame(out, frame, length),
            None => {
                put_long_key(out, CHUNK_FIELD);
                put_varint(out, length as u64);
            }
        }
    });
}

/// A frame's field up to its payload.
fn put_frame(out: &mut BytesMut, frame: WebSocketFrame, length: usize) {
    // As many bits as a frame has: the length that goes before them counts on it.
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
    put_long_key(out, WEBSOCKET_FRAME_FIELD);
    put_varint(out, (head + length) as u64);
    put_uint(out, 1, u64::from(frame.fin));
    put_uint(out, 2, u64::from(rsv));
    put_uint(out, 3, u64::from(opcode));
    put_uint(out, 4, frame.length);
    if length > 0 {
        out.put_u8(length_key(5));
        put_varint(out, length as u64);
    }
}

/// Everything of a datagram's message but its `length` bytes, which follow by reference.
pub fn write_datagram_prefix(out: &mut BytesMut, id: RequestId, length: usize) {
    let message_type = MessageType::Datagram;
    write_message(out, id, 0, message_type, false, length, |out| {
        put_long_key(out, DATAGRAM_FIELD);
        put_varint(out, length as u64);
    });
}

/// The plain end of a direction.
pub fn write_end(out: &mut BytesMut, id: RequestId) {
    write_message(out, id, 0, MessageType::StreamChunk, true, 0, |_| {});
}

/// Trailers, which end a direction.
pub fn write_trailers(out: &mut BytesMut, id: RequestId, trailers: &HeaderBlock) {
    write_message(out, id, 0, MessageType::Trailers, true, 0, |out| {
        let mut content = BytesMut::with_capacity(trailers.wire_len());
        for (name, value) in trailers.lines() {
            put_header(&mut content, 1, name, value);
        }
        out.put_u8(length_key(TRAILERS_FIELD));
        put_varint(out, content.len() as u64);
        out.extend_from_slice(&content);
    });
}

/// Credit: both absolute offsets (P-4.2).
pub fn write_window(out: &mut BytesMut, id: RequestId, limit: u64, consumed: u64) {
    let mut length = 1 + varint_len(limit);
    if consumed != 0 {
        length += 1 + varint_len(consumed);
    }
    write_message(out, id, 0, MessageType::Window, false, 0, |out| {
        out.put_u8(length_key(WINDOW_FIELD));
        put_varint(out, length as u64);
        out.put_u8(1 << 3);
        put_varint(out, limit);
        put_uint(out, 2, consumed);
    });
}

/// Asks the peer to end its direction.
pub fn write_stop_sending(out: &mut BytesMut, id: RequestId, code: ResetCode) {
    write_message(out, id, 0, MessageType::StopSending, false, 0, |out| {
        put_long_key(out, STOP_SENDING_FIELD);
        put_varint(out, if code == ResetCode::Unspecified { 0 } else { 2 });
        put_uint(out, 1, u64::from(code.to_wire()));
    });
}

/// Ends both directions. The reason is for the peer's log and is cut at 256 bytes.
pub fn write_reset(out: &mut BytesMut, id: RequestId, code: ResetCode, reason: &str) {
    let mut end = reason.len().min(256);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    write_message(out, id, 0, MessageType::Reset, false, 0, |out| {
        let mut content = BytesMut::with_capacity(end + 8);
        put_uint(&mut content, 1, u64::from(code.to_wire()));
        put_bytes(&mut content, 2, &reason.as_bytes()[..end]);
        put_long_key(out, RESET_FIELD);
        put_varint(out, content.len() as u64);
        out.extend_from_slice(&content);
    });
}

/// A control message, already encoded.
pub fn write_control(out: &mut BytesMut, control: &[u8]) {
    let protocol = crate::ProtocolType::Control.to_wire();
    write_message(
        out,
        RequestId::STREAM,
        protocol,
        MessageType::Control,
        false,
        0,
        |out| {
            put_long_key(out, CONTROL_FIELD);
            put_varint(out, control.len() as u64);
            out.extend_from_slice(control);
        },
    );
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
        let id = RequestId::new(u64::MAX);
        let out = written(|out| write_chunk_prefix(out, id, 1 << 19, true));
        assert!(out.len() <= PREFIX_BYTES + ENVELOPE_BYTES);
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let reason = |text: &str| {
            let out = written(|out| write_reset(out, RequestId::new(2), ResetCode::Limit, text));
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
