//! Heads: the opening messages and their answers, a module for each protocol.
//!
//! A head is written once, by the task that makes it, into a buffer of its own ([`EncodedHead`]); the request's id is
//! put before it when the message leaves, because ids are given out in the order in which messages leave (P-2.2).
//! Nothing above the codec needs to know which protocols there are: [`RequestHead`] and [`AnswerHead`] say what all have.

mod grpc;
mod http;
mod open;
mod session;
mod websocket;

use bytes::Bytes;

pub(crate) use self::{
    grpc::{GRPC_REQUEST_FIELD, GRPC_RESPONSE_FIELD},
    http::{HTTP_REQUEST_FIELD, HTTP_RESPONSE_FIELD},
    session::{ACCEPTED_FIELD, TCP_OPEN_FIELD, UDP_OPEN_FIELD},
    websocket::{
        WEBSOCKET_FRAME_FIELD, WEBSOCKET_REQUEST_FIELD, WEBSOCKET_RESPONSE_FIELD, decode_frame,
    },
};
pub use self::{
    grpc::{GrpcRequest, GrpcRequestHead, GrpcResponse, GrpcResponseHead},
    http::{HttpRequest, HttpRequestHead, HttpResponse, HttpResponseHead},
    open::Open,
    session::{TcpOpen, TcpOpenHead, UdpOpen, UdpOpenHead, accepted},
    websocket::{
        WebSocketFrame, WebSocketRequest, WebSocketRequestHead, WebSocketResponse,
        WebSocketResponseHead,
    },
};
use crate::{
    error::{BadMessage, HeadError},
    frame::MAX_MESSAGE_BYTES,
    headers::{Gather, HeaderBlock, MAX_HEAD_BYTES, MAX_WIRE_LINES, put_header},
    id::{MessageType, ProtocolType},
    wire::{
        MAX_VARINT_BYTES, Reader, fill_length_gap, length_key, put_bytes, put_length_gap,
        varint_len,
    },
};

/// Room for what [`crate::write_head`] puts before a head: id, types and end.
const ENVELOPE_BYTES: usize = 32;

/// The head of a request: one variant for each protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestHead {
    /// An HTTP exchange.
    Http(Box<HttpRequest>),
    /// A gRPC call.
    Grpc(Box<GrpcRequest>),
    /// A WebSocket connection.
    WebSocket(Box<WebSocketRequest>),
    /// A TCP connection.
    Tcp(Box<TcpOpen>),
    /// A UDP flow.
    Udp(Box<UdpOpen>),
}

impl RequestHead {
    /// What it speaks.
    pub const fn protocol(&self) -> ProtocolType {
        match self {
            Self::Http(_) => ProtocolType::Http,
            Self::Grpc(_) => ProtocolType::Grpc,
            Self::WebSocket(_) => ProtocolType::WebSocket,
            Self::Tcp(_) => ProtocolType::Tcp,
            Self::Udp(_) => ProtocolType::Udp,
        }
    }

    /// The opening part.
    pub fn open(&self) -> &Open {
        match self {
            Self::Http(head) => &head.open,
            Self::Grpc(head) => &head.open,
            Self::WebSocket(head) => &head.open,
            Self::Tcp(head) => &head.open,
            Self::Udp(head) => &head.open,
        }
    }

    /// The same, to change it.
    pub fn open_mut(&mut self) -> &mut Open {
        match self {
            Self::Http(head) => &mut head.open,
            Self::Grpc(head) => &mut head.open,
            Self::WebSocket(head) => &mut head.open,
            Self::Tcp(head) => &mut head.open,
            Self::Udp(head) => &mut head.open,
        }
    }

    /// The payload that rides in it; empty where there is none.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Http(head) => head.body.len(),
            Self::Grpc(head) => head.body.len(),
            Self::Tcp(head) => head.body.len(),
            Self::WebSocket(_) | Self::Udp(_) => 0,
        }
    }

    /// Takes the payload out.
    pub fn take_body(&mut self) -> Bytes {
        match self {
            Self::Http(head) => std::mem::take(&mut head.body),
            Self::Grpc(head) => std::mem::take(&mut head.body),
            Self::Tcp(head) => std::mem::take(&mut head.body),
            Self::WebSocket(_) | Self::Udp(_) => Bytes::new(),
        }
    }
}

