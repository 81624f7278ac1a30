//! Checked against the generated code (prost), both ways:
//! - what the writers write, prost reads to the same content, types included;
//! - what prost writes, the decoder reads to the same content, or refuses by a rule that protobuf does not know;
//! - the order of fields, in the message and inside heads and headers, and unknown fields change nothing;
//! - the decoder refuses broken bytes that prost refuses.
//!
//! Intended differences of the decoder:
//! - it refuses valid protobuf with header names and values, methods, targets, statuses and UUIDs that are invalid in
//!   HTTP or in the protocol; with a payload that this version does not support, or with neither payload nor end; with
//!   a `message_type` that contradicts the payload (P-2.4); with groups (removed in proto3);
//! - of a repeated payload or `Open` it takes the last one and does not read the others; prost merges them (P-2.3);
//! - it accepts a `Reset` with a reason that is not UTF-8, and passes a `Control` on without reading it.
#![cfg(not(adit_loom))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    clippy::cast_possible_truncation
)]

mod model;

use adit_codec::{
    BadMessage, BatchBuilder, Compressed, Compression, EncodedHead, GrpcRequestHead,
    GrpcResponseHead, HeaderBlock, HttpRequestHead, HttpResponseHead, Open, Payload, RequestId,
    ResetCode, TcpOpenHead, UdpOpenHead, WebSocketRequestHead, WebSocketResponseHead, accepted,
    write_chunk_prefix, write_compressed_prefix, write_control, write_datagram_prefix, write_end,
    write_frame_prefix, write_head, write_reset, write_stop_sending, write_trailers, write_window,
};
use adit_proto::{
    Header, HttpRequest, HttpResponse, MessageType, ProtocolType, Reset, StopSending, Trailers,
    TunnelMessage, Window, tunnel_message::Payload as Theirs,
};
use bytes::BytesMut;
use model::{
    as_theirs, cases, fields, is_refused, message, number, read_one, unframed, without_types,
};
use proptest::prelude::*;
use prost::Message;

fn pairs(headers: &[Header]) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers
        .iter()
        .map(|header| (&header.name[..], &header.value[..]))
}

fn ours_open(open: &adit_proto::Open) -> Open {
    Open {
        request_uuid: open.request_uuid[..].try_into().unwrap(),
        tunnel: open.tunnel.as_str().into(),
        revision: open.revision,
        visitor: open.visitor.as_str().into(),
        traceparent: open.traceparent.as_str().into(),
        baggage: open.baggage.as_str().into(),
        resumable: open.resumable,
    }
}

fn encode_request(head: &HttpRequest) -> EncodedHead {
    HttpRequestHead {
        open: &ours_open(head.open.as_ref().unwrap()),
        method: std::str::from_utf8(&head.method).unwrap(),
        scheme: std::str::from_utf8(&head.scheme).unwrap(),
        authority: &head.authority,
        path: &head.path,
    }
    .encode_offer(&head.upgrade, pairs(&head.headers), &head.body)
    .unwrap()
}

fn encode_response(head: &HttpResponse) -> EncodedHead {
    if head.status == 101 {
        return HttpResponseHead::encode_switch(&head.upgrade, pairs(&head.headers)).unwrap();
    }
    HttpResponseHead {
        status: head.status as u16,
    }
    .encode(pairs(&head.headers), &head.body)
    .unwrap()
}

