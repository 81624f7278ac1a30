//! Finds a chunk without decoding the whole message: most messages are chunks, and most of a chunk is payload.

use crate::{
    id::{MessageType, RequestId},
    message::CHUNK_FIELD,
    wire::{LENGTH_DELIMITED, Reader, Value, low_32},
};

/// The key of a chunk, a varint of two bytes.
const CHUNK_KEY: [u8; 2] = [
    (CHUNK_FIELD << 3) | LENGTH_DELIMITED | 0x80,
    CHUNK_FIELD >> 4,
];

/// The envelope of a chunk, and the offset of its payload in the message.
pub(super) struct ChunkStart {
    pub(super) id: RequestId,
    pub(super) end_stream: bool,
    pub(super) payload_at: usize,
}

/// Reads a complete message that is a chunk in the form of the encoder of this crate: id, type, the end if it is set,
/// the chunk, in this order and nothing else. The general decoder (`message`) returns the same.
pub(super) fn written_chunk(message: &[u8]) -> Option<ChunkStart> {
    const ID_KEY: u8 = 1 << 3;
    const TYPE: [u8; 2] = [3 << 3, MessageType::StreamChunk.to_wire()];
    const END: [u8; 2] = [4 << 3, 1];
    let mut reader = Reader::new(message);
    if !reader.skip_exactly([ID_KEY]) {
        return None;
    }
    let id = reader.varint().ok()?;
    if !reader.skip_exactly(TYPE) {
        return None;
    }
    let end_stream = reader.skip_exactly(END);
    if !reader.skip_exactly(CHUNK_KEY) {
        return None;
    }
    let length = reader.length().ok()?;
    let payload_at = reader.offset();
    (payload_at.checked_add(length) == Some(message.len())).then_some(ChunkStart {
        id: RequestId::new(id),
        end_stream,
        payload_at,
    })
}

/// Reads the start of a message of `length` bytes; finds the chunk if id and type precede it and the chunk is the last
/// field.
pub(super) fn scan_chunk(start: &[u8], length: usize) -> Option<ChunkStart> {
    let mut reader = Reader::new(start);
    let (mut id, mut message_type, mut end_stream) = (0, 0, 0);
    loop {
        let (field, wire_type) = reader.key().ok()??;
        if field == u64::from(CHUNK_FIELD) && wire_type == LENGTH_DELIMITED {
            let chunk = reader.length().ok()?;
            let payload_at = reader.offset();
            let fills = payload_at.checked_add(chunk) == Some(length);
            let is_chunk =
                message_type == 0 || message_type == u64::from(MessageType::StreamChunk.to_wire());
            return (fills && is_chunk && id != 0).then_some(ChunkStart {
                id: RequestId::new(id),
                end_stream: end_stream != 0,
                payload_at,
            });
        }
        let value = reader.value(wire_type).ok()?;
        match (field, value) {
            (1, Value::Varint(value)) => id = value,
            (2, Value::Varint(_)) => {}
            (3, Value::Varint(value)) => message_type = low_32(value),
            (4, Value::Varint(value)) => end_stream = value,
            // This includes the compression fields: a compressed chunk is inflated as a whole, and therefore gathered.
            _ => return None,
        }
    }
}

#[cfg(not(adit_loom))]
#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};

    use super::{
        super::{message::decode_message, tests::chunk_behind},
        *,
    };
    use crate::{
        envelope::{Envelope, Payload},
        frame::PREFIX_BYTES,
        message::write_chunk_prefix,
        wire::{put_uint, put_varint},
    };

    #[test]
    fn the_scan_takes_only_a_chunk_that_fills_its_message() {
        let message = chunk_behind(9);
        let found = scan_chunk(&message[..9], 19).unwrap();
        assert_eq!((found.id, found.payload_at), (RequestId::new(2), 9));
        assert!(!found.end_stream);
        assert!(scan_chunk(&message[..8], 19).is_none(), "not there yet");
        assert!(scan_chunk(&message[..9], 18).is_none());
        assert!(scan_chunk(&message[..9], 20).is_none());
        let start = |message_type: u64, end: u64, id: u64| {
            let mut out = BytesMut::new();
            put_uint(&mut out, 1, id);
            put_uint(&mut out, 3, message_type);
            put_uint(&mut out, 4, end);
            put_varint(&mut out, u64::from(CHUNK_FIELD) << 3 | 2);
            put_varint(&mut out, 1);
            scan_chunk(&out, out.len() + 1).map(|found| found.end_stream)
        };
        assert_eq!(start(3, 0, 4), Some(false));
        assert_eq!(start(0, 1, 4), Some(true));
        let compressed = [8, 2, 0xb0, 1, 5, 0xb8, 1, 1, 0xfa, 1, 1];
        assert!(scan_chunk(&compressed, 12).is_none(), "it is gathered");
        assert_eq!(start(1, 1, 4), None, "contradicts");
        assert_eq!(start(3, 0, 0), None, "the stream has no chunks");
        let as_number = [8, 2, 0xf8, 1, 5];
        assert!(scan_chunk(&as_number, 10).is_none());
        let other_first = [8, 2, 0xa0, 2, 0, 0xfa, 1, 1];
        assert!(scan_chunk(&other_first, 9).is_none());
    }

    /// Both decoders agree: the general one returns the same for every message that the fast one accepts.
    #[test]
    fn fast_and_general_path_read_the_same() {
        let mut taken = 0;
        let mut check = |message: &[u8]| {
            let Some(found) = written_chunk(message) else {
                return false;
            };
            taken += 1;
            let buffer = Bytes::copy_from_slice(message);
            let read = decode_message(&buffer, message.len(), 0).unwrap().unwrap();
            let data = buffer.slice(found.payload_at..);
            let payload = Payload::Chunk {
                data,
                first: true,
                last: true,
            };
            assert_eq!(
                read,
                Envelope {
                    id: found.id,
                    end_stream: found.end_stream,
                    payload
                }
            );
            true
        };
        for id in [1, 127, 128, 16_384, u64::MAX] {
            for end in [false, true] {
                for length in [0, 1, 127, 128, 300] {
                    let mut out = BytesMut::new();
                    write_chunk_prefix(&mut out, RequestId::new(id), length, end);
                    out.put_bytes(7, length);
                    let message = &out[PREFIX_BYTES..];
                    assert!(check(message), "our own is taken");
                    assert!(!check(&message[..message.len() - 1]));
                    assert!(!check(&[message, &[0]].concat()));
                    // Every byte of the envelope, with every other value.
                    let mut other = message.to_vec();
                    for at in 0..message.len() - length {
                        for byte in 0..=u8::MAX {
                            other[at] = byte;
                            check(&other);
                        }
                        other[at] = message[at];
                    }
                }
            }
        }
        assert!(taken > 1000, "{taken}");
        assert!(written_chunk(&[]).is_none());
        let other_order = [0x18, 3, 8, 2, 0xfa, 1, 0];
        assert!(written_chunk(&other_order).is_none());
    }
}
