//! Tests of the state machine. How single messages are decoded is tested in `message` and `chunk`.

use bytes::BufMut;

use super::*;
use crate::{
    frame::{MAX_MESSAGE_BYTES, prefix_of},
    head::HTTP_RESPONSE_FIELD,
    id::RequestId,
    message::{CHUNK_FIELD, CONTROL_FIELD, write_chunk_prefix},
    wire::{put_uint, put_varint},
};

pub(super) fn framed(message: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_slice(&prefix_of(message.len()));
    out.put_slice(message);
    out
}

/// An envelope of `length` bytes, then a chunk of ten bytes that fills the message.
pub(super) fn chunk_behind(length: usize) -> BytesMut {
    chunk_of(length, b"0123456789")
}

fn chunk_of(length: usize, data: &[u8]) -> BytesMut {
    let mut tail = BytesMut::new();
    put_varint(&mut tail, u64::from(CHUNK_FIELD) << 3 | 2);
    put_varint(&mut tail, data.len() as u64);
    let mut out = BytesMut::new();
    put_uint(&mut out, 1, 2);
    if !(length - tail.len()).is_multiple_of(2) {
        // A padded number is three bytes long, which makes the remainder even.
        out.put_slice(&[2 << 3, 0x81, 0]);
    }
    while out.len() < length - tail.len() {
        put_uint(&mut out, 2, 1);
    }
    out.put_slice(&tail);
    assert_eq!(out.len(), length);
    out.put_slice(data);
    out
}

fn chunk(data: &'static [u8], first: bool, last: bool) -> Option<Envelope> {
    Some(Envelope {
        id: RequestId::new(2),
        end_stream: false,
        payload: Payload::Chunk {
            data: Bytes::from_static(data),
            first,
            last,
        },
    })
}

#[test]
fn chunks_with_short_envelopes_are_passed_on_in_parts() {
    const DATA: &[u8] = &[7; 3 * MIN_PART_BYTES];
    let (start, rest) = DATA.split_at(MIN_PART_BYTES);
    let (short, last) = rest.split_at(MIN_PART_BYTES);
    let length = PREFIX_BYTES + SCAN_BYTES;
    for cut in 1..=length {
        let stream = framed(&chunk_of(SCAN_BYTES, DATA)).freeze();
        let mut decoder = Decoder::new();
        decoder.feed(stream.slice(..cut));
        assert_eq!(decoder.next(), Ok(None), "{cut}");
        decoder.feed(stream.slice(cut..length + MIN_PART_BYTES));
        assert_eq!(decoder.next(), Ok(chunk(start, true, false)));
        assert_eq!(decoder.next(), Ok(None));
        // These bytes are too short for a part: the next frame completes it, and the rest of that frame is a separate
        // part.
        decoder.feed(stream.slice(length + MIN_PART_BYTES..length + MIN_PART_BYTES + 1));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(stream.slice(length + MIN_PART_BYTES + 1..));
        assert_eq!(decoder.next(), Ok(chunk(short, false, false)));
        assert_eq!(decoder.next(), Ok(chunk(last, false, true)));
        assert!(decoder.is_between_messages());
    }
}

#[test]
fn a_chunk_is_gathered_when_its_envelope_is_long() {
    let stream = framed(&chunk_behind(SCAN_BYTES + 1)).freeze();
    for cut in 1..stream.len() {
        let mut decoder = Decoder::new();
        decoder.feed(stream.slice(..cut));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(stream.slice(cut..));
        assert_eq!(decoder.next(), Ok(chunk(b"0123456789", true, true)));
        assert_eq!(decoder.next(), Ok(None));
    }
}

#[test]
fn a_chunk_of_no_bytes_needs_no_further_frame() {
    let mut out = BytesMut::new();
    write_chunk_prefix(&mut out, RequestId::new(2), 0, false);
    let stream = out.freeze();
    for cut in 1..stream.len() {
        let mut decoder = Decoder::new();
        decoder.feed(stream.slice(..cut));
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(stream.slice(cut..));
        assert_eq!(decoder.next(), Ok(chunk(b"", true, true)));
        assert!(decoder.is_between_messages());
    }
}

#[test]
fn gathering_takes_no_more_than_has_come() {
    let mut out = BytesMut::new();
    out.put_slice(&prefix_of(MAX_MESSAGE_BYTES));
    out.put_slice(&[HTTP_RESPONSE_FIELD << 3 | 2]);
    let mut decoder = Decoder::new();
    decoder.feed(out.freeze());
    let mut come = 1;
    for size in [1, 40, 5, 100, 2000, 100_000] {
        assert_eq!(decoder.next(), Ok(None));
        assert_eq!(decoder.gathered.len(), come);
        assert!(
            decoder.gathered.capacity() <= 2 * come + SCAN_BYTES,
            "{come}"
        );
        decoder.feed(vec![0xff; size].into());
        come += size;
    }
}

