//! Properties of a stream that do not depend on how its frames are cut:
//! 1. the same messages come out, in the same order, for every writer;
//! 2. every message has one first and one last part, the end is set on the last, and parts of two messages do not mix;
//! 3. an error names the place where the message that caused it begins, whatever came before;
//! 4. a payload that one frame contains as a whole is a slice of that frame, and so is each part of a chunk that spans
//!    frames and was written in ascending order: payloads are not copied;
//! 5. between two messages, and only there, the stream may end.
//!
//! The memory for gathered messages is checked in the unit tests of the decoder, which have access to it.
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
    DecodeError, Decoder, EncodedHead, Envelope, GrpcRequest, GrpcRequestHead, GrpcResponse,
    GrpcResponseHead, HeaderBlock, HttpRequest, HttpRequestHead, HttpResponse, HttpResponseHead,
    MAX_MESSAGE_BYTES, Open, Payload, ProtocolType, RequestHead, RequestId, ResponseHead, TcpOpen,
    TcpOpenHead, UdpOpen, UdpOpenHead, WebSocketFrame, WebSocketRequest, WebSocketRequestHead,
    WebSocketResponse, WebSocketResponseHead, accepted, write_chunk_prefix, write_datagram_prefix,
    write_end, write_frame_prefix, write_head, write_reset, write_window,
};
use adit_proto::TunnelMessage;
use bytes::{Bytes, BytesMut};
use model::{cases, framed, joined, message, number, read, read_whole};
use proptest::{collection::vec, prelude::*};
use prost::Message;

/// Places to cut at: a few anywhere, some near the front, where prefix and envelope are.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    vec(prop_oneof![0..60usize, any::<usize>()], 0..12)
}

/// Messages of each writer, short enough to be cut at every byte.
#[derive(Debug, Clone)]
enum Written {
    Chunk(u64, Vec<u8>, bool),
    End(u64),
    Window(u64, u64),
    Reset(String, bool),
    Frame(u64, WebSocketFrame, Vec<u8>, bool),
    Datagram(u64, Vec<u8>),
    /// A head of any protocol: its protocol, the length of the body in it, and the end.
    Head(u8, Vec<u8>, bool),
}

fn open() -> Open {
    Open {
        request_uuid: [3; 16],
        tunnel: "shop".into(),
        visitor: "192.0.2.1:9".into(),
        ..Open::default()
    }
}

const LINES: [(&[u8], &[u8]); 2] = [(b"x-a", b"1"), (b"x-a", b"")];

/// A head as it is written, and the payload that a decoder returns for it.
fn head_of(which: u8, body: &[u8]) -> (EncodedHead, Payload) {
    let ours = open();
    let (open, authority, path) = (&ours, &b"a.example"[..], &b"/s/M"[..]);
    let (headers, held) = (
        LINES.into_iter(),
        LINES.into_iter().collect::<HeaderBlock>(),
    );
    let (local, status, upgrade) = ("192.0.2.7:22", 200, &b"tcp"[..]);
    let bytes = Bytes::copy_from_slice;
    let request = Payload::Request;
    let response = Payload::Response;
    match which % 9 {
        0 => {
            let (method, scheme) = ("POST", "https");
            let head = HttpRequestHead {
                open,
                method,
                scheme,
                authority,
                path,
            };
            let read = HttpRequest {
                open: ours.clone(),
                method: bytes(method.as_bytes()),
                scheme: bytes(scheme.as_bytes()),
                authority: bytes(authority),
                path: bytes(path),
                headers: held,
                body: bytes(body),
                upgrade: bytes(upgrade),
            };
            (
                head.encode_offer(upgrade, headers, body).unwrap(),
                request(RequestHead::Http(read.into())),
            )
        }
        1 => {
            let read = HttpResponse {
                status,
                headers: held,
                body: bytes(body),
                upgrade: Default::default(),
            };
            let head = HttpResponseHead { status }.encode(headers, body);
            (head.unwrap(), response(ResponseHead::Http(read.into())))
        }
        2 => {
            let timeout = Some(std::time::Duration::from_millis(7));
            let head = GrpcRequestHead {
                open,
                authority,
                path,
                timeout,
            };
            let read = GrpcRequest {
                open: ours.clone(),
                authority: bytes(authority),
                path: bytes(path),
                metadata: held,
                timeout,
                body: bytes(body),
            };
            (
                head.encode(headers, body).unwrap(),
                request(RequestHead::Grpc(read.into())),
            )
        }
        3 => {
            let read = GrpcResponse {
                status,
                metadata: held,
                body: bytes(body),
            };
            let head = GrpcResponseHead { status }.encode(headers, body);
            (head.unwrap(), response(ResponseHead::Grpc(read.into())))
        }
        4 => {
            let head = WebSocketRequestHead {
                open,
                authority,
                path,
            };
            let read = WebSocketRequest {
                open: ours.clone(),
                authority: bytes(authority),
                path: bytes(path),
                headers: held,
            };
            (
                head.encode(headers).unwrap(),
                request(RequestHead::WebSocket(read.into())),
            )
        }
        5 => {
            let read = WebSocketResponse {
                status: 101,
                headers: held,
            };
            let head = WebSocketResponseHead { status: 101 }.encode(headers);
            (
                head.unwrap(),
                response(ResponseHead::WebSocket(read.into())),
            )
        }
        6 => {
            let read = TcpOpen {
                open: ours.clone(),
                local: local.into(),
                body: bytes(body),
            };
            let head = TcpOpenHead { open, local }.encode(body);
            (head.unwrap(), request(RequestHead::Tcp(read.into())))
        }
        7 => {
            let read = UdpOpen {
                open: ours.clone(),
                local: local.into(),
            };
            (
                UdpOpenHead { open, local }.encode().unwrap(),
                request(RequestHead::Udp(read.into())),
            )
        }
        _ => (
            accepted(ProtocolType::Tcp),
            response(ResponseHead::Accepted),
        ),
    }
}

