//! What messages say, in the terms of the generated code, and how streams are cut.
#![allow(dead_code)] // each test binary uses a part of it

use adit_codec::{DecodeError, Decoder, Envelope, HeaderBlock, PREFIX_BYTES, Payload};
use adit_proto::{
    Control, Header, HttpRequest, HttpResponse, Open, Reset, StopSending, Trailers, TunnelMessage,
    Window, tunnel_message::Payload as Theirs,
};
use bytes::Bytes;
use proptest::prelude::*;
use prost::{Message, encoding::decode_varint};

/// As many cases, unless `PROPTEST_CASES` asks for another number.
pub(crate) fn cases(count: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(count),
    }
}

/// A message behind gRPC's prefix.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out
}

/// The message behind the prefix of a frame that holds exactly one.
pub(crate) fn unframed(frame: &[u8]) -> &[u8] {
    let (prefix, message) = frame.split_at(PREFIX_BYTES);
    assert_eq!(prefix[0], 0);
    let length = u32::from_be_bytes(prefix[1..].try_into().unwrap());
    assert_eq!(length as usize, message.len());
    message
}

/// Where a reading came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) error: Option<DecodeError>,
    pub(crate) between_messages: bool,
}

/// Reads a stream cut into frames at `cuts` (any numbers; taken modulo the length). Gives each envelope with the
/// number of the frame that brought it forth.
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
/// not mix, and the end may stand on the last only. `cut_short`: the stream ended inside the last message.
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
        assert!(!data.is_empty(), "a part that says nothing");
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

/// What an envelope says, in the generated types; `None` for a bad one. The two type fields are left out: an
/// [`Envelope`] does not keep them.
pub(crate) fn as_theirs(envelope: &Envelope) -> Option<TunnelMessage> {
    let payload = match &envelope.payload {
        Payload::None => None,
        Payload::HttpRequest(head) => Some(Theirs::HttpRequest(HttpRequest {
            open: Some(Open {
                request_uuid: Bytes::copy_from_slice(&head.open.request_uuid),
                tunnel: head.open.tunnel.to_string(),
                revision: head.open.revision,
                visitor: head.open.visitor.to_string(),
                traceparent: head.open.traceparent.to_string(),
                baggage: head.open.baggage.to_string(),
                resumable: head.open.resumable,
            }),
            method: head.method.clone(),
            scheme: head.scheme.clone(),
            authority: head.authority.clone(),
            path: head.path.clone(),
            headers: theirs_headers(&head.headers),
            body: head.body.clone(),
        })),
        Payload::HttpResponse(head) => Some(Theirs::HttpResponse(HttpResponse {
            status: u32::from(head.status),
            headers: theirs_headers(&head.headers),
            body: head.body.clone(),
        })),
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
        Payload::Reset { code, reason } => Some(Theirs::Reset(Reset {
            code: i32::from(code.to_wire()),
            reason: String::from_utf8_lossy(reason).into_owned(),
        })),
        Payload::Control(bytes) => Some(Theirs::Control(Control::decode(&bytes[..]).ok()?)),
        Payload::Bad(_) => return None,
    };
    Some(TunnelMessage {
        request_id: envelope.id.value(),
        end_stream: envelope.end_stream,
        payload,
        ..TunnelMessage::default()
    })
}

/// A message as an [`Envelope`] would say it: without its types, and with reset codes that no build knows as 0.
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

