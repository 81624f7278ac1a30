//! The heads and frames of a WebSocket connection (section 9 of the protocol).

use bytes::Bytes;

use super::{
    open::{Open, put_open, read_open},
    read::{is_head_too_long, is_target, read_fields},
    write::{EncodedHead, encode_response, finish, put_headers},
};
use crate::{
    error::{BadMessage, HeadError},
    headers::HeaderBlock,
    id::{MessageType, ProtocolType},
    wire::{Reader, low_32, put_bytes, put_length_gap},
};

pub(crate) const WEBSOCKET_REQUEST_FIELD: u8 = 9;
pub(crate) const WEBSOCKET_RESPONSE_FIELD: u8 = 10;
pub(crate) const WEBSOCKET_FRAME_FIELD: u8 = 19;

/// The parts of a WebSocket opening handshake to send.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketRequestHead<'a, T = Box<str>> {
    /// The opening part.
    pub open: &'a Open<T>,
    /// Host and port as the visitor sent them.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
}

impl<T: AsRef<str>> WebSocketRequestHead<'_, T> {
    /// Writes the head with its headers.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<EncodedHead, HeadError> {
        let mut out = Vec::with_capacity(512);
        let start = put_length_gap(&mut out, WEBSOCKET_REQUEST_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.authority);
        put_bytes(&mut out, 3, self.path);
        put_headers(&mut out, 4, headers)?;
        finish(
            out,
            start,
            (ProtocolType::WebSocket, MessageType::Request),
            (5, &[]),
        )
    }
}

/// The parts of the response to a WebSocket opening handshake.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketResponseHead {
    /// 101: frames follow. Any other status rejects the handshake.
    pub status: u16,
}

impl WebSocketResponseHead {
    /// Writes the head with its headers.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<EncodedHead, HeadError> {
        let kind = (WEBSOCKET_RESPONSE_FIELD, ProtocolType::WebSocket);
        encode_response(kind, self.status, headers, b"", b"")
    }
}

/// A received WebSocket opening handshake. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketRequest {
    /// The opening part.
    pub open: Open,
    /// Host and port as the visitor sent them.
    pub authority: Bytes,
    /// Path and query; begins with a slash, no spaces or control characters.
    pub path: Bytes,
    /// Header lines, including subprotocols and extensions.
    pub headers: HeaderBlock,
}

impl WebSocketRequest {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut open = None;
        let (mut authority, mut path) = (Bytes::new(), Bytes::new());
        let headers = read_fields(message, 4, |field, value| {
            let slice = || value.range().map(|(from, to)| message.slice(from..to));
            match field {
                1 => open = Some(read_open(message, value)?),
                2 => authority = slice()?,
                3 => path = slice()?,
                _ => {}
            }
            Ok(())
        })?;
        if is_head_too_long(message, &Bytes::new()) {
            return Err(BadMessage::HeadTooLong);
        }
        let open = open.ok_or(BadMessage::Head)?;
        if !is_target(&path, &authority) {
            return Err(BadMessage::Head);
        }
        Ok(Self {
            open,
            authority,
            path,
            headers,
        })
    }
}

/// A received response to a WebSocket opening handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocketResponse {
    /// 101, or the status of a rejection: 200 to 999.
    pub status: u16,
    /// Header lines.
    pub headers: HeaderBlock,
}

impl WebSocketResponse {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut status = 0;
        let headers = read_fields(message, 2, |field, value| {
            if field == 1 {
                status = low_32(value.varint()?);
            }
            Ok(())
        })?;
        if is_head_too_long(message, &Bytes::new()) {
            return Err(BadMessage::HeadTooLong);
        }
        match u16::try_from(status) {
            Ok(status @ (101 | 200..=999)) => Ok(Self { status, headers }),
            _ => Err(BadMessage::Head),
        }
    }
}

/// The head of one WebSocket frame (RFC 6455, 5.2), without the mask: each hop has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WebSocketFrame {
    /// Whether the frame is the last one of its message.
    pub fin: bool,
    /// RSV1 to RSV3, as a number from 0 to 7: RSV1 is 4.
    pub rsv: u8,
    /// 0 to 15.
    pub opcode: u8,
    /// The length of the payload in bytes; below 2^63.
    pub length: u64,
}

/// A frame's head, and the part of its payload in the same message.
pub(crate) fn decode_frame(message: &Bytes) -> Result<(WebSocketFrame, Bytes), BadMessage> {
    let mut reader = Reader::new(message);
    let (mut fin, mut rsv, mut opcode, mut length) = (0, 0, 0, 0);
    let mut payload = Bytes::new();
    while let Some((field, value)) = reader.field()? {
        match field {
            1 => fin = value.varint()?,
            2 => rsv = low_32(value.varint()?),
            3 => opcode = low_32(value.varint()?),
            4 => length = value.varint()?,
            5 => {
                let (from, to) = value.range()?;
                payload = message.slice(from..to);
            }
            _ => {}
        }
    }
    let (Ok(rsv @ 0..=7), Ok(opcode @ 0..=15)) = (u8::try_from(rsv), u8::try_from(opcode)) else {
        return Err(BadMessage::Frame);
    };
    if length >> 63 != 0 || payload.len() as u64 > length {
        return Err(BadMessage::Frame);
    }
    let frame = WebSocketFrame {
        fin: fin != 0,
        rsv,
        opcode,
        length,
    };
    Ok((frame, payload))
}

