#![allow(clippy::unwrap_used)]

pub(super) mod samples;

use bytes::{BufMut, BytesMut};

use super::{
    open::{put_open, read_open},
    tests::samples::{content, open},
    write::ENVELOPE_BYTES,
    *,
};
use crate::{
    Decoder, HeadError, Payload, RequestId,
    error::BadMessage,
    frame::MAX_MESSAGE_BYTES,
    headers::MAX_HEAD_BYTES,
    wire::{MAX_VARINT_BYTES, Value, length_key, put_bytes, put_uint},
    write_head,
};

fn request(change: impl FnOnce(&mut HttpRequestHead<'_>)) -> Result<Box<HttpRequest>, BadMessage> {
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
    read_whole(&out[4..])
}

/// Reads an opening part that is a whole message.
fn read_whole(bytes: &[u8]) -> Result<Open, BadMessage> {
    read_open(bytes, Value::Range(0, bytes.len()))
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
fn bytes_invalid_in_a_request_line_are_refused() {
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
    assert_eq!(read_whole(&[]), bad, "no UUID");
    assert_eq!(read_whole(&[0x0a, 2, 1, 1]), bad, "a short UUID");
    let mut not_text = vec![0x0a, 16];
    not_text.extend([1; 16]);
    assert!(read_whole(&not_text).is_ok());
    not_text.extend([0x12, 1, 0xff]);
    assert_eq!(read_whole(&not_text), bad);
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
    // 18 bytes beside the value: key and length of the header line 4, the status 3, keys and lengths in the line and
    // its name 11.
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
    // The lengths of the lines are added, not multiplied: 100 lines of 600 bytes are within the bound.
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
fn a_head_carries_a_body_up_to_the_message_bound() {
    // 11 bytes beside the body: key and length of the head 4, the status 3, key and length of the body 4.
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
    let Payload::Response(ResponseHead::Http(read)) = decoder.next().unwrap().unwrap().payload
    else {
        panic!("another payload");
    };
    assert_eq!(read.body.len(), most);
}

#[test]
fn heads_are_read_up_to_the_bounds() {
    let most = MAX_HEAD_BYTES + MAX_VARINT_BYTES;
    let padded = |length: usize, mut out: BytesMut| {
        // An unknown field fills the rest of the message: a key of one byte, a length of three bytes, and the content.
        let content = length - out.len() - 4;
        out.put_u8(length_key(12));
        crate::wire::put_varint(&mut out, content as u64);
        out.put_bytes(0, content);
        assert_eq!(out.len(), length);
        out
    };
    let with_body = |mut out: BytesMut, field| {
        // Key and length of the body, 3 bytes, count as part of the head.
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
