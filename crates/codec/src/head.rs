//! Heads: the opening messages and their answers.
//!
//! A head is written once, by the task that makes it, into a buffer of its own ([`EncodedHead`]); the request's id is
//! put before it when the message leaves, because ids are given out in the order in which messages leave (P-2.2).

use bytes::{Bytes, BytesMut};

use crate::{
    error::{BadMessage, HeadError},
    frame::MAX_MESSAGE_BYTES,
    headers::{Gather, HeaderBlock, MAX_HEAD_BYTES, MAX_HEADER_LINES, is_value, put_header},
    id::{MessageType, ProtocolType},
    wire::{
        Reader, fill_length_gap, length_key, low_32, put_bytes, put_length_gap, put_uint,
        varint_len,
    },
};

pub(crate) const HTTP_REQUEST_FIELD: u8 = 5;
pub(crate) const HTTP_RESPONSE_FIELD: u8 = 6;

/// Room for what [`crate::write_head`] puts before a head: id, types and end.
const ENVELOPE_BYTES: usize = 32;

/// What every opening message carries (P-2.8). Its texts are owned when they have been read, and may be borrowed when
/// they are to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Open<T = Box<str>> {
    /// UUIDv7 of the request, the same on both sides.
    pub request_uuid: [u8; 16],
    /// The tunnel's name.
    pub tunnel: T,
    /// Config revision that the opener acted on.
    pub revision: u64,
    /// The visitor's socket address.
    pub visitor: T,
    /// W3C `traceparent`, or empty.
    pub traceparent: T,
    /// W3C `baggage`, or empty.
    pub baggage: T,
    /// Whether the opener keeps what is unconsumed, to resume after a loss.
    pub resumable: bool,
}

/// A head ready to leave: the payload field of its envelope, without the id.
#[derive(Debug)]
pub struct EncodedHead {
    pub(crate) protocol: ProtocolType,
    pub(crate) message_type: MessageType,
    pub(crate) field: BytesMut,
    body_bytes: usize,
}

impl EncodedHead {
    /// Payload bytes that ride in this head; they cost credit (P-4.1).
    pub const fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// Bytes this head takes on the wire, envelope aside.
    pub fn wire_len(&self) -> usize {
        self.field.len()
    }
}

/// The parts of an HTTP request to send.
#[derive(Debug, Clone, Copy)]
pub struct HttpRequestHead<'a, T = Box<str>> {
    /// The opening part.
    pub open: &'a Open<T>,
    /// Method token.
    pub method: &'a str,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Host and port as the visitor sent them.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
}

impl<T: AsRef<str>> HttpRequestHead<'_, T> {
    /// Writes the head with its headers and the part of the body that rides along.
    ///
    /// # Errors
    /// [`HeadError`] when the head passes the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let mut out = BytesMut::with_capacity(512 + body.len());
        let start = put_length_gap_of(&mut out, HTTP_REQUEST_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.method.as_bytes());
        put_bytes(&mut out, 3, self.scheme.as_bytes());
        put_bytes(&mut out, 4, self.authority);
        put_bytes(&mut out, 5, self.path);
        finish(out, start, 6, headers, 7, body).map(|(field, body_bytes)| EncodedHead {
            protocol: ProtocolType::Http,
            message_type: MessageType::Request,
            field,
            body_bytes,
        })
    }
}

/// The parts of an HTTP response to send.
#[derive(Debug, Clone, Copy)]
pub struct HttpResponseHead {
    /// Status code; 100 announces that the body is wanted (P-3.1).
    pub status: u16,
}

impl HttpResponseHead {
    /// Writes the head with its headers and the part of the body that rides along.
    ///
    /// # Errors
    /// [`HeadError`] when the head passes the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let mut out = BytesMut::with_capacity(256 + body.len());
        let start = put_length_gap_of(&mut out, HTTP_RESPONSE_FIELD);
        put_uint(&mut out, 1, u64::from(self.status));
        finish(out, start, 2, headers, 3, body).map(|(field, body_bytes)| EncodedHead {
            protocol: ProtocolType::Http,
            message_type: MessageType::Response,
            field,
            body_bytes,
        })
    }
}

fn put_length_gap_of(out: &mut BytesMut, field: u8) -> usize {
    put_length_gap(out, length_key(field))
}

