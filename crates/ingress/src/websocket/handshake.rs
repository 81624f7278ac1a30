//! The visitor's side of the opening handshake (RFC 6455, 4.2; RFC 8441, 5).

use std::sync::Arc;

use adit_codec::ProtocolType;
use adit_link::{Failure, Reason};
use adit_websocket::{VERSION, accept, is_key};
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE},
    request::Parts,
};
use http_body::Body;
use hyper::upgrade::OnUpgrade;

use crate::{connection::Connection, visit};

/// A handshake that can be answered.
pub(crate) enum Handshake {
    /// An `Upgrade`, with what `sec-websocket-accept` is going to say.
    Http1 { accept: HeaderValue },
    /// An extended `CONNECT`.
    Http2,
}

/// Why a handshake cannot be answered.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It lacks something, or has something wrong.
    Malformed(&'static str),
    /// It is of another version than ours.
    Version,
}

/// Reads a handshake, if the request is one: whatever asks for WebSocket, even if the rest of it is not as it should
/// be. What becomes of an HTTP/1 connection that is to change its protocol is noted in `connection`.
pub(crate) fn handshake(
    parts: &mut Parts,
    body: &impl Body,
    connection: &Arc<Connection>,
) -> Result<Option<Handshake>, Refused> {
    if parts.version == Version::HTTP_2 {
        if visit::protocol(parts) != ProtocolType::WebSocket {
            return Ok(None);
        }
        check_version(parts)?;
        return Ok(Some(Handshake::Http2));
    }
    // For any protocol: hyper lets go of such a connection in a way of its own.
    if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>() {
        connection.takeover().set_upgrade(upgrade);
    }
    // RFC 9110, 7.8: in HTTP/1.0 it means nothing.
    if parts.version != Version::HTTP_11 || !lists(parts, &UPGRADE, b"websocket") {
        return Ok(None);
    }
    let malformed = |detail| Err(Refused::Malformed(detail));
    if parts.method != Method::GET {
        return malformed("a WebSocket is opened with GET");
    }
    if !lists(parts, &CONNECTION, b"upgrade") {
        return malformed("an upgrade header without connection: upgrade");
    }
    if !body.is_end_stream() {
        return malformed("the handshake of a WebSocket has no body");
    }
    check_version(parts)?;
    let key = one(parts, &SEC_WEBSOCKET_KEY)
        .filter(|key| is_key(key))
        .ok_or(Refused::Malformed(
            "no sec-websocket-key of 16 bytes in base64",
        ))?;
    // Base64 is always a value.
    let accept = HeaderValue::try_from(accept(key))
        .map_err(|_| Refused::Malformed("no sec-websocket-key of 16 bytes in base64"))?;
    Ok(Some(Handshake::Http1 { accept }))
}

fn check_version(parts: &Parts) -> Result<(), Refused> {
    if !parts.headers.contains_key(SEC_WEBSOCKET_VERSION) {
        return Err(Refused::Malformed("no sec-websocket-version"));
    }
    match one(parts, &SEC_WEBSOCKET_VERSION) {
        Some(version) if version == VERSION.as_bytes() => Ok(()),
        _ => Err(Refused::Version),
    }
}

/// The only value of this name.
fn one<'p>(parts: &'p Parts, name: &HeaderName) -> Option<&'p [u8]> {
    let mut values = parts.headers.get_all(name).into_iter();
    let value = values.next()?.as_bytes().trim_ascii();
    values.next().is_none().then_some(value)
}

/// Whether a list holds `token`, whatever its case.
fn lists(parts: &Parts, name: &HeaderName, token: &[u8]) -> bool {
    let lines = parts.headers.get_all(name).into_iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
}

impl Refused {
    pub(crate) fn failure(&self) -> Failure {
        let detail = match self {
            Self::Malformed(detail) => detail,
            Self::Version => "the only version of WebSocket spoken here is 13",
        };
        Failure::new(Reason::BadRequest, detail)
    }

    /// The answer to it, made of the one to any bad request.
    pub(crate) fn dress<B>(&self, response: &mut Response<B>, version: Version) {
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
