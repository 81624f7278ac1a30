//! Messages as the generated code has them, and cuts of streams.
#![allow(dead_code)] // each test binary uses a part of it

use adit_codec::{
    DecodeError, Decoder, Envelope, HeaderBlock, PREFIX_BYTES, Payload, RequestHead, ResponseHead,
};
use adit_proto::{
    Accepted, Control, GrpcRequest, GrpcResponse, Header, HttpRequest, HttpResponse, Open, Reset,
    StopSending, TcpOpen, Trailers, TunnelMessage, UdpOpen, WebSocketFrame, WebSocketRequest,
    WebSocketResponse, Window, tunnel_message::Payload as Theirs,
};
use bytes::Bytes;
use proptest::prelude::*;
use prost::{Message, encoding::decode_varint};

/// The number of cases, unless `PROPTEST_CASES` sets another one.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(count),
    }
}

/// A message after gRPC's prefix.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out
}

/// The message after the prefix of a frame that holds exactly one.
pub(crate) fn unframed(frame: &[u8]) -> &[u8] {
    let (prefix, message) = frame.split_at(PREFIX_BYTES);
    assert_eq!(prefix[0], 0);
    let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
    assert_eq!(length as usize, message.len());
    message
}

/// The position where the decoder stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) error: Option<DecodeError>,
    pub(crate) between_messages: bool,
}

/// Reads a stream cut into frames at `cuts` (any numbers; taken modulo the length). Returns each envelope with the
/// number of the frame that completed it.
pub(crate) fn read(stream: &[u8], cuts: &[usize]) -> (Vec<(usize, Envelope)>, Vec<Bytes>, End) {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    let frames: Vec<Bytes> = cuts
        .windows(2)
        .map(|cut| Bytes::copy_from_slice(&stream[cut[0]..cut[1]]))
        .collect();
    let mut decoder = Decoder::new();
    let mut envelopes = Vec::new();
    let mut error = None;
    'stream: for (number, frame) in frames.iter().enumerate() {
        decoder.feed(frame.clone());
        loop {
            match decoder.next() {
                Ok(Some(envelope)) => envelopes.push((number, envelope)),
                Ok(None) => break,
                Err(what) => {
                    error = Some(what);
                    break 'stream;
                }
            }
        }
    }
    let end = End {
        error,
        between_messages: decoder.is_between_messages(),
    };
    (envelopes, frames, end)
}

/// Joins the parts of each chunk. Every message must have one first and one last part, parts of two messages must
/// not mix, and the end may be set only on the last. `cut_short`: the stream ended inside the last message.
pub(crate) fn joined(
    envelopes: impl IntoIterator<Item = Envelope>,
    cut_short: bool,
) -> Vec<Envelope> {
    let mut whole: Vec<Envelope> = Vec::new();
    let mut open = false;
    for envelope in envelopes {
        let Payload::Chunk { data, first, last } = &envelope.payload else {
            assert!(!open, "a message inside a chunk: {envelope:?}");
            whole.push(envelope);
            continue;
        };
        assert_eq!(*first, !open, "first on the first part alone");
        assert!(*last || !envelope.end_stream, "end before the last part");
        open = !last;
        if *first {
            whole.push(envelope);
            continue;
        }
        assert!(!data.is_empty(), "an empty part");
        let before = whole.last_mut().unwrap();
        assert_eq!(before.id, envelope.id);
        let Payload::Chunk { data: start, .. } = &before.payload else {
            panic!("a part without a start");
        };
        before.payload = Payload::Chunk {
            data: [&start[..], &data[..]].concat().into(),
            first: true,
            last: *last,
        };
        before.end_stream = envelope.end_stream;
    }
    assert!(!open || cut_short, "a chunk without its last part");
    whole
}

/// The envelopes of a stream in one frame, which must be whole.
pub(crate) fn read_whole(stream: &[u8]) -> Vec<Envelope> {
    let (envelopes, _, end) = read(stream, &[]);
    assert_eq!(end.error, None);
    assert!(end.between_messages);
    joined(envelopes.into_iter().map(|(_, envelope)| envelope), false)
}

/// The one message of a stream.
pub(crate) fn read_one(message: &[u8]) -> Result<Envelope, DecodeError> {
    let (envelopes, _, end) = read(&framed(message), &[]);
    if let Some(error) = end.error {
        assert!(envelopes.is_empty());
        return Err(error);
    }
    assert!(end.between_messages);
    assert_eq!(envelopes.len(), 1);
    Ok(envelopes.into_iter().next().unwrap().1)
}

