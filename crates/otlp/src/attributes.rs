//! Attributes, named by OpenTelemetry's semantic conventions where these define a name, and `adit.*` otherwise.

use std::borrow::Cow;

use adit_trace::{Edge, Record, Span, split_port};
use opentelemetry::KeyValue;
use uuid::Uuid;

use crate::grpc;

/// The most attributes of a hop.
const HOP_ATTRIBUTES: usize = 32;

/// Collects attributes; empty texts and unknown numbers are left out.
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    pub(super) fn into_inner(self) -> Vec<KeyValue> {
        self.0
    }

    /// Adds a text that is not empty.
    pub(super) fn text(&mut self, key: &'static str, text: &str) {
        if !text.is_empty() {
            self.0.push(KeyValue::new(key, text.to_owned()));
        }
    }

    /// Adds a text that is a constant of this program, which is not copied.
    pub(super) fn constant(&mut self, key: &'static str, text: &'static str) {
        if !text.is_empty() {
            self.0.push(KeyValue::new(key, text));
        }
    }

    pub(super) fn number(&mut self, key: &'static str, number: u64) {
        // Integers of OTLP are signed.
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        self.0.push(KeyValue::new(key, number));
    }

    /// Adds a number that is not 0.
    fn known(&mut self, key: &'static str, number: u64) {
        if number != 0 {
            self.number(key, number);
        }
    }

    fn double(&mut self, key: &'static str, number: f64) {
        self.0.push(KeyValue::new(key, number));
    }
}

/// The attributes of the hop's span.
pub(super) fn of_hop(record: &Record<'_>, error_type: Option<&str>) -> Vec<KeyValue> {
    let mut attributes = Attributes::with_capacity(HOP_ATTRIBUTES);
    match record.protocol {
        "tcp" | "udp" => attributes.constant("network.transport", record.protocol),
        _ => http(&mut attributes, record),
    }
    if record.protocol == "grpc" {
        rpc(&mut attributes, record);
    }
    let (host, port) = address(record.host);
    attributes.text("server.address", host);
    let port = nonzero(record.port).or(port).unwrap_or(0);
    attributes.known("server.port", port.into());
    let (visitor, port) = address(record.visitor);
    attributes.text("client.address", visitor);
    attributes.known("client.port", port.unwrap_or(0).into());
    attributes.text("error.type", error_type.unwrap_or_default());
    adit(&mut attributes, record);
    attributes.into_inner()
}

/// The attributes of a phase. Phases of the services' side that reach the service contain its address.
pub(super) fn of_phase(record: &Record<'_>, span: &Span, reaches_service: bool) -> Vec<KeyValue> {
    let mut attributes = Attributes::with_capacity(0);
    if let Some(busy) = span.busy {
        attributes.double("adit.wait.seconds", busy.as_secs_f64());
    }
    if reaches_service {
        let (service, port) = address(record.service);
        attributes.text("server.address", service);
        attributes.known("server.port", port.unwrap_or(0).into());
    }
    attributes.into_inner()
}

fn http(attributes: &mut Attributes, record: &Record<'_>) {
    let known = known_method(record.method);
    attributes.constant("http.request.method", known.unwrap_or("_OTHER"));
    if known.is_none() {
        attributes.text("http.request.method_original", record.method);
    }
    attributes.constant("url.scheme", record.scheme);
    attributes.text("url.path", record.path);
    attributes.constant("network.protocol.name", "http");
    attributes.constant("network.protocol.version", version(record.version));
    attributes.known("http.response.status_code", record.status.into());
}

fn rpc(attributes: &mut Attributes, record: &Record<'_>) {
    attributes.constant("rpc.system", "grpc");
    if let Some((service, method)) = grpc::method(record.path) {
        attributes.text("rpc.service", service);
        attributes.text("rpc.method", method);
    }
    if let Some(status) = record.grpc_status {
        attributes.number("rpc.grpc.status_code", status.into());
    }
}

