//! The heads of an HTTP exchange (section 3 of the protocol).

use bytes::{Bytes, BytesMut};

use super::{
    EncodedHead, Open, finish, is_head_too_long, is_line_part, open::put_open, open::read_open,
    put_headers, put_length_gap_of,
};
use crate::{
    error::{BadMessage, HeadError},
    headers::{Gather, HeaderBlock},
    id::{MessageType, ProtocolType},
    wire::{Reader, low_32, put_bytes, put_uint},
};

pub(crate) const HTTP_REQUEST_FIELD: u8 = 5;
pub(crate) const HTTP_RESPONSE_FIELD: u8 = 6;

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
        put_headers(&mut out, 6, headers)?;
        finish(
            out,
            start,
            (ProtocolType::Http, MessageType::Request),
            (7, body),
        )
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
        put_headers(&mut out, 2, headers)?;
        finish(
            out,
            start,
            (ProtocolType::Http, MessageType::Response),
            (3, body),
        )
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
        if is_head_too_long(message, &body) {
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
        if is_head_too_long(message, &body) {
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
