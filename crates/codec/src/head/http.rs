//! The heads of an HTTP exchange (section 3 of the protocol).

use bytes::{Buf, Bytes};

use super::{
    open::{Open, put_open, read_open},
    read::{is_head_too_long, is_line_part, read_fields},
    write::{EncodedHead, encode_response, finish, put_headers},
};
use crate::{
    error::{BadMessage, HeadError},
    headers::{HeaderBlock, is_value},
    id::{MessageType, ProtocolType},
    wire::{low_32, put_bytes, put_length_gap},
};

pub(crate) const HTTP_REQUEST_FIELD: u8 = 5;
pub(crate) const HTTP_RESPONSE_FIELD: u8 = 6;

const RESPONSE: (u8, ProtocolType) = (HTTP_RESPONSE_FIELD, ProtocolType::Http);

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
    /// Writes the head with its headers and the first part of the body.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        self.encode_offer(b"", headers, body)
    }

    /// Encodes the request as [`Self::encode`] does, with an offer to change to one of the protocols in `upgrade`;
    /// `body` is the complete body then (P-3.7).
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode_offer<'h>(
        &self,
        upgrade: &[u8],
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        let mut out = Vec::with_capacity(512 + body.len());
        let start = put_length_gap(&mut out, HTTP_REQUEST_FIELD);
        put_open(&mut out, self.open);
        put_bytes(&mut out, 2, self.method.as_bytes());
        put_bytes(&mut out, 3, self.scheme.as_bytes());
        put_bytes(&mut out, 4, self.authority);
        put_bytes(&mut out, 5, self.path);
        put_headers(&mut out, 6, headers)?;
        put_bytes(&mut out, 8, upgrade);
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
    /// Status code; below 200 it is an interim response (P-3.1). For a switch with status 101 see
    /// [`HttpResponseHead::encode_switch`].
    pub status: u16,
}

impl HttpResponseHead {
    /// Writes the head with its headers and the first part of the body.
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode<'h>(
        &self,
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
        body: &[u8],
    ) -> Result<EncodedHead, HeadError> {
        encode_response(RESPONSE, self.status, headers, b"", body)
    }

    /// Writes a response with status 101: from here on chunks belong to the protocol `upgrade` (P-3.7).
    ///
    /// # Errors
    /// [`HeadError`] when the head exceeds the bounds of P-2.10.
    pub fn encode_switch<'h>(
        upgrade: &[u8],
        headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
    ) -> Result<EncodedHead, HeadError> {
        encode_response(RESPONSE, 101, headers, upgrade, b"")
    }
}

/// A received HTTP request. Its byte fields share the buffer of the message, unless they are constants.
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
    /// The first part of the body.
    pub body: Bytes,
    /// The protocols that the visitor offers to change to (P-3.7); usually empty.
    pub upgrade: Bytes,
}

/// A received HTTP response. Its byte fields share the buffer of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Header lines.
    pub headers: HeaderBlock,
    /// The first part of the body.
    pub body: Bytes,
    /// The protocol of the following chunks, with status 101 only (P-3.7).
    pub upgrade: Bytes,
}

impl HttpRequest {
    pub(crate) fn decode(message: Bytes) -> Result<Box<Self>, BadMessage> {
        let mut open = None;
        // Positions only: the last field of a kind counts, and only that one is sliced out.
        let (mut method, mut scheme, mut authority, mut path, mut body) = Default::default();
        let mut upgrade = (0, 0);
        let headers = read_fields(&message, 6, |field, value| {
            match field {
                1 => open = Some(read_open(&message, value)?),
                2 => method = value.range()?,
                3 => scheme = value.range()?,
                4 => authority = value.range()?,
                5 => path = value.range()?,
                7 => body = value.range()?,
                8 => upgrade = value.range()?,
                _ => {}
            }
            Ok(())
        })?;
        let slice = |(from, to)| message.slice(from..to);
        if is_head_too_long(&message, &message[body.0..body.1]) {
            return Err(BadMessage::HeadTooLong);
        }
        let open = open.ok_or(BadMessage::Head)?;
        let (authority, path) = (slice(authority), slice(path));
        if path.is_empty() || !is_line_part(&path) || !is_line_part(&authority) {
            return Err(BadMessage::Head);
        }
        let upgrade = upgrade_of(&message, upgrade)?;
        let method = method_of(&message, method)?;
        let scheme = scheme_of(&message[scheme.0..scheme.1])?;
        Ok(Box::new(Self {
            open,
            method,
            scheme,
            authority,
            path,
            headers,
            body: cut(message, body),
            upgrade,
        }))
    }
}

/// Whether bytes are a valid `Upgrade` value.
fn upgrade_of(message: &Bytes, (from, to): (usize, usize)) -> Result<Bytes, BadMessage> {
    if from == to {
        return Ok(Bytes::new());
    }
    let upgrade = message.slice(from..to);
    if is_value(&upgrade) {
        Ok(upgrade)
    } else {
        Err(BadMessage::Head)
    }
}

/// A part of a message that is not needed any more. Keeps only that part in memory if it can.
fn cut(mut message: Bytes, (from, to): (usize, usize)) -> Bytes {
    if from == to {
        return Bytes::new();
    }
    message.truncate(to);
    message.advance(from);
    message
}

/// A method: a token (RFC 9110, 5.6.2). The common ones are constants, which cost no reference to the message.
fn method_of(message: &Bytes, (from, to): (usize, usize)) -> Result<Bytes, BadMessage> {
    const COMMON: [&[u8]; 7] = [
        b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"OPTIONS", b"PATCH",
    ];
    let method = &message[from..to];
    if let Some(known) = COMMON.into_iter().find(|known| *known == method) {
        return Ok(Bytes::from_static(known));
    }
    let is_token = !method.is_empty() && { method.iter() }
        .all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte));
    if is_token {
        Ok(message.slice(from..to))
    } else {
        Err(BadMessage::Head)
    }
}

/// The scheme, if it is a valid one.
fn scheme_of(scheme: &[u8]) -> Result<Bytes, BadMessage> {
    match scheme {
        b"" => Ok(Bytes::new()),
        b"http" => Ok(Bytes::from_static(b"http")),
        b"https" => Ok(Bytes::from_static(b"https")),
        _ => Err(BadMessage::Head),
    }
}

impl HttpResponse {
    pub(crate) fn decode(message: Bytes) -> Result<Box<Self>, BadMessage> {
        let (mut status, mut body, mut upgrade) = (0, (0, 0), (0, 0));
        let headers = read_fields(&message, 2, |field, value| {
            match field {
                1 => status = low_32(value.varint()?),
                3 => body = value.range()?,
                4 => upgrade = value.range()?,
                _ => {}
            }
            Ok(())
        })?;
        if is_head_too_long(&message, &message[body.0..body.1]) {
            return Err(BadMessage::HeadTooLong);
        }
        let upgrade = upgrade_of(&message, upgrade)?;
        match u16::try_from(status) {
            Ok(status @ 100..=999) => Ok(Box::new(Self {
                status,
                headers,
                body: cut(message, body),
                upgrade,
            })),
            _ => Err(BadMessage::Head),
        }
    }
}