fn theirs_headers(block: &HeaderBlock) -> Vec<Header> {
    let owned: Vec<Header> = block
        .iter()
        .map(|(name, value)| Header { name, value })
        .collect();
    assert_eq!(block.len(), owned.len());
    assert_eq!(block.is_empty(), owned.is_empty());
    let borrowed = block.lines().map(|(name, value)| Header {
        name: Bytes::copy_from_slice(name),
        value: Bytes::copy_from_slice(value),
    });
    assert!(borrowed.eq(owned.iter().cloned()));
    owned
}

fn theirs_open(open: &adit_codec::Open) -> Option<Open> {
    Some(Open {
        request_uuid: Bytes::copy_from_slice(&open.request_uuid),
        tunnel: open.tunnel.to_string(),
        revision: open.revision,
        visitor: open.visitor.to_string(),
        traceparent: open.traceparent.to_string(),
        baggage: open.baggage.to_string(),
        resumable: open.resumable,
    })
}

fn theirs_request(head: &RequestHead) -> Theirs {
    let open = theirs_open(head.open());
    match head {
        RequestHead::Http(head) => Theirs::HttpRequest(HttpRequest {
            open,
            method: head.method.clone(),
            scheme: head.scheme.clone(),
            authority: head.authority.clone(),
            path: head.path.clone(),
            headers: theirs_headers(&head.headers),
            body: head.body.clone(),
            upgrade: head.upgrade.clone(),
        }),
        RequestHead::Grpc(head) => Theirs::GrpcRequest(GrpcRequest {
            open,
            authority: head.authority.clone(),
            path: head.path.clone(),
            metadata: theirs_headers(&head.metadata),
            timeout_nanos: head.timeout.map_or(0, |timeout| timeout.as_nanos() as u64),
            body: head.body.clone(),
        }),
        RequestHead::WebSocket(head) => Theirs::WebsocketRequest(WebSocketRequest {
            open,
            authority: head.authority.clone(),
            path: head.path.clone(),
            headers: theirs_headers(&head.headers),
        }),
        RequestHead::Tcp(head) => Theirs::TcpOpen(TcpOpen {
            open,
            local: head.local.to_string(),
            body: head.body.clone(),
        }),
        RequestHead::Udp(head) => Theirs::UdpOpen(UdpOpen {
            open,
            local: head.local.to_string(),
        }),
    }
}

fn theirs_response(head: &ResponseHead) -> Theirs {
    match head {
        ResponseHead::Http(head) => Theirs::HttpResponse(HttpResponse {
            status: u32::from(head.status),
            headers: theirs_headers(&head.headers),
            body: head.body.clone(),
            upgrade: head.upgrade.clone(),
        }),
        ResponseHead::Grpc(head) => Theirs::GrpcResponse(GrpcResponse {
            status: u32::from(head.status),
            metadata: theirs_headers(&head.metadata),
            body: head.body.clone(),
        }),
        ResponseHead::WebSocket(head) => Theirs::WebsocketResponse(WebSocketResponse {
            status: u32::from(head.status),
            headers: theirs_headers(&head.headers),
        }),
        ResponseHead::Accepted => Theirs::Accepted(Accepted {}),
    }
}

fn theirs_frame(frame: adit_codec::WebSocketFrame, data: &Bytes) -> Theirs {
    Theirs::WebsocketFrame(WebSocketFrame {
        fin: frame.fin,
        rsv: u32::from(frame.rsv),
        opcode: u32::from(frame.opcode),
        length: frame.length,
        payload: data.clone(),
    })
}