fn frame() -> impl Strategy<Value = WebSocketFrame> {
    (any::<bool>(), 0..8u8, 0..16u8).prop_map(|(fin, rsv, opcode)| WebSocketFrame {
        fin,
        rsv,
        opcode,
        length: 0,
    })
}

fn written() -> impl Strategy<Value = Written> {
    prop_oneof![
        6 => (number(), vec(any::<u8>(), 0..100), any::<bool>())
            .prop_map(|(id, data, end)| Written::Chunk(id, data, end)),
        1 => number().prop_map(Written::End),
        2 => (number(), number()).prop_map(|(limit, consumed)| Written::Window(limit, consumed)),
        1 => (".{0,60}", any::<bool>())
            .prop_map(|(reason, in_order)| Written::Reset(reason, in_order)),
        2 => (number(), frame(), vec(any::<u8>(), 0..100), 0..1u64 << 50, any::<bool>()).prop_map(
            |(id, frame, data, more, end)| {
                let length = data.len() as u64 + more;
                Written::Frame(id, WebSocketFrame { length, ..frame }, data, end)
            }
        ),
        1 => (number(), vec(any::<u8>(), 0..100))
            .prop_map(|(id, data)| Written::Datagram(id, data)),
        4 => (any::<u8>(), vec(any::<u8>(), 0..80), any::<bool>())
            .prop_map(|(which, body, end)| Written::Head(which, body, end)),
    ]
}

fn stream_of(all: &[Written]) -> (Vec<u8>, Vec<Envelope>) {
    let mut out = BytesMut::new();
    let mut expected = Vec::new();
    for one in all {
        let (id, end_stream, payload) = match one {
            Written::Chunk(id, data, end) => {
                write_chunk_prefix(&mut out, RequestId::new(*id), data.len(), *end);
                out.extend_from_slice(data);
                let payload = Payload::Chunk {
                    data: data.clone().into(),
                    first: true,
                    last: true,
                };
                (*id, *end, payload)
            }
            Written::End(id) => {
                write_end(&mut out, RequestId::new(*id));
                (*id, true, Payload::None)
            }
            Written::Window(limit, consumed) => {
                write_window(&mut out, RequestId::new(6), *limit, *consumed);
                let (limit, consumed) = (*limit, *consumed);
                (6, false, Payload::Window { limit, consumed })
            }
            Written::Reset(reason, in_order) => {
                let (code, in_order) = (adit_codec::ResetCode::Stalled, *in_order);
                write_reset(&mut out, RequestId::new(8), code, reason, in_order);
                let payload = Payload::Reset {
                    code,
                    reason: Bytes::copy_from_slice(reason.as_bytes()),
                    in_order,
                };
                (8, false, payload)
            }
            Written::Frame(id, frame, data, end) => {
                let number = RequestId::new(*id);
                write_frame_prefix(&mut out, number, *frame, data.len(), *end);
                out.extend_from_slice(data);
                let (frame, data) = (*frame, data.clone().into());
                (*id, *end, Payload::Frame { frame, data })
            }
            Written::Datagram(id, data) => {
                write_datagram_prefix(&mut out, RequestId::new(*id), data.len());
                out.extend_from_slice(data);
                (*id, false, Payload::Datagram(data.clone().into()))
            }
            Written::Head(which, body, end) => {
                let (head, read) = head_of(*which, body);
                write_head(&mut out, RequestId::new(10), &head, *end);
                (10, *end, read)
            }
        };
        expected.push(Envelope {
            id: RequestId::new(id),
            end_stream,
            payload,
        });
    }
    (out.to_vec(), expected)
}

