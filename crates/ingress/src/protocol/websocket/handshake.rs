//! The visitor's side of the opening handshake (RFC 6455, 4.2; RFC 8441, 5).

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use adit_websocket::{VERSION, accept, is_key};
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    request::Parts,
};
use http_body::Body;

use crate::{forward::headers::has_token, protocol::http::parse::protocol_of};

/// A valid handshake.
pub(crate) enum Handshake {
    /// An `Upgrade`, with the value of `sec-websocket-accept`.
    Http1 { accept: HeaderValue },
    /// An extended `CONNECT`.
    Http2,
}

/// The error of a handshake.
#[derive(Debug)]
pub(crate) enum HandshakeError {
    /// A part is missing or invalid.
    Malformed(&'static str),
    /// The version is not 13.
    Version,
}

/// Parses a handshake; `None` for a request that is not a WebSocket handshake.
///
/// # Errors
/// An invalid WebSocket handshake.
pub(crate) fn handshake(
    parts: &Parts,
    body: &impl Body,
) -> Result<Option<Handshake>, HandshakeError> {
    if parts.version == Version::HTTP_2 {
        if protocol_of(parts) != ProtocolType::WebSocket {
            return Ok(None);
        }
        check_version(parts)?;
        return Ok(Some(Handshake::Http2));
    }
    // RFC 9110, 7.8: HTTP/1.0 has no upgrades.
    if parts.version != Version::HTTP_11 || !has_token(&parts.headers, &UPGRADE, b"websocket") {
        return Ok(None);
    }
    let malformed = |detail| Err(HandshakeError::Malformed(detail));
    if parts.method != Method::GET {
        return malformed("the method of a WebSocket handshake must be GET");
    }
    if !has_token(&parts.headers, &CONNECTION, b"upgrade") {
        return malformed("Upgrade header without Connection: upgrade");
    }
    if !body.is_end_stream() {
        return malformed("a WebSocket handshake must not have a body");
    }
    check_version(parts)?;
    let key = single_value(parts, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(HandshakeError::Malformed(
            "Sec-WebSocket-Key is not 16 bytes in base64",
        ))?;
    // Base64 is always a valid header value.
    let accept = HeaderValue::try_from(accept(key))
        .map_err(|_| HandshakeError::Malformed("Sec-WebSocket-Key is not 16 bytes in base64"))?;
    Ok(Some(Handshake::Http1 { accept }))
}

fn check_version(parts: &Parts) -> Result<(), HandshakeError> {
    if !parts.headers.contains_key(SEC_WEBSOCKET_VERSION) {
        return Err(HandshakeError::Malformed("missing Sec-WebSocket-Version"));
    }
    match single_value(parts, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version == VERSION.as_bytes() => Ok(()),
        _ => Err(HandshakeError::Version),
    }
}

/// The only value of this name.
fn single_value<'p>(parts: &'p Parts, name: &HeaderName) -> Option<&'p [u8]> {
    let mut values = parts.headers.get_all(name).into_iter();
    let value = values.next()?.as_bytes().trim_ascii();
    values.next().is_none().then_some(value)
}

impl HandshakeError {
    pub(crate) fn failure(&self) -> Failure {
        let detail = match self {
            Self::Malformed(detail) => detail,
            Self::Version => "unsupported version of WebSocket: only 13 is supported",
        };
        Failure::new(Reason::BadRequest, detail)
    }

    /// Adds to the error response what RFC 6455, 4.2.2 requires for another version.
    pub(crate) fn add_headers<B>(&self, response: &mut Response<B>, version: Version) {
        if !matches!(self, Self::Version) {
            return;
        }
        // RFC 6455, 4.2.2; RFC 9110, 15.5.22.
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        let headers = response.headers_mut();
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION));
        if version < Version::HTTP_2 {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade, close"));
        }
    }
}
