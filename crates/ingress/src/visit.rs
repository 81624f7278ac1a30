//! One request of a visitor while it is being admitted.

use std::{
    net::SocketAddr,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use adit_codec::{HeadError, MAX_HEADER_LINES, ProtocolType};
use adit_link::{Failure, Reason};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::Authority,
};
use uuid::{Builder, Uuid};

use crate::{ordered::retain, target::Target, upgrade};

/// How the visitor reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in URLs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Who a visitor is, with the texts that each of its requests needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Visitor {
    addr: SocketAddr,
    /// The address with its port, as text.
    text: HeaderValue,
    /// The address alone, as text; IPv4 where a dual-stack socket shows it in IPv6's clothes.
    ip: HeaderValue,
    /// The port that it came to; 0 when nobody has said.
    local_port: u16,
}

impl Visitor {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        // An address is always a header value.
        let value = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            addr,
            text: value(addr.to_string()),
            ip: value(addr.ip().to_canonical().to_string()),
            local_port: 0,
        }
    }

    /// The same connection, whose visitor is at `addr`: the peer is a proxy. Its port is 0 where the proxy does not report
    /// it.
    pub(crate) fn behind_proxy(&self, addr: SocketAddr) -> Self {
        Self::new(addr).came_to(self.local_port)
    }

    pub(crate) fn came_to(self, local_port: u16) -> Self {
        Self { local_port, ..self }
    }

    /// The port that it came to; 0 when nobody has said. A tunnel may hold one for itself.
    pub const fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The socket address.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket address, as text.
    pub fn as_str(&self) -> &str {
        self.text.to_str().unwrap_or_default()
    }

    /// The address without the port, as a header value.
    pub const fn ip_value(&self) -> &HeaderValue {
        &self.ip
    }
}

/// One request of a visitor while it is being admitted.
#[derive(Debug)]
pub struct Visit {
    /// Its name on both sides: a UUIDv7.
    pub uuid: Uuid,
    /// Who asks.
    pub visitor: Visitor,
    /// How the visitor reached us.
    pub scheme: Scheme,
    /// What it is: an exchange of HTTP, a gRPC call, or the handshake of a WebSocket.
    pub protocol: ProtocolType,
    /// Method.
    pub method: Method,
    /// Host and, if it was sent, port; never with user information. It crosses in the place of the `host`
    /// header. `None` only where the visitor came to a port that needs no host ([`crate::Director::needs_host`]).
    pub authority: Option<Authority>,
    /// Path and query; `*` for `OPTIONS *`.
    pub path: Target,
    /// The visitor's HTTP version.
    pub version: Version,
    /// Header lines, as they came but for what the layers have changed.
    pub headers: HeaderMap,
    /// When the first byte of its head was there, or as soon after it as its connection can tell.
    pub started: Instant,
    /// The protocols that it offers to change to (P-3.7); mostly none.
    pub(crate) upgrade: Bytes,
}

impl Visit {
    /// The host without the port, as sent; empty if there is none.
    pub fn host(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::host)
    }

    /// [`Visit::authority`] as text; empty if there is none.
    pub fn authority_str(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::as_str)
    }
}

/// What an entry knows of a request beside its head.
pub(crate) struct Arrival {
    pub(crate) uuid: Uuid,
    pub(crate) visitor: Visitor,
    pub(crate) scheme: Scheme,
    pub(crate) started: Instant,
    /// The request must name a host.
    pub(crate) needs_host: bool,
}

impl Visit {
    /// Takes a request as hyper read it, or says why it is none that could be carried.
    pub(crate) fn admit(
        parts: &mut Parts,
        target: &mut Option<Target>,
        arrival: Arrival,
    ) -> Result<Self, Failure> {
        let protocol = protocol(parts);
        let unreadable = || bad("the request target cannot be read");
        let authority = admit(parts, protocol, target.as_ref().ok_or_else(unreadable)?)?;
        if authority.is_none() && arrival.needs_host {
            return Err(bad(
                "the request has no host, or an empty one; send a Host header",
            ));
        }
        let upgrade = match protocol {
            ProtocolType::Http => upgrade::offered(parts),
            _ => Bytes::new(),
        };
        Ok(Self {
            uuid: arrival.uuid,
            visitor: arrival.visitor,
            scheme: arrival.scheme,
            protocol,
            method: std::mem::take(&mut parts.method),
            authority,
            path: target.take().ok_or_else(unreadable)?,
            version: parts.version,
            headers: std::mem::take(&mut parts.headers),
            started: arrival.started,
            upgrade,
        })
    }

    /// Whether the visitor sends its body only when it is told to (RFC 9110, 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.version > Version::HTTP_10
            && self
                .headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }
}

