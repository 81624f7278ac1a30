//! Parses the head of a request, and rejects heads that two parsers could read differently.

use std::time::Instant;

use adit_codec::{HeadError, MAX_HEADER_LINES, ProtocolType};
use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::Authority,
};
use uuid::Uuid;

use crate::forward::{
    headers::{elements, has_token, retain},
    request_meta::{RequestMeta, Scheme, Visitor},
    reserved::Reserved,
    served_hosts::Admitted,
    target::Target,
};

/// What the entry knows about a request besides its head.
pub(crate) struct Received<'c> {
    pub(crate) uuid: Uuid,
    pub(crate) visitor: Visitor,
    pub(crate) scheme: Scheme,
    pub(crate) started: Instant,
    /// The request must name a host.
    pub(crate) needs_host: bool,
    /// The requests that the connection may carry.
    pub(crate) admitted: &'c Admitted,
}

/// Parses a request as hyper or h2 read it.
///
/// # Errors
/// [`Reason::BadRequest`] or [`Reason::HeaderTooLarge`]. Method and headers stay in `parts` then, and the target in `target`.
pub(crate) fn parse(
    parts: &mut Parts,
    target: &mut Option<Target>,
    received: Received<'_>,
) -> Result<RequestMeta, Failure> {
    let protocol = protocol_of(parts);
    let invalid = || bad("invalid request target");
    let authority = check(parts, protocol, target.as_ref().ok_or_else(invalid)?)?;
    if authority.is_none() && received.needs_host {
        return Err(bad("missing or empty Host header"));
    }
    received.admitted.check(authority.as_ref())?;
    let upgrade = match protocol {
        ProtocolType::Http => offered_upgrades(parts),
        _ => Bytes::new(),
    };
    Ok(RequestMeta {
        uuid: received.uuid,
        visitor: received.visitor,
        scheme: received.scheme,
        protocol,
        method: std::mem::take(&mut parts.method),
        authority,
        path: target.take().ok_or_else(invalid)?,
        version: parts.version,
        headers: std::mem::take(&mut parts.headers),
        started: received.started,
        upgrade,
        reserved: Reserved::default(),
    })
}

/// The protocol of a request, from its head.
pub(crate) fn protocol_of(parts: &Parts) -> ProtocolType {
    if is_websocket(parts) {
        ProtocolType::WebSocket
    } else if is_grpc(parts) {
        ProtocolType::Grpc
    } else {
        ProtocolType::Http
    }
}

/// Whether the request is an `Upgrade` of HTTP/1.1 (RFC 6455, 4.2.1) or an extended `CONNECT` of HTTP/2 (RFC 8441, 5).
fn is_websocket(parts: &Parts) -> bool {
    let lists = |name, token: &[u8]| has_token(&parts.headers, &name, token);
    match parts.version {
        Version::HTTP_11 => {
            parts.method == Method::GET
                && lists(UPGRADE, b"websocket")
                && lists(CONNECTION, b"upgrade")
        }
        Version::HTTP_2 => {
            let protocol = parts.extensions.get::<h2::ext::Protocol>();
            parts.method == Method::CONNECT
                && protocol.is_some_and(|protocol| protocol.as_str() == "websocket")
        }
        _ => false,
    }
}

/// Whether the request is a `POST` of HTTP/2 with the content type of gRPC (P-8.1). gRPC-Web has another content type
/// and plain HTTP.
fn is_grpc(parts: &Parts) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    parts.version == Version::HTTP_2
        && parts.method == Method::POST
        && kind
            .and_then(|kind| kind.split_at_checked(GRPC.len()))
            .is_some_and(|(kind, rest)| {
                kind.eq_ignore_ascii_case(GRPC)
                    && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
            })
}