/// An envelope in the generated types; `None` for a bad one. The two type fields are left out: an
/// [`Envelope`] does not keep them.
pub(crate) fn as_theirs(envelope: &Envelope) -> Option<TunnelMessage> {
    let payload = match &envelope.payload {
        Payload::None => None,
        Payload::Request(head) => Some(theirs_request(head)),
        Payload::Response(head) => Some(theirs_response(head)),
        Payload::Frame { frame, data } => Some(theirs_frame(*frame, data)),
        Payload::Datagram(data) => Some(Theirs::Datagram(data.clone())),
        Payload::Compressed { frame, data, .. } => Some(match frame {
            Some(frame) => theirs_frame(*frame, data),
            None => Theirs::Chunk(data.clone()),
        }),
        Payload::Chunk { data, first, last } => {
            assert!(*first && *last);
            Some(Theirs::Chunk(data.clone()))
        }
        Payload::Trailers(block) => Some(Theirs::Trailers(Trailers {
            trailers: theirs_headers(block),
        })),
        Payload::Window { limit, consumed } => Some(Theirs::Window(Window {
            limit: *limit,
            consumed: *consumed,
        })),
        Payload::StopSending(code) => Some(Theirs::StopSending(StopSending {
            code: i32::from(code.to_wire()),
        })),
        Payload::Reset {
            code,
            reason,
            in_order,
        } => Some(Theirs::Reset(Reset {
            code: i32::from(code.to_wire()),
            reason: String::from_utf8_lossy(reason).into_owned(),
            in_order: *in_order,
        })),
        Payload::Control(bytes) => Some(Theirs::Control(Control::decode(&bytes[..]).ok()?)),
        Payload::Bad(_) => return None,
    };
    let (inflated_bytes, compression) = match &envelope.payload {
        Payload::Compressed { compressed, .. } => (
            compressed.inflated_bytes,
            i32::from(compressed.by.to_wire()),
        ),
        _ => (0, 0),
    };
    Some(TunnelMessage {
        request_id: envelope.id.value(),
        end_stream: envelope.end_stream,
        payload,
        inflated_bytes,
        compression,
        ..TunnelMessage::default()
    })
}

/// A message as an [`Envelope`] has it: without its types, with unknown reset codes as 0, and with the status that a gRPC
/// response leaves out.
pub(crate) fn without_types(message: &TunnelMessage) -> TunnelMessage {
    let mut message = message.clone();
    message.protocol_type = 0;
    message.message_type = 0;
    if let Some(Theirs::Reset(Reset { code, .. }) | Theirs::StopSending(StopSending { code })) =
        &mut message.payload
        && !(0..=12).contains(code)
    {
        *code = 0;
    }
    if let Some(Theirs::GrpcResponse(GrpcResponse { status, .. })) = &mut message.payload
        && *status == 0
    {
        *status = 200;
    }
    message
}

const TOKEN: &str = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz";

fn is_token(name: &[u8], more: &str) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|byte| TOKEN.bytes().chain(more.bytes()).any(|one| one == *byte))
}

fn is_text(bytes: &[u8]) -> bool {
    !bytes
        .iter()
        .any(|&byte| (byte < 32 && byte != 9) || byte == 127)
}

fn are_headers(headers: &[Header]) -> bool {
    headers.len() <= 256
        && headers
            .iter()
            .all(|header| is_token(&header.name, "") && is_text(&header.value))
}

fn is_target(bytes: &[u8]) -> bool {
    is_text(bytes) && !bytes.contains(&b' ') && !bytes.contains(&b'\t')
}

fn holds_open(open: Option<&Open>) -> bool {
    open.is_some_and(|open| {
        let texts = [
            &open.tunnel,
            &open.visitor,
            &open.traceparent,
            &open.baggage,
        ];
        open.request_uuid.len() == 16 && texts.iter().all(|text| is_text(text.as_bytes()))
    })
}

fn is_place(authority: &[u8], path: &[u8]) -> bool {
    is_target(authority) && path.starts_with(b"/") && is_target(path)
}

fn holds_compressed(message: &TunnelMessage) -> bool {
    let before = message.inflated_bytes;
    if before == 0 && message.compression == 0 {
        return true;
    }
    let (length, whole) = match &message.payload {
        Some(Theirs::Chunk(data)) => (data.len(), u64::MAX),
        Some(Theirs::WebsocketFrame(frame)) => (frame.payload.len(), frame.length),
        _ => return false,
    };
    (1..=2).contains(&message.compression)
        && before <= 65_536
        && length < before as usize
        && u64::from(before) <= whole
}