/// A new name for a request: a UUIDv7 whose random part comes from the thread's own generator. Asking the system for it
/// would be a call for each request.
pub(crate) fn new_uuid() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

/// The `traceparent` of a request; empty when it has none, or more than one, of which none could be
/// believed.
pub(crate) fn traceparent(headers: &HeaderMap) -> &str {
    // Each request is asked for it: a name that is a text would be parsed each time.
    static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    let mut values = headers.get_all(&TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().unwrap_or_default(),
        _ => "",
    }
}

/// What a request is, by its head alone.
pub(crate) fn protocol(parts: &Parts) -> ProtocolType {
    if is_websocket(parts) {
        ProtocolType::WebSocket
    } else if is_grpc(parts) {
        ProtocolType::Grpc
    } else {
        ProtocolType::Http
    }
}

/// An `Upgrade` of HTTP/1.1 (RFC 6455, 4.2.1) or an extended `CONNECT` of HTTP/2 (RFC 8441, 5).
fn is_websocket(parts: &Parts) -> bool {
    let lists = |name, token: &[u8]| {
        let lines = parts.headers.get_all(name).into_iter();
        lines
            .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
            .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
    };
    match parts.version {
        Version::HTTP_11 => {
            parts.method == Method::GET
                && lists(UPGRADE, b"websocket")
                && lists(CONNECTION, b"upgrade")
        }
        Version::HTTP_2 => {
            let asked = parts.extensions.get::<h2::ext::Protocol>();
            parts.method == Method::CONNECT
                && asked.is_some_and(|asked| asked.as_str() == "websocket")
        }
        _ => false,
    }
}

/// A `POST` of HTTP/2 whose content type is that of gRPC (P-8.1). gRPC-Web has another one: it is plain HTTP.
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

fn admit(
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
        return Err(bad("CONNECT is not carried: this is no forward proxy"));
    }
    if parts.version < Version::HTTP_2 {
        if parts.uri.authority().is_some() && parts.uri.scheme().is_none() {
            return Err(bad("a bare host is a target for CONNECT only"));
        }
        admit_http1(parts)?;
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
        return Err(bad("more than one content-length"));
    }
    let authority = authority(parts)?;
    if path.as_bytes() == b"*" && parts.method != Method::OPTIONS {
        return Err(bad("the target * is for OPTIONS only"));
    }
    Ok(authority)
}

fn admit_http1(parts: &mut Parts) -> Result<(), Failure> {
    let mut codings = parts.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        // Any other coding would have to be undone before the body could be told from what follows it.
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return Err(bad("a transfer-encoding other than chunked"));
        }
    }
    if parts.version < Version::HTTP_11 {
        // HTTP/1.0 does not know it (RFC 9110, 10.1.1).
        retain(&mut parts.headers, |name| *name != EXPECT);
    }
    Ok(())
}

/// The host that the request is for. RFC 9112, 3.2: exactly one `host`, which an absolute target overrules; HTTP/1.0 may
/// have none. RFC 9113, 8.3.1: one of `:authority` and `host`, or both alike. `None` for an empty `host`, and for none
/// where there may be none.
fn authority(parts: &Parts) -> Result<Option<Authority>, Failure> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one host header"));
    }
    let is_sent = host.is_some();
    let host = match host {
        Some(host) if !host.is_empty() => Some(
            Authority::try_from(host.as_bytes()).map_err(|_| bad("the host header is no host"))?,
        ),
        _ => None,
    };
    if let Some(scheme) = parts.uri.scheme_str()
        && scheme != "http"
        && scheme != "https"
    {
        return Err(bad("a target that is neither http nor https"));
    }
    let authority = match (parts.uri.authority(), host) {
        (Some(target), Some(host)) => {
            if parts.version >= Version::HTTP_2 && *target != host {
                return Err(bad(":authority and host differ"));
            }
            target.clone()
        }
        (Some(_), None) if is_sent && parts.version >= Version::HTTP_2 => {
            return Err(bad(":authority and host differ"));
        }
        (Some(target), None) if is_sent || parts.version != Version::HTTP_11 => target.clone(),
        (None, Some(host)) => host,
        (None, None) if is_sent || parts.version != Version::HTTP_11 => return Ok(None),
        (_, None) => return Err(bad("no host header")),
    };
    if authority.host().is_empty() || authority.as_str().contains('@') {
        return Err(bad("the host header is no host"));
    }
    if authority.as_str().len() > authority.host().len() && authority.port().is_none() {
        return Err(bad("the port of the host header is no port"));
    }
    Ok(Some(authority))
}

/// HTTP/2 visitors may send their cookies apart, which no other protocol understands (RFC 9113, 8.2.3).
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