/// The head of an answer: one variant for each protocol that has its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerHead {
    /// Of an HTTP exchange.
    Http(Box<HttpResponse>),
    /// Of a gRPC call.
    Grpc(Box<GrpcResponse>),
    /// Of a WebSocket connection.
    WebSocket(Box<WebSocketResponse>),
    /// Of a TCP connection or a UDP flow: the service is there.
    Accepted,
}

impl AnswerHead {
    /// Whether it can answer a request of this protocol.
    pub const fn answers(&self, protocol: ProtocolType) -> bool {
        matches!(
            (self, protocol),
            (Self::Http(_), ProtocolType::Http)
                | (Self::Grpc(_), ProtocolType::Grpc)
                | (Self::WebSocket(_), ProtocolType::WebSocket)
                | (Self::Accepted, ProtocolType::Tcp | ProtocolType::Udp)
        )
    }

    /// Whether payload may follow it, and no other head. An interim answer of HTTP is not; the switch to another protocol
    /// is.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Http(head) => head.status >= 200 || head.status == 101,
            Self::Grpc(_) | Self::WebSocket(_) | Self::Accepted => true,
        }
    }

    /// The payload that rides in it; empty where there is none.
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Http(head) => head.body.len(),
            Self::Grpc(head) => head.body.len(),
            Self::WebSocket(_) | Self::Accepted => 0,
        }
    }

    /// Takes the payload out.
    pub fn take_body(&mut self) -> Bytes {
        match self {
            Self::Http(head) => std::mem::take(&mut head.body),
            Self::Grpc(head) => std::mem::take(&mut head.body),
            Self::WebSocket(_) | Self::Accepted => Bytes::new(),
        }
    }
}

/// A head ready to leave: the payload field of its envelope, without the id.
#[derive(Debug)]
pub struct EncodedHead {
    pub(crate) protocol: ProtocolType,
    pub(crate) message_type: MessageType,
    pub(crate) field: Vec<u8>,
    body_bytes: usize,
}

impl EncodedHead {
    /// What it speaks.
    pub const fn protocol(&self) -> ProtocolType {
        self.protocol
    }

    /// Payload bytes that ride in this head; they cost credit (P-4.1).
    pub const fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Bytes this head takes on the wire, envelope aside.
    pub fn wire_len(&self) -> usize {
        self.field.len()
    }
}

fn put_length_gap_of(out: &mut Vec<u8>, field: u8) -> usize {
    put_length_gap(out, length_key(field))
}

/// Writes header lines, up to the bounds of P-2.10.
fn put_headers<'h>(
    out: &mut Vec<u8>,
    field: u8,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
) -> Result<(), HeadError> {
    let mut lines = 0;
    for (name, value) in headers {
        lines += 1;
        if lines > MAX_WIRE_LINES {
            return Err(HeadError::TooManyHeaders {
                limit: MAX_WIRE_LINES,
            });
        }
        if out.len() + name.len() + value.len() > MAX_HEAD_BYTES {
            return Err(HeadError::TooLong {
                limit: MAX_HEAD_BYTES,
            });
        }
        put_header(out, field, name, value);
    }
    Ok(())
}

/// Writes the payload that rides along and closes the field that began at `start`.
fn finish(
    mut out: Vec<u8>,
    start: usize,
    kind: (ProtocolType, MessageType),
    (body_field, body): (u8, &[u8]),
) -> Result<EncodedHead, HeadError> {
    if out.len() > MAX_HEAD_BYTES {
        return Err(HeadError::TooLong {
            limit: MAX_HEAD_BYTES,
        });
    }
    let body_len = 1 + varint_len(body.len() as u64) + body.len();
    if out.len() + body_len + ENVELOPE_BYTES > MAX_MESSAGE_BYTES {
        return Err(HeadError::TooLong {
            limit: MAX_MESSAGE_BYTES,
        });
    }
    put_bytes(&mut out, body_field, body);
    fill_length_gap(&mut out, start);
    Ok(EncodedHead {
        protocol: kind.0,
        message_type: kind.1,
        field: out,
        body_bytes: body.len(),
    })
}