fn finish<'h>(
    mut out: BytesMut,
    start: usize,
    header_field: u8,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    body_field: u8,
    body: &[u8],
) -> Result<(BytesMut, usize), HeadError> {
    let mut lines = 0;
    for (name, value) in headers {
        lines += 1;
        if lines > MAX_HEADER_LINES {
            return Err(HeadError::TooManyHeaders {
                limit: MAX_HEADER_LINES,
            });
        }
        if out.len() + name.len() + value.len() > MAX_HEAD_BYTES {
            return Err(HeadError::TooLong {
                limit: MAX_HEAD_BYTES,
            });
        }
        put_header(&mut out, header_field, name, value);
    }
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
    Ok((out, body.len()))
}

fn put_open<T: AsRef<str>>(out: &mut BytesMut, open: &Open<T>) {
    let start = put_length_gap(out, length_key(1));
    put_bytes(out, 1, &open.request_uuid);
    put_bytes(out, 2, open.tunnel.as_ref().as_bytes());
    put_uint(out, 3, open.revision);
    put_bytes(out, 4, open.visitor.as_ref().as_bytes());
    put_bytes(out, 5, open.traceparent.as_ref().as_bytes());
    put_bytes(out, 6, open.baggage.as_ref().as_bytes());
    put_uint(out, 7, u64::from(open.resumable));
    fill_length_gap(out, start);
}

fn read_open(bytes: &[u8]) -> Result<Open, BadMessage> {
    let mut open = Open::default();
    let mut has_uuid = false;
    let mut reader = Reader::new(bytes);
    let text = |(from, to): (usize, usize)| {
        // These end in header lines and logs: what could end a line has no place in them.
        match std::str::from_utf8(&bytes[from..to]) {
            Ok(text) if is_value(text.as_bytes()) => Ok(Box::from(text)),
            _ => Err(BadMessage::Head),
        }
    };
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => {
                let (from, to) = value.range()?;
                open.request_uuid = bytes[from..to].try_into().map_err(|_| BadMessage::Head)?;
                has_uuid = true;
            }
            2 => open.tunnel = text(value.range()?)?,
            3 => open.revision = value.varint()?,
            4 => open.visitor = text(value.range()?)?,
            5 => open.traceparent = text(value.range()?)?,
            6 => open.baggage = text(value.range()?)?,
            7 => open.resumable = value.varint()? != 0,
            _ => {}
        }
    }
    if has_uuid {
        Ok(open)
    } else {
        Err(BadMessage::Head)
    }
}

/// An HTTP request as it came. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// The opening part.
    pub open: Open,
    /// Method token.
    pub method: Bytes,
    /// `http` or `https`.
    pub scheme: Bytes,
    /// Host and port as the visitor sent them.
    pub authority: Bytes,
    /// Path and query; never empty, no spaces or control characters.
    pub path: Bytes,
    /// Header lines.
    pub headers: HeaderBlock,
    /// The part of the body that rode along.
    pub body: Bytes,
}

/// An HTTP response as it came. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Header lines.
    pub headers: HeaderBlock,
    /// The part of the body that rode along.
    pub body: Bytes,
}

/// Whether bytes can stand in a request line: no space, no control character (RFC 9112, 3).
fn is_line_part(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte > 0x20 && byte != 0x7f)
}

impl HttpRequest {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(message);
        let mut open = None;
        let (mut method, mut scheme) = (Bytes::new(), Bytes::new());
        let (mut authority, mut path) = (Bytes::new(), Bytes::new());
        let mut body = Bytes::new();
        let mut headers = Gather::default();
        loop {
            let key_at = reader.offset();
            let Some((field, value)) = reader.field()? else {
                break;
            };
            let slice = || value.range().map(|(from, to)| message.slice(from..to));
            match field {
                1 => {
                    let (from, to) = value.range()?;
                    open = Some(read_open(&message[from..to])?);
                }
                2 => method = slice()?,
                3 => scheme = slice()?,
                4 => authority = slice()?,
                5 => path = slice()?,
                6 => headers.push(message, key_at, value.range()?)?,
                7 => body = slice()?,
                _ => {}
            }
        }
        let head_bytes = message.len() - body.len();
        if head_bytes > MAX_HEAD_BYTES + crate::wire::MAX_VARINT_BYTES {
            return Err(BadMessage::HeadTooLong);
        }
        let open = open.ok_or(BadMessage::Head)?;
        let is_method = !method.is_empty()
            && method
                .iter()
                .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte));
        if !is_method || path.is_empty() || !is_line_part(&path) || !is_line_part(&authority) {
            return Err(BadMessage::Head);
        }
        if !(scheme.is_empty() || scheme == "http" || scheme == "https") {
            return Err(BadMessage::Head);
        }
        Ok(Self {
            open,
            method,
            scheme,
            authority,
            path,
            headers: headers.finish(message),
            body,
        })
    }
}