fn check(
    parts: &mut Parts,
    protocol: ProtocolType,
    path: &Target,
) -> Result<Option<Authority>, Failure> {
    if parts.headers.len() > MAX_HEADER_LINES {
        let many = HeadError::TooManyHeaders {
            limit: MAX_HEADER_LINES,
        };
        return Err(Failure::new(Reason::HeaderTooLarge, many.to_string()));
    }
    if parts.method == Method::CONNECT && protocol != ProtocolType::WebSocket {
        return Err(bad("CONNECT is not supported: this is not a forward proxy"));
    }
    if parts.version < Version::HTTP_2 {
        if parts.uri.authority().is_some() && parts.uri.scheme().is_none() {
            return Err(bad(
                "a request target without a path is valid for CONNECT only",
            ));
        }
        check_http1(parts)?;
    } else {
        join_cookies(&mut parts.headers);
    }
    if parts
        .headers
        .get_all(CONTENT_LENGTH)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(bad("more than one Content-Length"));
    }
    let authority = authority(parts)?;
    if path.as_bytes() == b"*" && parts.method != Method::OPTIONS {
        return Err(bad("the request target * is valid for OPTIONS only"));
    }
    Ok(authority)
}

fn check_http1(parts: &mut Parts) -> Result<(), Failure> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // The end of a body with any other coding can only be found by decoding it.
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return Err(bad(
                "unsupported Transfer-Encoding: only chunked is accepted",
            ));
        }
    }
    if parts.version < Version::HTTP_11 {
        // HTTP/1.0 has no `Expect` (RFC 9110, 10.1.1).
        retain(&mut parts.headers, |name| *name != EXPECT);
    }
    Ok(())
}

/// The host of the request. RFC 9112, 3.2: exactly one `host`, which an absolute target overrides; HTTP/1.0 may have none.
/// RFC 9113, 8.3.1: one of `:authority` and `host`, or both with the same value. `None` for an empty `host`, and for a
/// missing one where it is optional.
fn authority(parts: &Parts) -> Result<Option<Authority>, Failure> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host header"));
    }
    let is_sent = host.is_some();
    let host = match host {
        Some(host) if !host.is_empty() => {
            Some(Authority::try_from(host.as_bytes()).map_err(|_| bad("invalid Host header"))?)
        }
        _ => None,
    };
    if let Some(scheme) = parts.uri.scheme_str()
        && scheme != "http"
        && scheme != "https"
    {
        return Err(bad(
            "the scheme of the request target is neither http nor https",
        ));
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(target), Some(host)) => {
            if parts.version >= Version::HTTP_2 && *target != host {
                return Err(bad(":authority and Host differ"));
            }
            target.clone()
        }
        (Some(_), None) if is_sent && parts.version >= Version::HTTP_2 => {
            return Err(bad(":authority and Host differ"));
        }
        (Some(target), None) if is_sent || parts.version != Version::HTTP_11 => target.clone(),
        (None, Some(host)) => host,
        (None, None) if is_sent || parts.version != Version::HTTP_11 => return Ok(None),
        (_, None) => return Err(bad("missing Host header")),
    };
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(bad("invalid Host header"));
    }
    if authority.as_str().len() > authority.host().len() && authority.port().is_none() {
        return Err(bad("invalid port in Host header"));
    }
    Ok(Some(authority))
}

/// Joins the lines of `cookie`: HTTP/2 may split them, other protocols do not (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_maybe_shared(Bytes::from(joined)) {
        headers.insert(COOKIE, joined);
    }
}

fn bad(detail: &'static str) -> Failure {
    Failure::new(Reason::BadRequest, detail)
}

/// The protocols that a request offers to change to (P-3.7), in the form in which they are sent; empty when it offers
/// none.
fn offered_upgrades(parts: &Parts) -> Bytes {
    let is_possible = parts.version == Version::HTTP_11
        && parts.method != Method::CONNECT
        && parts.headers.contains_key(UPGRADE);
    if !is_possible || !has_token(&parts.headers, &CONNECTION, b"upgrade") {
        return Bytes::new();
    }
    let protocols = elements(&parts.headers, &UPGRADE).filter(|protocol| can_cross(protocol));
    protocols.collect::<Vec<_>>().join(&b", "[..]).into()
}

/// Whether this is a name, with or without a version after a slash (RFC 9110, 7.8), of a protocol that both hops can
/// carry as bytes.
fn can_cross(protocol: &[u8]) -> bool {
    let is_text = protocol
        .iter()
        .all(|byte| byte.is_ascii_graphic() && *byte != b'"');
    let excluded = [&b"h2c"[..], b"h2", b"websocket"];
    is_text
        && !protocol.is_empty()
        && !excluded
            .iter()
            .any(|excluded| protocol.eq_ignore_ascii_case(excluded))
}
