//! The parsed head of one request, and the visitor that sent it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use adit_codec::ProtocolType;
pub use adit_net::Scheme;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header::EXPECT, uri::Authority};
use uuid::{Builder, Uuid};

use crate::forward::{counted_by::CountedBy, reserved::Reserved, target::Target};

/// A visitor's address, with the texts that each of its requests needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Visitor {
    addr: SocketAddr,
    /// The local port of the connection; 0 when unknown.
    local_port: u16,
    shared: Arc<Shared>,
}

/// What all requests of a visitor share.
#[derive(Debug)]
struct Shared {
    /// The address with its port, as text.
    text: HeaderValue,
    /// The address without the port, as text; an IPv4-mapped IPv6 address is shown as IPv4.
    ip: HeaderValue,
    /// The layers that have counted the connection.
    counted_by: Arc<CountedBy>,
}

impl Visitor {
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self::on_connection(addr, Arc::default())
    }

    fn on_connection(addr: SocketAddr, counted_by: Arc<CountedBy>) -> Self {
        // An address is always a valid header value.
        let value = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
        };
        Self {
            addr,
            local_port: 0,
            shared: Arc::new(Shared {
                text: value(addr.to_string()),
                ip: value(addr.ip().to_canonical().to_string()),
                counted_by,
            }),
        }
    }

    /// The same connection, whose visitor is at `addr` because the peer is a proxy. The port of `addr` is 0 where the proxy
    /// does not report it.
    pub(crate) fn behind_proxy(&self, addr: SocketAddr) -> Self {
        let counted_by = self.shared.counted_by.clone();
        Self::on_connection(addr, counted_by).on_port(self.local_port)
    }

    /// The layers that have counted the connection.
    pub(crate) fn counted_by(&self) -> &CountedBy {
        &self.shared.counted_by
    }

    pub(crate) fn on_port(self, local_port: u16) -> Self {
        Self { local_port, ..self }
    }

    /// The local port of the connection; 0 when unknown. A tunnel may own a port.
    pub const fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The socket address.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket address, as text.
    pub fn as_str(&self) -> &str {
        self.shared.text.to_str().unwrap_or_default()
    }

    /// The address without the port, as a header value.
    pub fn ip_value(&self) -> &HeaderValue {
        &self.shared.ip
    }
}

/// The parsed head of one request. Layers may change it.
#[derive(Debug)]
pub struct RequestMeta {
    /// The id of the request on both sides: a UUIDv7.
    pub uuid: Uuid,
    /// The visitor that sent the request.
    pub visitor: Visitor,
    /// The scheme of the visitor's connection, or the one that a trusted proxy reports.
    pub scheme: Scheme,
    /// HTTP, gRPC or WebSocket.
    pub protocol: ProtocolType,
    /// The method.
    pub method: Method,
    /// Host and, if it was sent, port; never with user information. It crosses in the place of the `host`
    /// header. `None` only on a port whose requests need no host ([`crate::Director::needs_host`]).
    pub authority: Option<Authority>,
    /// Path and query; `*` for `OPTIONS *`.
    pub path: Target,
    /// The visitor's HTTP version.
    pub version: Version,
    /// Header lines as the visitor sent them, with the changes of the layers.
    pub headers: HeaderMap,
    /// When the first byte of the head arrived, or as soon after it as the connection can observe it.
    pub started: Instant,
    /// The protocols that the request offers to change to (P-3.7); mostly empty.
    pub(crate) upgrade: Bytes,
    /// Names of lines that only adit sets.
    pub(crate) reserved: Reserved,
}

impl RequestMeta {
    /// The host without the port, as sent; empty without a host.
    pub fn host(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::host)
    }

    /// [`RequestMeta::authority`] as text; empty without a host.
    pub fn authority_str(&self) -> &str {
        self.authority.as_ref().map_or("", Authority::as_str)
    }

    /// Whether the visitor waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub(crate) fn expects_continue(&self) -> bool {
        self.version > Version::HTTP_10
            && self
                .headers
                .get(EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    }
}

/// A new id for a request: a UUIDv7 whose random part comes from the thread's own generator, which saves a system call for
/// each request.
pub(crate) fn new_uuid() -> Uuid {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(0));
    Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

/// The `traceparent` of a request; empty when it has none, or more than one: then neither can be trusted.
pub(crate) fn traceparent(headers: &HeaderMap) -> &str {
    // The name is static: a lookup by text would parse it for each request.
    static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
    let mut values = headers.get_all(&TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(one), None) => one.to_str().unwrap_or_default(),
        _ => "",
    }
}