/// Whether the decoder must refuse a message that the generated code reads: the rules of docs/protocol.md that protobuf
/// does not have.
pub(crate) fn is_refused(message: &TunnelMessage) -> bool {
    let (fits, holds) = match &message.payload {
        None => (3, message.end_stream),
        Some(Theirs::HttpRequest(head)) => {
            let holds = holds_open(head.open.as_ref())
                && is_token(&head.method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
                && [&b""[..], b"http", b"https"].contains(&&head.scheme[..])
                && is_target(&head.authority)
                && !head.path.is_empty()
                && is_target(&head.path)
                && is_text(&head.upgrade)
                && are_headers(&head.headers);
            (1, holds)
        }
        Some(Theirs::GrpcRequest(head)) => {
            let holds = holds_open(head.open.as_ref())
                && is_place(&head.authority, &head.path)
                && are_headers(&head.metadata);
            (1, holds)
        }
        Some(Theirs::WebsocketRequest(head)) => {
            let holds = holds_open(head.open.as_ref())
                && is_place(&head.authority, &head.path)
                && are_headers(&head.headers);
            (1, holds)
        }
        Some(Theirs::TcpOpen(head)) => (
            1,
            holds_open(head.open.as_ref()) && is_text(head.local.as_bytes()),
        ),
        Some(Theirs::UdpOpen(head)) => (
            1,
            holds_open(head.open.as_ref()) && is_text(head.local.as_bytes()),
        ),
        Some(Theirs::HttpResponse(head)) => (
            2,
            (100..1000).contains(&head.status)
                && is_text(&head.upgrade)
                && are_headers(&head.headers),
        ),
        Some(Theirs::GrpcResponse(head)) => (
            2,
            (head.status == 0 || (200..1000).contains(&head.status)) && are_headers(&head.metadata),
        ),
        Some(Theirs::WebsocketResponse(head)) => (
            2,
            (head.status == 101 || (200..1000).contains(&head.status))
                && are_headers(&head.headers),
        ),
        Some(Theirs::Accepted(_)) => (2, true),
        Some(Theirs::WebsocketFrame(frame)) => (
            8,
            frame.rsv < 8
                && frame.opcode < 16
                && frame.length < 1 << 63
                && frame.payload.len() as u64 <= frame.length,
        ),
        Some(Theirs::Datagram(data)) => (9, data.len() <= 65_507),
        Some(Theirs::Chunk(_)) => (3, true),
        Some(Theirs::Trailers(block)) => (4, are_headers(&block.trailers)),
        Some(Theirs::Window(_)) => (5, true),
        Some(Theirs::StopSending(_)) => (6, true),
        Some(Theirs::Reset(_)) => (7, true),
        Some(Theirs::Control(_)) => (11, true),
        Some(_) => (0, false),
    };
    !holds
        || !holds_compressed(message)
        || (message.message_type != 0 && message.message_type != fits)
}

/// Usually a value as in real heads, sometimes any value.
fn mostly<T: std::fmt::Debug>(
    good: impl Strategy<Value = T> + 'static,
    any: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = T> {
    prop_oneof![40 => good, 1 => any]
}

fn text_bytes(pattern: &'static str) -> impl Strategy<Value = Bytes> {
    mostly(
        proptest::string::bytes_regex(pattern).unwrap(),
        proptest::collection::vec(any::<u8>(), 0..8),
    )
    .prop_map(Bytes::from)
}

fn text(pattern: &'static str) -> impl Strategy<Value = String> {
    mostly(pattern, any::<String>())
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    prop_oneof![
        1 => Just(Vec::new()),
        8 => proptest::collection::vec(any::<u8>(), 0..200),
        1 => (0..=most, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
    .prop_map(Bytes::from)
}

pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        1..200u64,
        (0..64u32).prop_map(|bit| 1 << bit),
        (0..64u32).prop_map(|bit| (1 << bit) - 1),
        any::<u64>(),
        Just(u64::MAX)
    ]
}

pub(crate) fn headers() -> impl Strategy<Value = Vec<Header>> {
    let header = (
        text_bytes("[a-z0-9!#$%&'*+.^_`|~-]{1,20}"),
        text_bytes("[\t -~]{0,40}|[ -~\\x80-\\xff]{0,200}"),
    )
        .prop_map(|(name, value)| Header { name, value });
    proptest::collection::vec(header, 0..6)
}

pub(crate) fn open() -> impl Strategy<Value = Open> {
    (
        mostly(
            proptest::collection::vec(any::<u8>(), 16),
            proptest::collection::vec(any::<u8>(), 0..20),
        )
        .prop_map(Bytes::from),
        text("[a-z]{0,12}"),
        number(),
        text("[0-9.:]{0,20}"),
        text("[0-9a-f-]{0,55}"),
        text("[ -~é]{0,200}"),
        any::<bool>(),
    )
        .prop_map(
            |(request_uuid, tunnel, revision, visitor, traceparent, baggage, resumable)| Open {
                request_uuid,
                tunnel,
                revision,
                visitor,
                traceparent,
                baggage,
                resumable,
            },
        )
}

pub(crate) fn http_request() -> impl Strategy<Value = HttpRequest> {
    (
        mostly(open().prop_map(Some), Just(None)),
        text_bytes("[A-Za-z!#$%&'*+.^_`|~-]{1,8}"),
        text_bytes("http|https|"),
        text_bytes("[a-z0-9.:\\[\\]]{0,30}"),
        text_bytes("/[!-~\\x80-\\xff]{0,100}"),
        headers(),
        bytes(3000),
        text_bytes("([a-z]{1,8}(/[0-9.]{1,3})?)?"),
    )
        .prop_map(
            |(open, method, scheme, authority, path, headers, body, upgrade)| HttpRequest {
                open,
                method,
                scheme,
                authority,
                path,
                headers,
                body,
                upgrade,
            },
        )
}

pub(crate) fn http_response() -> impl Strategy<Value = HttpResponse> {
    (
        mostly(prop_oneof![Just(101), 100..1000u32], any::<u32>()),
        headers(),
        bytes(3000),
        text_bytes("([a-z]{1,8})?"),
    )
        .prop_map(|(status, headers, body, upgrade)| {
            // Only a switch names a protocol, and it has no body.
            let (body, upgrade) = if status == 101 {
                (Bytes::new(), upgrade)
            } else {
                (body, Bytes::new())
            };
            HttpResponse {
                status,
                headers,
                body,
                upgrade,
            }
        })
}

fn opened() -> impl Strategy<Value = Option<Open>> {
    mostly(open().prop_map(Some), Just(None))
}

fn local() -> impl Strategy<Value = String> {
    text("[0-9.:]{0,20}")
}

/// Authority and path.
fn place() -> impl Strategy<Value = (Bytes, Bytes)> {
    (
        text_bytes("[a-z0-9.:\\[\\]]{0,30}"),
        text_bytes("/[!-~\\x80-\\xff]{0,100}"),
    )
}

/// Opening heads of the protocols other than HTTP.
fn other_request() -> impl Strategy<Value = Theirs> {
    prop_oneof![
        (opened(), place(), headers(), number(), bytes(3000)).prop_map(
            |(open, (authority, path), metadata, timeout_nanos, body)| {
                Theirs::GrpcRequest(GrpcRequest {
                    open,
                    authority,
                    path,
                    metadata,
                    timeout_nanos,
                    body,
                })
            }
        ),
        (opened(), place(), headers()).prop_map(|(open, (authority, path), headers)| {
            Theirs::WebsocketRequest(WebSocketRequest {
                open,
                authority,
                path,
                headers,
            })
        }),
        (opened(), local(), bytes(3000)).prop_map(|(open, local, body)| Theirs::TcpOpen(TcpOpen {
            open,
            local,
            body
        })),
        (opened(), local()).prop_map(|(open, local)| Theirs::UdpOpen(UdpOpen { open, local })),
    ]
}

/// Responses of the protocols other than HTTP.
fn other_response() -> impl Strategy<Value = Theirs> {
    prop_oneof![
        (mostly(200..1000u32, any::<u32>()), headers(), bytes(3000)).prop_map(
            |(status, metadata, body)| Theirs::GrpcResponse(GrpcResponse {
                status,
                metadata,
                body,
            })
        ),
        (prop_oneof![Just(101), 0..1000u32], headers()).prop_map(|(status, headers)| {
            Theirs::WebsocketResponse(WebSocketResponse { status, headers })
        }),
        Just(Theirs::Accepted(Accepted {})),
    ]
}

fn frame() -> impl Strategy<Value = Theirs> {
    (
        any::<bool>(),
        mostly(0..8u32, any::<u32>()),
        mostly(0..16u32, any::<u32>()),
        number(),
        bytes(3000),
    )
        .prop_map(|(fin, rsv, opcode, more, payload)| {
            // Mostly the payload is the start of a frame.
            let length = more.wrapping_add(payload.len() as u64);
            Theirs::WebsocketFrame(WebSocketFrame {
                fin,
                rsv,
                opcode,
                length,
                payload,
            })
        })
}

fn code() -> impl Strategy<Value = i32> {
    mostly(0..=12, any::<i32>())
}

fn control() -> impl Strategy<Value = Control> {
    use adit_proto::{Drain, Heartbeat, control::Kind};
    prop_oneof![
        Just(Control { kind: None }),
        (number(), any::<bool>()).prop_map(|(sequence, reply)| Control {
            kind: Some(Kind::Heartbeat(Heartbeat { sequence, reply }))
        }),
        ("[a-z]{0,90}", number()).prop_map(|(reason, grace_millis)| Control {
            kind: Some(Kind::Drain(Drain {
                reason,
                grace_millis
            }))
        }),
    ]
}

/// Payloads that this version of adit supports, with the message type that fits.
fn carried() -> impl Strategy<Value = (i32, Option<Theirs>)> {
    prop_oneof![
        1 => Just((3, None)),
        3 => http_request().prop_map(|head| (1, Some(Theirs::HttpRequest(head)))),
        3 => http_response().prop_map(|head| (2, Some(Theirs::HttpResponse(head)))),
        4 => other_request().prop_map(|head| (1, Some(head))),
        3 => other_response().prop_map(|head| (2, Some(head))),
        2 => frame().prop_map(|frame| (8, Some(frame))),
        1 => bytes(65_600).prop_map(|data| (9, Some(Theirs::Datagram(data)))),
        4 => bytes(70_000).prop_map(|data| (3, Some(Theirs::Chunk(data)))),
        2 => headers().prop_map(|trailers| (4, Some(Theirs::Trailers(Trailers { trailers })))),
        1 => (number(), number()).prop_map(
            |(limit, consumed)| (5, Some(Theirs::Window(Window { limit, consumed })))
        ),
        1 => code().prop_map(|code| (6, Some(Theirs::StopSending(StopSending { code })))),
        1 => (code(), text("[ -~é]{0,300}"), any::<bool>()).prop_map(|(code, reason, in_order)| {
            (7, Some(Theirs::Reset(Reset { code, reason, in_order })))
        }),
        1 => control().prop_map(|control| (11, Some(Theirs::Control(control)))),
    ]
}

/// Payloads that this version of adit does not support.
fn foreign() -> impl Strategy<Value = (i32, Option<Theirs>)> {
    (bytes(100), number()).prop_map(|(request_uuid, received)| {
        let resume = adit_proto::Resume {
            request_uuid,
            received,
        };
        (0, Some(Theirs::Resume(resume)))
    })
}

/// The compression fields of a message: mostly absent, sometimes valid for its payload, or arbitrary.
fn compression() -> impl Strategy<Value = (u8, u32, i32)> {
    prop_oneof![
        6 => Just((0, 0, 0)),
        2 => (1..=70_000u32, 1..=2i32).prop_map(|(more, by)| (1, more, by)),
        1 => (prop_oneof![Just(0), 1..70_000u32, any::<u32>()], prop_oneof![0..=3i32, any::<i32>()])
            .prop_map(|(before, by)| (2, before, by)),
    ]
}

/// Any message that the generated code can hold.
pub(crate) fn message() -> impl Strategy<Value = TunnelMessage> {
    (plain_message(), compression()).prop_map(|(mut message, (how, before, by))| {
        let length = match (&message.payload, how) {
            (_, 0) => return message,
            (Some(Theirs::Chunk(data)), 1) => data.len() as u32,
            (Some(Theirs::WebsocketFrame(frame)), 1) => frame.payload.len() as u32,
            _ => 0,
        };
        message.inflated_bytes = length.saturating_add(before);
        message.compression = by;
        message
    })
}

fn plain_message() -> impl Strategy<Value = TunnelMessage> {
    (
        number(),
        mostly(0..=6, any::<i32>()),
        prop_oneof![20 => carried(), 1 => foreign()],
        prop_oneof![10 => Just(0u8), 5 => Just(1), 1 => Just(2)],
        -1..=13i32,
        any::<bool>(),
    )
        .prop_map(
            |(request_id, protocol_type, (fits, payload), pick, other, end_stream)| TunnelMessage {
                request_id,
                protocol_type,
                message_type: [fits, 0, other][usize::from(pick)],
                end_stream: end_stream || payload.is_none() && other != 7,
                payload,
                ..TunnelMessage::default()
            },
        )
}

/// Number, wire type and all bytes of each field; `None` where the bytes are not valid protobuf.
pub(crate) fn fields(mut message: &[u8]) -> Option<Vec<(u64, u8, &[u8])>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let start = message;
        let key = decode_varint(&mut message).ok()?;
        match key & 7 {
            0 => drop(decode_varint(&mut message).ok()?),
            1 => message = message.get(8..)?,
            2 => {
                let length = decode_varint(&mut message).ok()?;
                message = message.get(usize::try_from(length).ok()?..)?;
            }
            5 => message = message.get(4..)?,
            _ => return None,
        }
        let taken = start.len() - message.len();
        fields.push((key >> 3, (key & 7) as u8, &start[..taken]));
    }
    Some(fields)
}