fn envelopes(read: Vec<(usize, Envelope)>) -> impl Iterator<Item = Envelope> {
    read.into_iter().map(|(_, envelope)| envelope)
}

fn lies_in(part: &Bytes, frame: &Bytes) -> bool {
    let (part, frame) = (part.as_ptr_range(), frame.as_ptr_range());
    frame.start <= part.start && part.end <= frame.end
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn cuts_change_nothing_for_prosts_messages(
        messages in vec(message(), 1..6),
        cuts in cuts(),
    ) {
        let stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| framed(&message.encode_to_vec()))
            .collect();
        let (cut, _, end) = read(&stream, &cuts);
        prop_assert_eq!(end.error, None);
        prop_assert!(end.between_messages);
        let cut = joined(envelopes(cut), false);
        prop_assert_eq!(cut.len(), messages.len());
        prop_assert_eq!(cut, read_whole(&stream));
    }

    #[test]
    fn cuts_change_nothing_for_our_messages(all in vec(written(), 1..8), cuts in cuts()) {
        let (stream, expected) = stream_of(&all);
        let (cut, _, end) = read(&stream, &cuts);
        prop_assert_eq!(end.error, None);
        prop_assert!(end.between_messages);
        prop_assert_eq!(joined(envelopes(cut), false), expected);
    }

    #[test]
    fn a_cut_before_every_byte_changes_nothing(all in vec(written(), 1..4)) {
        let (stream, expected) = stream_of(&all);
        let every: Vec<usize> = (0..stream.len()).collect();
        let (cut, _, end) = read(&stream, &every);
        prop_assert!(end.between_messages && end.error.is_none());
        prop_assert_eq!(joined(envelopes(cut), false), &expected[..]);
        for at in every {
            let (cut, _, _) = read(&stream, &[at]);
            prop_assert_eq!(joined(envelopes(cut), false), &expected[..]);
        }
    }

    #[test]
    fn payloads_are_slices_of_their_frames(
        sizes in vec((1..30_000usize, 1..=u64::MAX), 1..5),
        cuts in cuts(),
    ) {
        let mut out = BytesMut::new();
        for &(size, id) in &sizes {
            write_chunk_prefix(&mut out, RequestId::new(id), size, true);
            out.resize(out.len() + size, id as u8);
        }
        let (read, frames, _) = read(&out, &cuts);
        let mut bytes = 0;
        for (frame, envelope) in &read {
            let Payload::Chunk { data, .. } = &envelope.payload else {
                panic!("{envelope:?}");
            };
            // A part that is too short for a message of its own is copied.
            let is_short = data.len() <= 1024;
            prop_assert!(is_short || lies_in(data, &frames[*frame]), "copied");
            bytes += data.len();
        }
        prop_assert_eq!(bytes, sizes.iter().map(|(size, _)| size).sum::<usize>());
    }

    #[test]
    fn errors_name_their_place(
        messages in vec(message(), 0..4),
        cuts in cuts(),
        length in MAX_MESSAGE_BYTES as u32 + 1..,
        flag in 1..=255u8,
        which in 0..3u8,
    ) {
        let mut stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| framed(&message.encode_to_vec()))
            .collect();
        let offset = stream.len() as u64;
        let expected = match which {
            0 => {
                stream.push(0);
                stream.extend(length.to_be_bytes());
                DecodeError::TooLong {
                    length: u64::from(length),
                    offset,
                    limit: MAX_MESSAGE_BYTES as u64,
                }
            }
            1 => {
                stream.push(flag);
                stream.extend(length.to_be_bytes());
                DecodeError::Compressed { flag, offset }
            }
            _ => {
                stream.extend(framed(&[0x18, 0x03, 0x08]));
                DecodeError::NotAMessage {
                    what: adit_codec::BadMessage::Truncated,
                    offset,
                }
            }
        };
        let (cut, _, end) = read(&stream, &cuts);
        prop_assert_eq!(end.error, Some(expected));
        prop_assert_eq!(joined(envelopes(cut), false).len(), messages.len());
    }

    #[test]
    fn a_stream_may_end_between_messages_only(all in vec(written(), 1..5), at in any::<usize>()) {
        let (stream, expected) = stream_of(&all);
        let at = at % (stream.len() + 1);
        let mut boundaries = vec![0];
        for count in 1..=all.len() {
            boundaries.push(stream_of(&all[..count]).0.len());
        }
        let (cut, _, end) = read(&stream[..at], &[]);
        prop_assert_eq!(end.between_messages, boundaries.contains(&at));
        let whole = boundaries.iter().filter(|&&end| end <= at).count() - 1;
        let cut = joined(envelopes(cut), true);
        prop_assert!((whole..=whole + 1).contains(&cut.len()));
        prop_assert_eq!(&cut[..whole], &expected[..whole]);
    }
}

