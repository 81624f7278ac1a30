//! The heads of a gRPC call (section 8 of the protocol).

use std::time::Duration;

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
    wire::{low_32, put_bytes, put_length_gap, put_uint},
};

pub(crate) const GRPC_REQUEST_FIELD: u8 = 7;
pub(crate) const GRPC_RESPONSE_FIELD: u8 = 8;

/// The parts of a gRPC request to send.
#[derive(Debug, Clone, Copy)]
pub struct GrpcRequestHead<'a, T = Box<str>> {
    /// The opening part.
    pub open: &'a Open<T>,
    /// Host and port as the visitor sent them.
    pub authority: &'a [u8],
    /// `/package.Service/Method`.
    pub path: &'a [u8],
    /// The rest of the visitor's deadline (P-8.3).
    pub timeout: Option<Duration>,
}

impl<T: AsRef<str>> GrpcRequestHead<'_, T> {
    /// Writes the head with its metadata and the first part of the messages.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        metadata: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let mut out = Vec::with_capacity(512 + body.len());
        let start = put_length_gap(&mut out, GRPC_REQUEST_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.authority);
        put_bytes(&mut out, 3, self.path);
        put_headers(&mut out, 4, metadata)?;
        // 0 means no timeout: a timeout that has expired is sent as a nanosecond.
        let nanos = |timeout: Duration| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        put_uint(&mut out, 5, self.timeout.map_or(0, |t| nanos(t).max(1)));
        finish(
            out,
            start,
            (ProtocolType::Grpc, MessageType::Request),
            (6, body),
        )
    }
}

/// The parts of a gRPC response to send.
#[derive(Debug, Clone, Copy)]
pub struct GrpcResponseHead {
    /// HTTP status: 200, unless the service does not use gRPC.
    pub status: u16,
}

impl GrpcResponseHead {
    /// Writes the head with its metadata and the first part of the messages.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        metadata: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let kind = (GRPC_RESPONSE_FIELD, ProtocolType::Grpc);
        encode_response(kind, self.status, metadata, b"", body)
    }
}

/// A received gRPC request. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcRequest {
    /// The opening part.
    pub open: Open,
    /// Host and port as the visitor sent them.
    pub authority: Bytes,
    /// `/package.Service/Method`; begins with a slash, no spaces or control characters.
    pub path: Bytes,
    /// Metadata, binary values as they were sent.
    pub metadata: HeaderBlock,
    /// The rest of the visitor's deadline.
    pub timeout: Option<Duration>,
    /// The first part of the messages, framed as the visitor framed them.
    pub body: Bytes,
}

impl GrpcRequest {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut open = None;
        let (mut authority, mut path) = (Bytes::new(), Bytes::new());
        let mut body = Bytes::new();
        let mut timeout = 0;
        let metadata = read_fields(message, 4, |field, value| {
            let slice = || value.range().map(|(from, to)| message.slice(from..to));
            match field {
                1 => open = Some(read_open(message, value)?),
                2 => authority = slice()?,
                3 => path = slice()?,
                5 => timeout = value.varint()?,
                6 => body = slice()?,
                _ => {}
            }
            Ok(())
        })?;
        if is_head_too_long(message, &body) {
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
            metadata,
            timeout: (timeout > 0).then(|| Duration::from_nanos(timeout)),
            body,
        })
    }
}

/// A received gRPC response. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcResponse {
    /// HTTP status, 200 to 999.
    pub status: u16,
    /// Initial metadata; the trailers if the response has trailers only.
    pub metadata: HeaderBlock,
    /// The first part of the messages.
    pub body: Bytes,
}

impl GrpcResponse {
    pub(crate) fn decode(message: &Bytes) -> Result<Self, BadMessage> {
        let mut status = 0;
        let mut body = Bytes::new();
        let metadata = read_fields(message, 2, |field, value| {
            match field {
                1 => status = low_32(value.varint()?),
                3 => {
                    let (from, to) = value.range()?;
                    body = message.slice(from..to);
                }
                _ => {}
            }
            Ok(())
        })?;
        if is_head_too_long(message, &body) {
            return Err(BadMessage::HeadTooLong);
        }
        let status = match u16::try_from(status) {
            Ok(0) => 200,
            Ok(status @ 200..=999) => status,
            _ => return Err(BadMessage::Head),
        };
        Ok(Self {
            status,
            metadata,
            body,
        })
    }
}