/// Whether ours must refuse what the generated code reads: the rules of docs/protocol.md that protobuf does not know.
pub(crate) fn is_refused(message: &TunnelMessage) -> bool {
    let (fits, holds) = match &message.payload {
        None => (3, message.end_stream),
        Some(Theirs::HttpRequest(head)) => {
            let holds = head.open.as_ref().is_some_and(|open| {
                open.request_uuid.len() == 16
                    && [
                        &open.tunnel,
                        &open.visitor,
                        &open.traceparent,
                        &open.baggage,
                    ]
                    .iter()
                    .all(|text| is_text(text.as_bytes()))
            }) && is_token(&head.method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
                && [&b""[..], b"http", b"https"].contains(&&head.scheme[..])
                && is_target(&head.authority)
                && !head.path.is_empty()
                && is_target(&head.path)
                && are_headers(&head.headers);
            (1, holds)
        }
        Some(Theirs::HttpResponse(head)) => (
            2,
            (100..1000).contains(&head.status) && are_headers(&head.headers),
        ),
        Some(Theirs::Chunk(_)) => (3, true),
        Some(Theirs::Trailers(block)) => (4, are_headers(&block.trailers)),
        Some(Theirs::Window(_)) => (5, true),
        Some(Theirs::StopSending(_)) => (6, true),
        Some(Theirs::Reset(_)) => (7, true),
        Some(Theirs::Control(_)) => (11, true),
        Some(_) => (0, false),
    };
    !holds || (message.message_type != 0 && message.message_type != fits)
}

/// Mostly what stands in real heads, now and then anything.
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
    )
        .prop_map(
            |(open, method, scheme, authority, path, headers, body)| HttpRequest {
                open,
                method,
                scheme,
                authority,
                path,
                headers,
                body,
            },
        )
}

pub(crate) fn http_response() -> impl Strategy<Value = HttpResponse> {
    (mostly(100..1000u32, any::<u32>()), headers(), bytes(3000)).prop_map(
        |(status, headers, body)| HttpResponse {
            status,
            headers,
            body,
        },
    )
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

/// Payloads that this build carries, with the message type that fits.
fn carried() -> impl Strategy<Value = (i32, Option<Theirs>)> {
    prop_oneof![
        1 => Just((3, None)),
        3 => http_request().prop_map(|head| (1, Some(Theirs::HttpRequest(head)))),
        3 => http_response().prop_map(|head| (2, Some(Theirs::HttpResponse(head)))),
        4 => bytes(70_000).prop_map(|data| (3, Some(Theirs::Chunk(data)))),
        2 => headers().prop_map(|trailers| (4, Some(Theirs::Trailers(Trailers { trailers })))),
        1 => (number(), number()).prop_map(
            |(limit, consumed)| (5, Some(Theirs::Window(Window { limit, consumed })))
        ),
        1 => code().prop_map(|code| (6, Some(Theirs::StopSending(StopSending { code })))),
        1 => (code(), text("[ -~é]{0,300}"))
            .prop_map(|(code, reason)| (7, Some(Theirs::Reset(Reset { code, reason })))),
        1 => control().prop_map(|control| (11, Some(Theirs::Control(control)))),
    ]
}

/// Payloads of the protocol that this build does not carry.
fn foreign() -> impl Strategy<Value = (i32, Option<Theirs>)> {
    use adit_proto::{
        Accepted, GrpcRequest, GrpcResponse, Resume, TcpOpen, UdpOpen, WebSocketFrame,
        WebSocketRequest, WebSocketResponse,
    };
    (0..11u8, bytes(100)).prop_map(|(which, some)| {
        let payload = match which {
            0 => Theirs::GrpcRequest(GrpcRequest {
                path: some,
                ..GrpcRequest::default()
            }),
            1 => Theirs::GrpcResponse(GrpcResponse {
                body: some,
                ..GrpcResponse::default()
            }),
            2 => Theirs::WebsocketRequest(WebSocketRequest::default()),
            3 => Theirs::WebsocketResponse(WebSocketResponse::default()),
            4 => Theirs::TcpOpen(TcpOpen::default()),
            5 => Theirs::UdpOpen(UdpOpen::default()),
            6 => Theirs::Accepted(Accepted {}),
            7 => Theirs::Resume(Resume {
                request_uuid: some,
                received: 1,
            }),
            8 => Theirs::WebsocketFrame(WebSocketFrame::default()),
            _ => Theirs::Datagram(some),
        };
        (0, Some(payload))
    })
}

/// Any message that the generated code can hold.
pub(crate) fn message() -> impl Strategy<Value = TunnelMessage> {
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
            },
        )
}

/// Number, wire type and all bytes of each field; `None` where the bytes are no protobuf.
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