fn adit(attributes: &mut Attributes, record: &Record<'_>) {
    let uuid = Uuid::from_bytes(record.request_uuid);
    if !uuid.is_nil() {
        let mut text = Uuid::encode_buffer();
        attributes.text(
            "adit.request.uuid",
            uuid.hyphenated().encode_lower(&mut text),
        );
    }
    attributes.constant("adit.edge", record.edge.as_str());
    attributes.constant("adit.protocol", record.protocol);
    attributes.constant("adit.opener", record.opener);
    attributes.text("adit.user", record.user);
    attributes.text("adit.group", record.group);
    attributes.text("adit.client", record.client);
    attributes.text("adit.tunnel", record.tunnel);
    attributes.known("adit.revision", record.revision);
    attributes.text("adit.service", record.service);
    attributes.constant("adit.reason", record.reason.unwrap_or_default());
    attributes.number("adit.bytes.received", record.received_bytes);
    attributes.number("adit.bytes.sent", record.sent_bytes);
    if record.edge == Edge::Ingress {
        attributes.number("adit.retries", record.retries.into());
    }
}

/// The method, if it is a standard one: visitors can send any other text.
pub(super) fn known_method(method: &str) -> Option<&'static str> {
    const METHODS: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    METHODS.into_iter().find(|known| *known == method)
}

/// The failure, for `error.type`: the reason, or else the status of HTTP or gRPC. `None` when the request did not fail,
/// and when the visitor caused the failure.
pub(super) fn failure(record: &Record<'_>) -> Option<Cow<'static, str>> {
    /// Failures that the visitor causes.
    const BY_VISITOR: [&str; 7] = [
        "no_tunnel",
        "bad_request",
        "header_too_large",
        "misdirected",
        "loop",
        "stalled",
        "cancelled",
    ];
    match record.reason {
        Some(reason) if !BY_VISITOR.contains(&reason) => return Some(reason.into()),
        Some(_) => return None,
        None => {}
    }
    if record.status >= 500 {
        return Some(record.status.to_string().into());
    }
    record
        .grpc_status
        .and_then(grpc::name)
        .filter(|name| BY_SERVER.contains(name))
        .map(Cow::Borrowed)
}

/// Statuses of gRPC that are failures of the server; the others can be the right response to a request.
const BY_SERVER: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

/// The version for the attribute: `1.1` for `HTTP/1.1`, `2` for `HTTP/2.0`.
fn version(version: &'static str) -> &'static str {
    let number = version.strip_prefix("HTTP/").unwrap_or(version);
    match number {
        "2.0" => "2",
        "3.0" => "3",
        number => number,
    }
}

/// The host, without the brackets of an IPv6 address, and the port.
fn address(text: &str) -> (&str, Option<u16>) {
    let (host, port) = split_port(text);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port.and_then(nonzero))
}

fn nonzero(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_no_brackets_and_no_port_zero() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("shop.example:0", "shop.example", None),
        ] {
            assert_eq!(address(text), (host, port), "{text}");
        }
    }

    #[test]
    fn empty_texts_and_unknown_numbers_are_left_out() {
        let mut attributes = Attributes::with_capacity(0);
        attributes.text("empty", "");
        attributes.constant("none", "");
        attributes.known("unknown", 0);
        attributes.number("zero", 0);
        attributes.number("most", u64::MAX);
        attributes.double("double", 0.25);
        attributes.text("text", "é");
        let expected = [
            KeyValue::new("zero", 0),
            KeyValue::new("most", i64::MAX),
            KeyValue::new("double", 0.25),
            KeyValue::new("text", "é"),
        ];
        assert_eq!(attributes.into_inner(), expected);
    }

    #[test]
    fn versions_are_named_by_the_conventions() {
        for (version_text, name) in [
            ("HTTP/1.0", "1.0"),
            ("HTTP/1.1", "1.1"),
            ("HTTP/2.0", "2"),
            ("", ""),
        ] {
            assert_eq!(version(version_text), name);
        }
    }
}