/// Whether a message that arrived is longer than a head may be, its body aside.
fn is_head_too_long(message: &[u8], body: &[u8]) -> bool {
    message.len() - body.len() > MAX_HEAD_BYTES + MAX_VARINT_BYTES
}

/// Whether bytes can stand in a request line: no space, no control character (RFC 9112, 3).
fn is_line_part(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte > 0x20 && byte != 0x7f)
}

/// Trailers, or any other message that is a run of headers in field 1.
pub(crate) fn decode_trailers(message: &Bytes) -> Result<HeaderBlock, BadMessage> {
    if message.len() > MAX_HEAD_BYTES {
        return Err(BadMessage::HeadTooLong);
    }
    let mut reader = Reader::new(message);
    let mut headers = Gather::default();
    loop {
        let key_at = reader.offset();
        let Some((field, value)) = reader.field()? else {
            break;
        };
        if field == 1 {
            headers.push(message, key_at, value.range()?)?;
        }
    }
    Ok(headers.finish(message))
}

#[cfg(test)]
#[cfg(not(adit_loom))]
#[allow(clippy::unwrap_used, clippy::cast_possible_truncation)]
mod tests {
    use bytes::{BufMut, BytesMut};

    use super::{
        open::{put_open, read_open},
        *,
    };
    use crate::{Decoder, Payload, RequestId, wire::put_uint, write_head};

    pub(super) fn open() -> Open {
        Open {
            request_uuid: [7; 16],
            tunnel: "web".into(),
            revision: 3,
            visitor: "192.0.2.1:4000".into(),
            traceparent: "00-1-2-01".into(),
            baggage: "a=b".into(),
            resumable: true,
        }
    }

    /// The content of an encoded head, without key and length.
    pub(super) fn content(head: EncodedHead) -> Bytes {
        Bytes::from(head.field).slice(4..)
    }

    /// A head with a field behind it that nobody knows, which makes it `length` bytes long.
    pub(super) fn filled(head: &Bytes, length: usize) -> Bytes {
        let mut out = BytesMut::from(&head[..]);
        // Key and length take six bytes.
        let noise = length - out.len() - 6;
        crate::wire::put_varint(&mut out, 100 << 3 | 2);
        out.put_slice(&[
            (noise & 0x7f) as u8 | 0x80,
            (noise >> 7 & 0x7f) as u8 | 0x80,
            (noise >> 14 & 0x7f) as u8 | 0x80,
            0,
        ]);
        out.put_bytes(0, noise);
        assert_eq!(out.len(), length);
        out.freeze()
    }

    /// The longest head that is read (P-2.10).
    pub(super) const LONGEST: usize = MAX_HEAD_BYTES + MAX_VARINT_BYTES;