/// The heads of the protocols other than HTTP, with their type and the number of payload bytes in them.
fn encode_other(head: &Theirs) -> Option<(EncodedHead, ProtocolType, MessageType, usize)> {
    let open = |open: &Option<adit_proto::Open>| ours_open(open.as_ref().unwrap());
    let request = MessageType::Request;
    let response = MessageType::Response;
    Some(match head {
        Theirs::GrpcRequest(head) => {
            let encoded = GrpcRequestHead {
                open: &open(&head.open),
                authority: &head.authority,
                path: &head.path,
                timeout: (head.timeout_nanos > 0)
                    .then(|| std::time::Duration::from_nanos(head.timeout_nanos)),
            }
            .encode(pairs(&head.metadata), &head.body);
            let encoded = encoded.unwrap();
            (encoded, ProtocolType::Grpc, request, head.body.len())
        }
        Theirs::GrpcResponse(head) => {
            let status = head.status as u16;
            let encoded = GrpcResponseHead { status }.encode(pairs(&head.metadata), &head.body);
            let encoded = encoded.unwrap();
            (encoded, ProtocolType::Grpc, response, head.body.len())
        }
        Theirs::WebsocketRequest(head) => {
            let encoded = WebSocketRequestHead {
                open: &open(&head.open),
                authority: &head.authority,
                path: &head.path,
            }
            .encode(pairs(&head.headers));
            (encoded.unwrap(), ProtocolType::Websocket, request, 0)
        }
        Theirs::WebsocketResponse(head) => {
            let status = head.status as u16;
            let encoded = WebSocketResponseHead { status }.encode(pairs(&head.headers));
            (encoded.unwrap(), ProtocolType::Websocket, response, 0)
        }
        Theirs::TcpOpen(head) => {
            let (open, local) = (&open(&head.open), &head.local);
            let encoded = TcpOpenHead { open, local }.encode(&head.body).unwrap();
            (encoded, ProtocolType::Tcp, request, head.body.len())
        }
        Theirs::UdpOpen(head) => {
            let (open, local) = (&open(&head.open), &head.local);
            let encoded = UdpOpenHead { open, local }.encode().unwrap();
            (encoded, ProtocolType::Udp, request, 0)
        }
        Theirs::Accepted(_) => {
            let encoded = accepted(adit_codec::ProtocolType::Udp);
            (encoded, ProtocolType::Udp, response, 0)
        }
        _ => return None,
    })
}

fn compressed_of(message: &TunnelMessage) -> Option<Compressed> {
    let by = Compression::from_wire(message.compression as u64)?;
    let inflated_bytes = message.inflated_bytes;
    Some(Compressed { by, inflated_bytes })
}

/// Writes `message` with the encoders under test, and returns what prost must read, including types and implied ends.
/// Only for messages that are not refused.
fn write(message: &TunnelMessage) -> (Vec<u8>, TunnelMessage) {
    let mut out = BytesMut::from(&b"before"[..]);
    let mut expected = without_types(message);
    let id = RequestId::new(message.request_id);
    let end = message.end_stream;
    let message_type = match expected.payload.as_mut() {
        None => {
            write_end(&mut out, id);
            MessageType::StreamChunk
        }
        Some(Theirs::HttpRequest(head)) => {
            let encoded = encode_request(head);
            assert_eq!(encoded.body_bytes(), head.body.len());
            write_head(&mut out, id, &encoded, end);
            expected.protocol_type = ProtocolType::Http.into();
            MessageType::Request
        }
        Some(Theirs::HttpResponse(head)) => {
            let encoded = encode_response(head);
            assert_eq!(encoded.body_bytes(), head.body.len());
            let before = out.len();
            write_head(&mut out, id, &encoded, end);
            let envelope = out.len() - before - encoded.wire_len();
            assert!((5..=5 + 32).contains(&envelope), "{envelope}");
            expected.protocol_type = ProtocolType::Http.into();
            MessageType::Response
        }
        Some(Theirs::Chunk(data)) => {
            match compressed_of(message) {
                Some(how) => write_compressed_prefix(&mut out, id, how, None, data.len(), end),
                None => write_chunk_prefix(&mut out, id, data.len(), end),
            }
            out.extend_from_slice(data);
            MessageType::StreamChunk
        }
        Some(Theirs::Trailers(Trailers { trailers })) => {
            write_trailers(&mut out, id, &pairs(trailers).collect());
            expected.end_stream = true;
            MessageType::Trailers
        }
        Some(Theirs::Window(Window { limit, consumed })) => {
            write_window(&mut out, id, *limit, *consumed);
            expected.end_stream = false;
            MessageType::Window
        }
        Some(Theirs::StopSending(StopSending { code })) => {
            let code = ResetCode::from_wire(*code as u64).unwrap();
            write_stop_sending(&mut out, id, code);
            expected.end_stream = false;
            MessageType::StopSending
        }
        Some(Theirs::Reset(Reset {
            code,
            reason,
            in_order,
        })) => {
            let code = ResetCode::from_wire(*code as u64).unwrap();
            write_reset(&mut out, id, code, reason, *in_order);
            while reason.len() > 256 {
                reason.pop();
            }
            expected.end_stream = false;
            MessageType::Reset
        }
        Some(Theirs::Control(control)) => {
            write_control(&mut out, &control.encode_to_vec());
            expected.request_id = 0;
            expected.protocol_type = ProtocolType::Control.into();
            expected.end_stream = false;
            MessageType::Control
        }
        Some(Theirs::WebsocketFrame(frame)) => {
            let head = adit_codec::WebSocketFrame {
                fin: frame.fin,
                rsv: frame.rsv as u8,
                opcode: frame.opcode as u8,
                length: frame.length,
            };
            let length = frame.payload.len();
            match compressed_of(message) {
                Some(how) => write_compressed_prefix(&mut out, id, how, Some(head), length, end),
                None => write_frame_prefix(&mut out, id, head, length, end),
            }
            out.extend_from_slice(&frame.payload);
            MessageType::Frame
        }
        Some(Theirs::Datagram(data)) => {
            write_datagram_prefix(&mut out, id, data.len());
            out.extend_from_slice(data);
            expected.end_stream = false;
            MessageType::Datagram
        }
        Some(head) => {
            let (encoded, protocol, message_type, body) = encode_other(head).expect("carried");
            assert_eq!(encoded.body_bytes(), body);
            write_head(&mut out, id, &encoded, end);
            expected.protocol_type = protocol.into();
            message_type
        }
    };
    expected.message_type = message_type.into();
    let frame = out.strip_prefix(b"before").unwrap();
    (unframed(frame).to_vec(), expected)
}