#[cfg(not(adit_loom))]
#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::{
        Decoder, Payload, RequestId,
        head::tests::samples::{LONGEST, content, filled, open},
        write_frame_prefix,
    };

    fn encoded(change: impl FnOnce(&mut WebSocketRequestHead<'_>)) -> Bytes {
        let open = open();
        let mut head = WebSocketRequestHead {
            open: &open,
            authority: b"a.example",
            path: b"/chat?room=1",
        };
        change(&mut head);
        let lines = [(&b"sec-websocket-protocol"[..], &b"chat"[..])];
        content(head.encode(lines.into_iter()).unwrap())
    }

    fn response(status: u16) -> Bytes {
        content(
            WebSocketResponseHead { status }
                .encode(std::iter::empty())
                .unwrap(),
        )
    }

    #[test]
    fn p_9_1_a_handshake_reads_back() {
        let read = WebSocketRequest::decode(&encoded(|_| {})).unwrap();
        assert_eq!(read.open, open());
        assert_eq!(
            (&read.authority[..], &read.path[..]),
            (&b"a.example"[..], &b"/chat?room=1"[..])
        );
        let protocol = read.headers.first(b"sec-websocket-protocol");
        assert_eq!(protocol, Some(&b"chat"[..]));
    }

    #[test]
    fn p_9_1_a_handshake_has_a_path() {
        for path in [&b""[..], b"chat", b"*", b"/a b", b"/\r\n", b"/\x7f"] {
            let read = WebSocketRequest::decode(&encoded(|head| head.path = path));
            assert_eq!(read.err(), Some(BadMessage::Head), "{path:?}");
        }
        let read = WebSocketRequest::decode(&encoded(|head| head.authority = b"a\nb"));
        assert_eq!(read.err(), Some(BadMessage::Head));
        let without_open = Bytes::from_static(b"\x1a\x01/");
        let read = WebSocketRequest::decode(&without_open);
        assert_eq!(read.err(), Some(BadMessage::Head));
    }

    #[test]
    fn p_9_2_a_response_switches_or_refuses() {
        let status = |status| WebSocketResponse::decode(&response(status)).map(|read| read.status);
        for good in [101, 200, 404, 999] {
            assert_eq!(status(good), Ok(good));
        }
        for bad in [0, 1, 100, 102, 103, 199, 1000, u16::MAX] {
            assert_eq!(status(bad), Err(BadMessage::Head), "{bad}");
        }
        let above = Bytes::from_static(&[0x08, 0xe5, 0x80, 0x04]); // 101 and 2^16
        assert_eq!(WebSocketResponse::decode(&above), Err(BadMessage::Head));
    }

    #[test]
    fn p_2_10_heads_are_read_up_to_their_bound() {
        let too_long = Some(BadMessage::HeadTooLong);
        let head = encoded(|_| {});
        assert!(WebSocketRequest::decode(&filled(&head, LONGEST)).is_ok());
        let read = WebSocketRequest::decode(&filled(&head, LONGEST + 1));
        assert_eq!(read.err(), too_long);
        assert!(WebSocketResponse::decode(&filled(&response(101), LONGEST)).is_ok());
        let read = WebSocketResponse::decode(&filled(&response(101), LONGEST + 1));
        assert_eq!(read.err(), too_long);
    }

    #[test]
    fn p_9_3_a_frame_that_none_can_be_is_refused() {
        let read = |bytes: &[u8]| decode_frame(&Bytes::copy_from_slice(bytes));
        let none = WebSocketFrame {
            fin: false,
            rsv: 0,
            opcode: 0,
            length: 0,
        };
        assert_eq!(read(b""), Ok((none, Bytes::new())));
        let full = WebSocketFrame {
            fin: true,
            rsv: 7,
            opcode: 15,
            length: 3,
        };
        assert_eq!(
            read(b"\x08\x01\x10\x07\x18\x0f\x20\x03\x2a\x03abc"),
            Ok((full, "abc".into()))
        );
        let bad = Err(BadMessage::Frame);
        assert_eq!(read(b"\x10\x08"), bad, "rsv");
        assert_eq!(read(b"\x10\x80\x02"), bad, "rsv of 256");
        assert_eq!(read(b"\x18\x10"), bad, "opcode");
        assert_eq!(read(b"\x18\x81\x02"), bad, "opcode of 257");
        assert_eq!(read(b"\x2a\x01a"), bad, "more than its length");
        assert_eq!(read(b"\x20\x02\x2a\x03abc"), bad, "more than its length");
        let longest = b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
        assert_eq!(read(longest).unwrap().0.length, (1 << 63) - 1);
        let too_long = b"\x20\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01";
        assert_eq!(read(too_long), bad, "2^63");
        let wrong = Err(BadMessage::WireType);
        for bytes in [
            b"\x0a\x00",
            b"\x12\x00",
            b"\x1a\x00",
            b"\x22\x00",
            b"\x28\x00",
        ] {
            assert_eq!(read(bytes), wrong, "{bytes:?}");
        }
    }

    /// Regression: invalid reserved bits made the length before them wrong, and with it every message after it.
    #[test]
    fn a_frame_is_written_with_its_own_bits() {
        let frame = WebSocketFrame {
            fin: true,
            rsv: 0xff,
            opcode: 0xff,
            length: 2,
        };
        let mut out = BytesMut::new();
        write_frame_prefix(&mut out, RequestId::new(2), frame, 2, false);
        out.extend_from_slice(b"hi");
        let mut decoder = Decoder::new();
        decoder.feed(out.freeze());
        let read = decoder.next().unwrap().unwrap().payload;
        let frame = WebSocketFrame {
            rsv: 7,
            opcode: 15,
            ..frame
        };
        let data = "hi".into();
        assert_eq!(read, Payload::Frame { frame, data });
        assert!(decoder.is_between_messages());
    }
}