#[test]
fn a_head_within_one_frame_is_a_slice_of_it() {
    let message = TunnelMessage {
        request_id: 3,
        payload: Some(adit_proto::tunnel_message::Payload::HttpResponse(
            adit_proto::HttpResponse {
                status: 200,
                headers: vec![adit_proto::Header {
                    name: "server".into(),
                    value: "adit".into(),
                }],
                body: vec![1; 100].into(),
                upgrade: Bytes::new(),
            },
        )),
        ..TunnelMessage::default()
    };
    let stream = framed(&message.encode_to_vec());
    let (read, frames, _) = read(&stream, &[]);
    let (frame, envelope) = &read[0];
    let Payload::Response(ResponseHead::Http(head)) = &envelope.payload else {
        panic!("{envelope:?}");
    };
    assert!(lies_in(&head.body, &frames[*frame]));
    let (name, value) = head.headers.iter().next().unwrap();
    assert!(lies_in(&name, &frames[*frame]) && lies_in(&value, &frames[*frame]));
}

#[test]
fn messages_of_no_bytes_have_no_id_and_no_payload() {
    let stream = [framed(&[]), framed(&[]), framed(&[0x08, 0x02, 0x20, 0x01])].concat();
    for cut in 0..stream.len() {
        let (read, _, end) = read(&stream, &[cut]);
        let read: Vec<_> = envelopes(read).collect();
        assert!(end.between_messages);
        let empty = Envelope {
            id: RequestId::STREAM,
            end_stream: false,
            payload: Payload::Bad(adit_codec::BadMessage::UnknownPayload),
        };
        assert_eq!(read[..2], [empty.clone(), empty]);
        assert_eq!((read[2].id, read.len()), (RequestId::new(2), 3));
        assert_eq!(read[2].payload, Payload::None);
    }
}

#[test]
fn frames_that_pile_up_are_joined_in_order() {
    let mut out = BytesMut::new();
    write_window(&mut out, RequestId::new(2), 1, 1);
    write_chunk_prefix(&mut out, RequestId::new(4), 3, true);
    out.extend_from_slice(b"abc");
    let mut decoder = Decoder::new();
    assert!(decoder.is_between_messages());
    for byte in &out {
        decoder.feed(Bytes::copy_from_slice(&[*byte]));
        decoder.feed(Bytes::new());
        assert!(!decoder.is_between_messages());
    }
    let first = decoder.next().unwrap().unwrap();
    assert_eq!(first.id, RequestId::new(2));
    let second = decoder.next().unwrap().unwrap();
    assert_eq!(
        second.payload,
        Payload::Chunk {
            data: Bytes::from_static(b"abc"),
            first: true,
            last: true
        }
    );
    assert!(second.end_stream);
    assert_eq!(decoder.next(), Ok(None));
    assert!(decoder.is_between_messages());
}