/// A permutation of `parts` in which parts with the same number keep their order.
fn permuted<'a>(parts: &[(u64, u8, &'a [u8])], keys: &[u32]) -> Vec<(u64, Vec<u8>)> {
    let mut slots: Vec<usize> = (0..parts.len()).collect();
    slots.sort_by_key(|&slot| keys[slot % keys.len()].rotate_left(slot as u32));
    let mut left: Vec<Option<(u64, &'a [u8])>> = parts
        .iter()
        .map(|&(number, _, bytes)| Some((number, bytes)))
        .collect();
    slots
        .into_iter()
        .map(|slot| {
            let number = parts[slot].0;
            let next = left
                .iter_mut()
                .find(|part| part.is_some_and(|part| part.0 == number))
                .unwrap();
            let (number, bytes) = next.take().unwrap();
            (number, bytes.to_vec())
        })
        .collect()
}

/// Fields that are unknown in version 1.
fn unknown() -> impl Strategy<Value = Vec<u8>> {
    let field = (
        prop_oneof![32..40u64, Just(1 << 20), Just((1 << 29) - 1)],
        0..4u8,
        number(),
    )
        .prop_map(|(field, kind, value)| {
            let mut out = BytesMut::new();
            let wire = [0, 1, 2, 5][usize::from(kind)];
            prost::encoding::encode_varint(field << 3 | wire, &mut out);
            match wire {
                0 => prost::encoding::encode_varint(value, &mut out),
                1 => out.extend_from_slice(&value.to_le_bytes()),
                2 => {
                    out.extend_from_slice(&[(value % 20) as u8]);
                    out.extend_from_slice(&vec![7; (value % 20) as usize]);
                }
                _ => out.extend_from_slice(&[1, 2, 3, 4]),
            }
            out.to_vec()
        });
    proptest::collection::vec(field, 0..3).prop_map(|fields| fields.concat())
}

fn put_length_delimited(number: u64, content: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    prost::encoding::encode_varint(number << 3 | 2, &mut out);
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out.to_vec()
}

fn content(field: &[u8]) -> &[u8] {
    let mut rest = field;
    prost::encoding::decode_varint(&mut rest).unwrap();
    prost::encoding::decode_varint(&mut rest).unwrap();
    rest
}

/// The same message with its fields, those of its payload and those of its headers in another order, and with unknown
/// fields at each level.
fn shuffled(message: &[u8], keys: &[u32], unknown: &[Vec<u8>], depth: usize) -> Vec<u8> {
    let parts = fields(message).unwrap();
    let mut out = Vec::new();
    for (index, (number, bytes)) in permuted(&parts, keys).into_iter().enumerate() {
        // Payloads that are messages (fields 5 to 17 and 19); inside them `open` and headers.
        let nested = match depth {
            0 => matches!(number, 5..=17 | 19),
            // Field 1 is a message or the status, which has no length. Texts, bodies and payloads in these fields are
            // not messages.
            1 => matches!(number, 1 | 2 | 4 | 6) && fields(content_or_none(&bytes)).is_some(),
            _ => false,
        };
        if nested && is_message_field(depth, &bytes) {
            let inner = shuffled(content(&bytes), keys, unknown, depth + 1);
            out.extend(put_length_delimited(number, &inner));
        } else {
            out.extend(bytes);
        }
        out.extend(&unknown[(index + depth) % unknown.len()]);
    }
    out
}

fn content_or_none(field: &[u8]) -> &[u8] {
    if field[0] & 7 == 2 {
        content(field)
    } else {
        &[0]
    }
}

/// Whether a field at this depth is a message, and not bytes that look like one. At depth 1 the number does not
/// determine that, so a header is recognised by decoding it with the generated code.
fn is_message_field(depth: usize, field: &[u8]) -> bool {
    if depth == 0 {
        return true;
    }
    let inner = content(field);
    Header::decode(inner).is_ok_and(|header| header.encode_to_vec() == inner)
        || adit_proto::Open::decode(inner).is_ok_and(|open| open.encode_to_vec() == inner)
}

proptest! {
    #![proptest_config(cases(600))]

    #[test]
    fn prost_reads_our_messages(message in message().prop_filter("carried", |m| !is_refused(m))) {
        let (bytes, expected) = write(&message);
        prop_assert_eq!(TunnelMessage::decode(&bytes[..]), Ok(expected.clone()));
        prop_assert_eq!(as_theirs(&read_one(&bytes).unwrap()), Some(without_types(&expected)));
    }

    #[test]
    fn our_decoder_reads_messages_of_prost(message in message()) {
        let envelope = read_one(&message.encode_to_vec()).unwrap();
        prop_assert_eq!(envelope.id, RequestId::new(message.request_id));
        prop_assert_eq!(envelope.end_stream, message.end_stream);
        if is_refused(&message) {
            prop_assert!(matches!(envelope.payload, Payload::Bad(_)), "{:?}", envelope);
        } else {
            prop_assert_eq!(as_theirs(&envelope), Some(without_types(&message)), "{:?}", envelope);
        }
    }

    #[test]
    fn order_and_unknown_fields_change_nothing(
        message in message(),
        keys in proptest::collection::vec(any::<u32>(), 1..8),
        unknown in proptest::collection::vec(unknown(), 1..4),
    ) {
        let straight = message.encode_to_vec();
        let bytes = shuffled(&straight, &keys, &unknown, 0);
        // The oracle agrees that this is the same message.
        prop_assert_eq!(TunnelMessage::decode(&bytes[..]), Ok(message));
        let (mut read, mut expected) = (read_one(&bytes).unwrap(), read_one(&straight).unwrap());
        // Of two errors, the first in the message is reported, so the two orders may report different ones.
        for envelope in [&mut read, &mut expected] {
            if let Payload::Bad(what) = &mut envelope.payload {
                *what = BadMessage::Head;
            }
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn messages_that_prost_refuses_are_refused(
        message in message(),
        at in any::<prop::sample::Index>(),
        change in 0..4u8,
        byte in any::<u8>(),
    ) {
        let mut bytes = message.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        // Half of the changes hit the first bytes, where keys and lengths are.
        let at = at.index(if byte & 1 == 0 { bytes.len() } else { bytes.len().min(40) });
        match change {
            0 => bytes.truncate(at),
            1 => bytes[at] = byte,
            2 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        let theirs = TunnelMessage::decode(&bytes[..]);
        let Some(ours) = read_one(&bytes).ok().as_ref().and_then(as_theirs) else {
            // The decoder refused it: then prost refuses it too, or a rule of the protocol is violated, or it holds a
            // group, or a payload of a later version, which prost skips.
            let allowed = match &theirs {
                Err(_) => true,
                Ok(message) => {
                    is_refused(message)
                        || twice(&bytes)
                        || has_group(&bytes)
                        || is_of_a_later_version(&bytes)
                }
            };
            prop_assert!(allowed, "refused though it holds: {:?}", theirs);
            return Ok(());
        };
        match theirs {
            Ok(message) => prop_assert!(
                ours == without_types(&message) || twice(&bytes),
                "{:?} is not {:?}", ours, message
            ),
            Err(error) => {
                let text_in_reset = matches!(ours.payload, Some(Theirs::Reset(_)))
                    && error.to_string().contains("UTF-8");
                prop_assert!(text_in_reset || twice(&bytes), "taken for {:?}: {}", ours, error);
            }
        }
    }
}

/// Whether a message has two payloads, or a head in it has two messages with the same number, which prost merges.
fn twice(bytes: &[u8]) -> bool {
    let Some(top) = fields(bytes) else {
        return false;
    };
    let payloads: Vec<_> = top
        .iter()
        .filter(|(number, wire, _)| *wire == 2 && matches!(number, 5..=21 | 31))
        .collect();
    payloads.len() > 1
        || payloads.iter().any(|(_, _, payload)| {
            fields(content(payload))
                .is_some_and(|inner| inner.iter().filter(|(number, ..)| *number == 1).count() > 1)
        })
}

/// Whether a message has a field with one of the numbers that are reserved for further payloads.
fn is_of_a_later_version(bytes: &[u8]) -> bool {
    let top = fields(bytes).unwrap_or_default();
    top.iter().any(|(number, ..)| matches!(number, 24..=30))
}

fn has_group(bytes: &[u8]) -> bool {
    // Keys of groups: `fields` cannot read them.
    let Some(top) = fields(bytes) else {
        return true;
    };
    top.iter()
        .filter(|(number, wire, _)| *wire == 2 && matches!(number, 5..=21))
        .any(|(_, _, payload)| {
            fields(content(payload)).is_none_or(|inner| {
                inner
                    .iter()
                    .filter(|(_, wire, _)| *wire == 2)
                    .any(|(_, _, field)| fields(content(field)).is_none())
            })
        })
}

fn varint_field(number: u64, value: u64) -> Vec<u8> {
    let mut out = BytesMut::new();
    prost::encoding::encode_varint(number << 3, &mut out);
    prost::encoding::encode_varint(value, &mut out);
    out.to_vec()
}

#[test]
fn the_last_payload_counts_also_when_it_is_not_carried() {
    let chunk = put_length_delimited(31, b"data");
    let window = put_length_delimited(15, &varint_field(1, 9));
    let id = varint_field(1, 4);
    let resume = put_length_delimited(18, b"");
    let read = |parts: &[&Vec<u8>]| {
        let bytes = parts
            .iter()
            .flat_map(|part| part.to_vec())
            .collect::<Vec<_>>();
        read_one(&bytes).unwrap().payload
    };
    let taken = Payload::Window {
        limit: 9,
        consumed: 0,
    };
    let refused = Payload::Bad(BadMessage::UnknownPayload);
    assert_eq!(read(&[&id, &chunk, &window]), taken);
    assert_eq!(read(&[&id, &resume, &window]), taken);
    assert_eq!(read(&[&id, &window, &resume]), refused);
    assert_eq!(read(&[&resume, &id]), refused);
    // The numbers 24 to 30 are reserved: beside a known payload they are skipped, alone they are a payload of a later
    // version.
    for number in [24, 30] {
        let newer = put_length_delimited(number, b"new");
        let newer_number = varint_field(number, 1);
        for newer in [newer, newer_number] {
            assert_eq!(read(&[&id, &newer, &window]), taken);
            assert_eq!(read(&[&id, &window, &newer]), taken);
            assert_eq!(read(&[&id, &newer]), refused);
            assert_eq!(read(&[&id, &newer, &varint_field(4, 1)]), refused);
        }
    }
    // A field with a higher number is not a payload.
    let beyond = put_length_delimited(32, b"x");
    assert_eq!(read(&[&id, &beyond, &varint_field(4, 1)]), Payload::None);
    assert_eq!(read(&[&id, &beyond]), refused);
}

#[test]
fn wrong_wire_types_are_refused_as_by_prost() {
    let id = varint_field(1, 4);
    let end = varint_field(4, 1);
    let window = put_length_delimited(15, &varint_field(1, 9));
    for number in [1, 2, 3, 4] {
        let wrong = [&id[..], &window, &put_length_delimited(number, b"x")].concat();
        assert!(TunnelMessage::decode(&wrong[..]).is_err());
        let envelope = read_one(&wrong).unwrap();
        assert_eq!(envelope.payload, Payload::Bad(BadMessage::WireType));
        assert_eq!(envelope.id, RequestId::new(4));
    }
    for number in (5..=21).chain([31]) {
        for wrong in [
            [&id[..], &end, &window, &varint_field(number, 1)].concat(),
            [&id[..], &end, &varint_field(number, 1), &window].concat(),
        ] {
            assert!(TunnelMessage::decode(&wrong[..]).is_err());
            let envelope = read_one(&wrong).unwrap();
            assert_eq!(envelope.payload, Payload::Bad(BadMessage::WireType));
        }
    }
}

#[test]
fn numbers_of_32_bits_truncate_as_in_prost() {
    let high = 1 << 32;
    let id = varint_field(1, 4);
    let reset = put_length_delimited(17, &varint_field(1, high + 2));
    let response = put_length_delimited(6, &varint_field(1, high + 204));
    for (message_type, payload) in [(7, reset), (2, response)] {
        let bytes = [&id[..], &varint_field(3, high + message_type), &payload].concat();
        let theirs = TunnelMessage::decode(&bytes[..]).unwrap();
        let ours = read_one(&bytes).unwrap();
        assert_eq!(as_theirs(&ours), Some(without_types(&theirs)));
    }
}

#[test]
fn unknown_fields_inside_payloads_are_skipped() {
    let newer = [varint_field(1, 2), put_length_delimited(2, b"why")].concat();
    let bytes = [varint_field(1, 4), put_length_delimited(16, &newer)].concat();
    assert!(TunnelMessage::decode(&bytes[..]).is_ok());
    assert_eq!(
        read_one(&bytes).unwrap().payload,
        Payload::StopSending(ResetCode::Refused)
    );
}

#[test]
fn a_batch_of_all_kinds_reads_back_in_order() {
    let mut builder = BatchBuilder::new();
    let block: HeaderBlock = [(&b"grpc-status"[..], &b"0"[..])].into_iter().collect();
    builder.put(|out| write_window(out, RequestId::new(2), 65_536, 0));
    builder.put(|out| write_chunk_prefix(out, RequestId::new(2), 3000, false));
    builder.put_payload(vec![5; 3000].into());
    builder.put(|out| write_trailers(out, RequestId::new(2), &block));
    let stream: Vec<u8> = builder
        .finish()
        .unwrap()
        .into_segments()
        .flatten()
        .collect();
    let kinds: Vec<_> = model::read_whole(&stream)
        .into_iter()
        .map(|envelope| match envelope.payload {
            Payload::Window { limit, .. } => limit,
            Payload::Chunk { data, .. } => data.len() as u64,
            Payload::Trailers(read) => {
                assert_eq!(read, block);
                7
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [65_536, 3000, 7]);
}