#[test]
fn a_message_that_was_gathered_leaves_nothing_behind() {
    let mut head = BytesMut::new();
    put_uint(&mut head, 1, 2);
    head.put_slice(&[CONTROL_FIELD << 3 | 2, 1, 3, 0x64]);
    head[2..6].copy_from_slice(&[0xaa, 1, 1, 0x64]);
    let stream = framed(&head).freeze();
    let mut decoder = Decoder::new();
    decoder.feed(stream.slice(..8));
    assert_eq!(decoder.next(), Ok(None));
    assert_eq!(decoder.gathered.len(), 3);
    decoder.feed(stream.slice(8..));
    let envelope = decoder.next().unwrap().unwrap();
    assert_eq!(envelope.payload, Payload::Control(Bytes::from_static(b"d")));
    assert_eq!(decoder.gathered.capacity(), 0);
}

#[test]
fn a_chunk_in_parts_is_not_gathered() {
    let mut out = BytesMut::new();
    write_chunk_prefix(&mut out, RequestId::new(2), 5000, true);
    let envelope = out.len();
    out.put_bytes(7, 5000);
    let stream = out.freeze();
    let mut decoder = Decoder::new();
    decoder.feed(stream.slice(..envelope + MIN_PART_BYTES));
    let first = decoder.next().unwrap().unwrap();
    assert!(!first.end_stream, "only the last part ends");
    decoder.feed(stream.slice(envelope + MIN_PART_BYTES..));
    assert!(decoder.next().unwrap().unwrap().end_stream);
    assert_eq!(decoder.gathered.capacity(), 0);
}

/// Regression: a chunk in frames of one byte was split into parts of one byte, each charged for one byte only.
#[test]
fn p_4_1_parts_of_a_chunk_that_trickles_have_a_kib() {
    for (length, step) in [
        (1, 1),
        (2, 1),
        (1023, 1),
        (1024, 1),
        (5000, 1),
        (5000, 700),
        (9000, 1023),
    ] {
        let mut out = BytesMut::new();
        write_chunk_prefix(&mut out, RequestId::new(2), length, true);
        out.extend((0..=250).cycle().take(length));
        let payload = out[out.len() - length..].to_vec();
        let mut decoder = Decoder::new();
        let (mut parts, mut read) = (Vec::new(), Vec::new());
        for frame in out.chunks(step) {
            decoder.feed(Bytes::copy_from_slice(frame));
            while let Some(envelope) = decoder.next().unwrap() {
                let Payload::Chunk { data, first, last } = envelope.payload else {
                    panic!("no chunk");
                };
                assert_eq!(first, parts.is_empty());
                assert_eq!(envelope.end_stream, last);
                read.extend_from_slice(&data);
                parts.push((data.len(), last));
            }
        }
        assert_eq!(read, payload);
        assert!(decoder.is_between_messages());
        let long = |(length, last): &(usize, bool)| *last || *length >= MIN_PART_BYTES;
        assert!(parts.iter().all(long), "{length} by {step}: {parts:?}");
    }
}

/// Regression: a message read in place left an empty input that kept its frame alive until the next one arrived.
#[test]
fn a_frame_that_has_been_read_is_let_go() {
    struct Frame {
        bytes: Vec<u8>,
        _held: std::sync::Arc<()>,
    }
    impl AsRef<[u8]> for Frame {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    let mut chunk = BytesMut::new();
    write_chunk_prefix(&mut chunk, RequestId::new(2), 3, false);
    chunk.put_slice(b"abc");
    let mut empty = BytesMut::new();
    write_chunk_prefix(&mut empty, RequestId::new(2), 0, false);
    let mut window = BytesMut::new();
    crate::message::write_window(&mut window, RequestId::new(2), 9, 0);
    for message in [&chunk, &empty, &window] {
        for cut in 0..message.len() {
            let held = std::sync::Arc::new(());
            let mut decoder = Decoder::new();
            for part in [&message[..cut], &message[cut..]] {
                decoder.feed(Bytes::from_owner(Frame {
                    bytes: part.to_vec(),
                    _held: held.clone(),
                }));
                let mut read = Vec::new();
                while let Some(envelope) = decoder.next().unwrap() {
                    read.push(envelope);
                }
                // Payload is a slice of its frame; an empty payload has no slice.
                let holds = read.iter().any(|envelope| {
                    matches!(&envelope.payload, Payload::Chunk { data, .. } if !data.is_empty())
                });
                assert!(holds || std::sync::Arc::strong_count(&held) == 1, "{cut}");
                drop(read);
                assert_eq!(std::sync::Arc::strong_count(&held), 1, "{cut}");
            }
            assert!(decoder.is_between_messages());
        }
    }
}

#[test]
fn lost_framing_stays_lost() {
    for broken in [vec![1, 0, 0, 0, 0], vec![0, 0, 0, 0, 1, 0x02]] {
        let mut decoder = Decoder::new();
        decoder.feed([&broken[..], &framed(&chunk_behind(9))].concat().into());
        let error = decoder.next().unwrap_err();
        assert_eq!(decoder.next(), Err(error.clone()));
        decoder.feed(framed(&chunk_behind(9)).freeze());
        assert!(decoder.input.is_empty(), "nothing is kept");
        assert_eq!(decoder.next(), Err(error));
        assert!(!decoder.is_between_messages());
    }
}