    fn request(
        change: impl FnOnce(&mut HttpRequestHead<'_>),
    ) -> Result<Box<HttpRequest>, BadMessage> {
        let open = open();
        let mut head = HttpRequestHead {
            open: &open,
            method: "GET",
            scheme: "https",
            authority: b"a.example:443",
            path: b"/x?y",
        };
        change(&mut head);
        let encoded = head.encode([(&b"a"[..], &b"1"[..])].into_iter(), b"body");
        HttpRequest::decode(content(encoded.unwrap()))
    }

    fn opened(change: impl FnOnce(&mut Open)) -> Result<Open, BadMessage> {
        let mut open = open();
        change(&mut open);
        let mut out = Vec::new();
        put_open(&mut out, &open);
        read_open(&out[4..])
    }

    #[test]
    fn a_request_reads_back() {
        let read = request(|_| {}).unwrap();
        assert_eq!(read.open, open());
        assert_eq!(
            (&read.method[..], &read.scheme[..]),
            (&b"GET"[..], &b"https"[..])
        );
        assert_eq!(read.authority, "a.example:443");
        assert_eq!(
            (&read.path[..], &read.body[..]),
            (&b"/x?y"[..], &b"body"[..])
        );
        assert_eq!(read.headers.first(b"a"), Some(&b"1"[..]));
    }

    #[test]
    fn what_no_request_line_can_hold_is_refused() {
        let bad = Some(BadMessage::Head);
        for method in [
            "", "GE T", "GET\r", "G\u{7f}", "G(", "G:", "GÉT", "G\"", "{",
        ] {
            assert_eq!(request(|head| head.method = method).err(), bad, "{method}");
        }
        for method in ["M-SEARCH", "get", "!#$%&'*+-.^_`|~09"] {
            assert_eq!(request(|head| head.method = method).err(), None, "{method}");
        }
        for path in [
            &b""[..],
            b" ",
            b"/a b",
            b"/\r\n",
            b"/\t",
            b"/\x7f",
            b"/\x1f",
        ] {
            assert_eq!(request(|head| head.path = path).err(), bad, "{path:?}");
        }
        for authority in [&b"a b"[..], b"\n", b"\x7f"] {
            assert_eq!(request(|head| head.authority = authority).err(), bad);
        }
        assert_eq!(request(|head| head.authority = b"").err(), None);
        assert_eq!(request(|head| head.path = b"/\x21\x80\xff").err(), None);
        for scheme in ["ftp", "HTTP", "httpss"] {
            assert_eq!(request(|head| head.scheme = scheme).err(), bad);
        }
        for scheme in ["", "http"] {
            assert_eq!(request(|head| head.scheme = scheme).err(), None);
        }
    }

    #[test]
    fn an_opening_part_holds_a_uuid_and_no_line_ends() {
        assert_eq!(opened(|_| {}), Ok(open()));
        assert_eq!(
            opened(|one| one.resumable = false).map(|one| one.resumable),
            Ok(false)
        );
        let bad = Err(BadMessage::Head);
        assert_eq!(opened(|one| one.tunnel = "a\n".into()), bad);
        assert_eq!(opened(|one| one.visitor = "\r".into()), bad);
        assert_eq!(opened(|one| one.traceparent = "\0".into()), bad);
        assert_eq!(opened(|one| one.baggage = "a\r\nb: c".into()), bad);
        assert_eq!(read_open(&[]), bad, "no UUID");
        assert_eq!(read_open(&[0x0a, 2, 1, 1]), bad, "a short UUID");
        let mut not_text = vec![0x0a, 16];
        not_text.extend([1; 16]);
        assert!(read_open(&not_text).is_ok());
        not_text.extend([0x12, 1, 0xff]);
        assert_eq!(read_open(&not_text), bad);
    }

    #[test]
    fn an_opening_head_without_open_is_refused() {
        let head = Bytes::from_static(b"\x12\x03GET\x2a\x01/");
        assert_eq!(HttpRequest::decode(head), Err(BadMessage::Head));
    }

    #[test]
    fn a_status_has_three_digits() {
        for (status, holds) in [
            (0, false),
            (99, false),
            (100, true),
            (999, true),
            (1000, false),
        ] {
            let head = HttpResponseHead { status }.encode(std::iter::empty(), b"");
            let read = HttpResponse::decode(content(head.unwrap()));
            assert_eq!(read.map(|read| read.status).ok(), holds.then_some(status));
        }
        let above = Bytes::from_static(&[0x08, 0xe4, 0x80, 0x04]); // 100 and 2^16
        assert_eq!(HttpResponse::decode(above), Err(BadMessage::Head));
    }

    #[test]
    fn heads_are_written_up_to_the_bounds() {
        let response = HttpResponseHead { status: 200 };
        let encode =
            |value: &[u8], body: &[u8]| response.encode([(&b"a"[..], value)].into_iter(), body);
        // Key and length 4, status 3, the line's own 11.
        let value = vec![b'v'; MAX_HEAD_BYTES - 18];
        let full = encode(&value, b"12345").unwrap();
        assert_eq!(
            (full.wire_len(), full.body_bytes()),
            (MAX_HEAD_BYTES + 7, 5)
        );
        let read = HttpResponse::decode(content(full)).unwrap();
        assert_eq!(read.headers.first(b"a"), Some(&value[..]));
        let too_long = HeadError::TooLong {
            limit: MAX_HEAD_BYTES,
        };
        for more in [1, 8, 9, 10_000] {
            let value = vec![b'v'; value.len() + more];
            assert_eq!(encode(&value, b"").unwrap_err(), too_long, "{more}");
        }
        // Sums, not products.
        let (name, value) = (vec![b'n'; 300], vec![b'v'; 300]);
        let lines = std::iter::repeat_n((&name[..], &value[..]), 100);
        assert!(response.encode(lines, b"").is_ok());
        let lines = |count| response.encode(std::iter::repeat_n((&b"a"[..], &b""[..]), count), b"");
        assert!(lines(272).is_ok());
        assert_eq!(
            lines(273).unwrap_err(),
            HeadError::TooManyHeaders { limit: 272 }
        );
    }

    #[test]
    fn a_body_rides_along_up_to_the_bound_of_a_message() {
        // Field 4, status 3, key and length of the body 4, and the envelope's room.
        let most = MAX_MESSAGE_BYTES - 11 - ENVELOPE_BYTES;
        let response = HttpResponseHead { status: 200 };
        let encode = |length| response.encode(std::iter::empty(), &vec![1; length]);
        assert_eq!(
            encode(most + 1).unwrap_err(),
            HeadError::TooLong {
                limit: MAX_MESSAGE_BYTES
            }
        );
        let mut out = BytesMut::new();
        write_head(
            &mut out,
            RequestId::new(u64::MAX),
            &encode(most).unwrap(),
            true,
        );
        let mut decoder = Decoder::new();
        decoder.feed(out.freeze());
        let Payload::Answer(AnswerHead::Http(read)) = decoder.next().unwrap().unwrap().payload
        else {
            panic!("another payload");
        };
        assert_eq!(read.body.len(), most);
    }

    #[test]
    fn heads_are_read_up_to_the_bounds() {
        let most = MAX_HEAD_BYTES + MAX_VARINT_BYTES;
        let padded = |length: usize, mut out: BytesMut| {
            // An unknown field fills the rest: its key, a length of three bytes, its content.
            let content = length - out.len() - 4;
            out.put_u8(length_key(12));
            crate::wire::put_varint(&mut out, content as u64);
            out.put_bytes(0, content);
            assert_eq!(out.len(), length);
            out
        };
        let with_body = |mut out: BytesMut, field| {
            // Key and length of the body, 3 bytes, count as head.
            put_bytes(&mut out, field, &[9; 1000]);
            out.freeze()
        };
        let mut status = BytesMut::new();
        put_uint(&mut status, 1, 200);
        let message = with_body(padded(most - 3, status.clone()), 3);
        assert!(HttpResponse::decode(message).is_ok());
        let message = with_body(padded(most - 2, status), 3);
        assert_eq!(HttpResponse::decode(message), Err(BadMessage::HeadTooLong));

        let mut start = Vec::new();
        put_open(&mut start, &open());
        put_bytes(&mut start, 2, b"GET");
        put_bytes(&mut start, 5, b"/");
        let start = BytesMut::from(&start[..]);
        let message = with_body(padded(most - 3, start.clone()), 7);
        assert!(HttpRequest::decode(message).is_ok());
        let message = with_body(padded(most - 2, start), 7);
        assert_eq!(HttpRequest::decode(message), Err(BadMessage::HeadTooLong));

        let full = padded(MAX_HEAD_BYTES, BytesMut::new()).freeze();
        assert!(decode_trailers(&full).is_ok());
        let over = padded(MAX_HEAD_BYTES + 1, BytesMut::new()).freeze();
        assert_eq!(decode_trailers(&over), Err(BadMessage::HeadTooLong));
    }
}