#[cfg(not(adit_loom))]
#[allow(clippy::unwrap_used)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::tests::samples::{LONGEST, content, filled, open};

    fn encoded(change: impl FnOnce(&mut GrpcRequestHead<'_>)) -> Bytes {
        let open = open();
        let mut head = GrpcRequestHead {
            open: &open,
            authority: b"a.example:443",
            path: b"/shop.Cart/Add",
            timeout: None,
        };
        change(&mut head);
        let lines = [(&b"x-bin"[..], &b"AAE"[..]), (b"x-bin", b"")];
        content(head.encode(lines.into_iter(), b"message").unwrap())
    }

    fn request(change: impl FnOnce(&mut GrpcRequestHead<'_>)) -> Result<GrpcRequest, BadMessage> {
        GrpcRequest::decode(&encoded(change))
    }

    #[test]
    fn p_8_1_a_call_reads_back() {
        let read = request(|_| {}).unwrap();
        assert_eq!((read.open, read.timeout), (open(), None));
        assert_eq!(
            (&read.authority[..], &read.path[..]),
            (&b"a.example:443"[..], &b"/shop.Cart/Add"[..])
        );
        assert_eq!(read.body, "message");
        // P-8.2: repeated lines in their order.
        let lines: Vec<_> = read.metadata.lines().collect();
        assert_eq!(lines, [(&b"x-bin"[..], &b"AAE"[..]), (b"x-bin", b"")]);
    }

    #[test]
    fn p_8_1_a_path_begins_with_a_slash_without_line_breaks() {
        for path in [
            &b""[..],
            b"shop.Cart/Add",
            b"*",
            b"/a b",
            b"/a\r\n",
            b"/\x7f",
        ] {
            let read = request(|head| head.path = path);
            assert_eq!(read.err(), Some(BadMessage::Head), "{path:?}");
        }
        for authority in [&b"a b"[..], b"a\n", b"\0"] {
            let read = request(|head| head.authority = authority);
            assert_eq!(read.err(), Some(BadMessage::Head), "{authority:?}");
        }
        assert!(request(|head| head.authority = b"").is_ok());
        let without_open = Bytes::from_static(b"\x1a\x02/a");
        let read = GrpcRequest::decode(&without_open);
        assert_eq!(read.err(), Some(BadMessage::Head));
    }

    #[test]
    fn p_8_3_an_expired_timeout_is_sent_as_a_nanosecond() {
        let timeout = |sent| request(|head| head.timeout = sent).unwrap().timeout;
        assert_eq!(timeout(None), None);
        let nano = Duration::from_nanos(1);
        assert_eq!(timeout(Some(Duration::ZERO)), Some(nano));
        assert_eq!(timeout(Some(nano)), Some(nano));
        let hour = Duration::from_secs(3600);
        assert_eq!(timeout(Some(hour)), Some(hour));
        let most = Some(Duration::from_nanos(u64::MAX));
        assert_eq!(timeout(most), most);
        assert_eq!(timeout(Some(Duration::MAX)), most);
    }

    #[test]
    fn a_response_status_is_200_to_999_or_absent() {
        let response = |status| {
            let head = GrpcResponseHead { status }.encode(std::iter::empty(), b"x");
            GrpcResponse::decode(&content(head.unwrap())).map(|read| read.status)
        };
        assert_eq!(response(0), Ok(200));
        for status in [200, 404, 999] {
            assert_eq!(response(status), Ok(status));
        }
        for status in [1, 100, 199, 1000, u16::MAX] {
            assert_eq!(response(status), Err(BadMessage::Head), "{status}");
        }
        let above = Bytes::from_static(&[0x08, 0xc8, 0x81, 0x04]); // 200 and 2^16
        assert_eq!(GrpcResponse::decode(&above), Err(BadMessage::Head));
    }

    #[test]
    fn p_2_10_heads_are_read_up_to_their_bound_their_bodies_aside() {
        let too_long = Some(BadMessage::HeadTooLong);
        let head = encoded(|_| {});
        let most = LONGEST + b"message".len();
        assert!(GrpcRequest::decode(&filled(&head, most)).is_ok());
        let read = GrpcRequest::decode(&filled(&head, most + 1));
        assert_eq!(read.err(), too_long);
        let response = GrpcResponseHead { status: 200 };
        let response = content(response.encode(std::iter::empty(), b"message").unwrap());
        assert!(GrpcResponse::decode(&filled(&response, most)).is_ok());
        let read = GrpcResponse::decode(&filled(&response, most + 1));
        assert_eq!(read.err(), too_long);
    }
}