impl HttpResponse {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut reader = Reader::new(message);
        let mut status = 0;
        let mut body = Bytes::new();
        let mut headers = Gather::default();
        loop {
            let key_at = reader.offset();
            let Some((field, value)) = reader.field()? else {
                break;
            };
            match field {
                1 => status = low_32(value.varint()?),
                2 => headers.push(message, key_at, value.range()?)?,
                3 => {
                    let (from, to) = value.range()?;
                    body = message.slice(from..to);
                }
                _ => {}
            }
        }
        if message.len() - body.len() > MAX_HEAD_BYTES + crate::wire::MAX_VARINT_BYTES {
            return Err(BadMessage::HeadTooLong);
        }
        match u16::try_from(status) {
            Ok(status @ 100..=999) => Ok(Self {
                status,
                headers: headers.finish(message),
                body,
            }),
            _ => Err(BadMessage::Head),
        }
    }
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
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::BufMut;

    use super::*;
    use crate::{Decoder, Payload, RequestId, write_head};

    fn open() -> Open {
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
    fn content(head: EncodedHead) -> Bytes {
        head.field.freeze().slice(4..)
    }

    fn request(change: impl FnOnce(&mut HttpRequestHead<'_>)) -> Result<HttpRequest, BadMessage> {
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
        HttpRequest::decode(&content(encoded.unwrap()))
    }

    fn opened(change: impl FnOnce(&mut Open)) -> Result<Open, BadMessage> {
        let mut open = open();
        change(&mut open);
        let mut out = BytesMut::new();
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
        assert_eq!(HttpRequest::decode(&head), Err(BadMessage::Head));
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
            let read = HttpResponse::decode(&content(head.unwrap()));
            assert_eq!(read.map(|read| read.status).ok(), holds.then_some(status));
        }
        let above = Bytes::from_static(&[0x08, 0xe4, 0x80, 0x04]); // 100 and 2^16
        assert_eq!(HttpResponse::decode(&above), Err(BadMessage::Head));
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
        let read = HttpResponse::decode(&content(full)).unwrap();
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
        assert!(lines(256).is_ok());
        assert_eq!(
            lines(257).unwrap_err(),
            HeadError::TooManyHeaders { limit: 256 }
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
        let Payload::HttpResponse(read) = decoder.next().unwrap().unwrap().payload else {
            panic!("another payload");
        };
        assert_eq!(read.body.len(), most);
    }

    #[test]
    fn heads_are_read_up_to_the_bounds() {
        let most = MAX_HEAD_BYTES + crate::wire::MAX_VARINT_BYTES;
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
        assert!(HttpResponse::decode(&message).is_ok());
        let message = with_body(padded(most - 2, status), 3);
        assert_eq!(HttpResponse::decode(&message), Err(BadMessage::HeadTooLong));

        let mut start = BytesMut::new();
        put_open(&mut start, &open());
        put_bytes(&mut start, 2, b"GET");
        put_bytes(&mut start, 5, b"/");
        let message = with_body(padded(most - 3, start.clone()), 7);
        assert!(HttpRequest::decode(&message).is_ok());
        let message = with_body(padded(most - 2, start), 7);
        assert_eq!(HttpRequest::decode(&message), Err(BadMessage::HeadTooLong));

        let full = padded(MAX_HEAD_BYTES, BytesMut::new()).freeze();
        assert!(decode_trailers(&full).is_ok());
        let over = padded(MAX_HEAD_BYTES + 1, BytesMut::new()).freeze();
        assert_eq!(decode_trailers(&over), Err(BadMessage::HeadTooLong));
    }
}
