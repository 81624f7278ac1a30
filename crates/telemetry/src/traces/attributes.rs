//! Attributes, by the names of OpenTelemetry's semantic conventions where these have one, and `adit.*` where not.

use std::net::IpAddr;

use adit_trace::{Edge, Record, Span};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use uuid::Uuid;

use crate::grpc;

use super::tree::grpc_path;

/// Longer texts are cut: a visitor chooses the path, and the queue holds thousands of requests.
const MAX_TEXT_BYTES: usize = 1_024;

/// Attributes that come together.
#[derive(Debug, Default)]
pub(super) struct Attributes(Vec<KeyValue>);

impl Attributes {
    /// A text, cut where it is too long; nothing where it is empty.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
            self.push(key, Value::StringValue(text.to_owned()));
        }
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str, number: i64) {
        self.push(key, Value::IntValue(number));
    }

    /// A count of whatever size.
    fn count(&mut self, key: &str, count: u64) {
        self.number(key, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A number that is not 0.
    fn known(&mut self, key: &str, number: u64) {
        if number != 0 {
            self.count(key, number);
        }
    }

    fn push(&mut self, key: &str, value: Value) {
        self.0.push(KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        });
    }

    /// As they go into a message.
    pub(super) fn into_inner(self) -> Vec<KeyValue> {
        self.0
    }
}

/// What the hop's span says.
pub(super) fn of_hop(record: &Record<'_>, error_type: Option<&str>) -> Vec<KeyValue> {
    let mut attributes = Attributes(Vec::with_capacity(32));
    match record.protocol {
        "tcp" | "udp" => attributes.text("network.transport", record.protocol),
        _ => http(&mut attributes, record),
    }
    if record.protocol == "grpc" {
        rpc(&mut attributes, record);
    }
    let (host, port) = address(record.host);
    attributes.text("server.address", host);
    attributes.known(
        "server.port",
        nonzero(record.port).or(port).unwrap_or(0).into(),
    );
    let (visitor, port) = address(record.visitor);
    attributes.text("client.address", visitor);
    attributes.known("client.port", port.unwrap_or(0).into());
    attributes.text("error.type", error_type.unwrap_or_default());
    adit(&mut attributes, record);
    attributes.0
}

/// What the span of a phase says. Those of the services' side that reach the service name it.
pub(super) fn of_phase(record: &Record<'_>, span: &Span, reaches_service: bool) -> Vec<KeyValue> {
    let mut attributes = Attributes::default();
    if let Some(busy) = span.busy {
        attributes.push("adit.wait.seconds", Value::DoubleValue(busy.as_secs_f64()));
    }
    if reaches_service {
        let (service, port) = address(record.service);
        attributes.text("server.address", service);
        attributes.known("server.port", port.unwrap_or(0).into());
    }
    attributes.0
}

fn http(attributes: &mut Attributes, record: &Record<'_>) {
    let known = known_method(record.method);
    attributes.text("http.request.method", known.unwrap_or("_OTHER"));
    if known.is_none() {
        attributes.text("http.request.method_original", record.method);
    }
    attributes.text("url.scheme", record.scheme);
    attributes.text("url.path", without_query(record.path));
    attributes.text("network.protocol.name", "http");
    attributes.text("network.protocol.version", version(record.version));
    attributes.known("http.response.status_code", record.status.into());
}

fn rpc(attributes: &mut Attributes, record: &Record<'_>) {
    attributes.text("rpc.system", "grpc");
    if let Some((service, method)) = grpc_path(record.path) {
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
        attributes.text("adit.request.uuid", &uuid.to_string());
    }
    attributes.text("adit.edge", record.edge.as_str());
    attributes.text("adit.protocol", record.protocol);
    attributes.text("adit.opener", record.opener);
    attributes.text("adit.user", record.user);
    attributes.text("adit.client", record.client);
    attributes.text("adit.tunnel", record.tunnel);
    attributes.known("adit.revision", record.revision);
    attributes.text("adit.service", record.service);
    attributes.text("adit.reason", record.reason.unwrap_or_default());
    attributes.count("adit.bytes.received", record.received_bytes);
    attributes.count("adit.bytes.sent", record.sent_bytes);
    if record.edge == Edge::Ingress {
        attributes.count("adit.retries", record.retries.into());
    }
}

/// The method, if it is one that everybody knows: others are the visitor's invention, and without number.
pub(super) fn known_method(method: &str) -> Option<&str> {
    const METHODS: [&str; 10] = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY",
    ];
    METHODS.into_iter().find(|known| *known == method)
}

/// What failed, for `error.type`: the reason, else the status of HTTP or gRPC that says so. `None`: it did not fail, or
/// the visitor's side is to blame.
pub(super) fn failure(record: &Record<'_>) -> Option<String> {
    /// What a visitor did or left undone is no failure of who serves it.
    const THE_VISITORS: [&str; 5] = [
        "no_tunnel",
        "bad_request",
        "header_too_large",
        "stalled",
        "cancelled",
    ];
    match record.reason {
        Some(reason) if !THE_VISITORS.contains(&reason) => return Some(reason.to_owned()),
        Some(_) => return None,
        None => {}
    }
    if record.status >= 500 {
        return Some(record.status.to_string());
    }
    record
        .grpc_status
        .and_then(grpc::name)
        .filter(|name| SERVERS_OWN.contains(name))
        .map(str::to_owned)
}

/// Statuses of gRPC that are the server's failure; the others may well be the answer to a fair question.
const SERVERS_OWN: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

/// A query may hold secrets. Whoever made the record has left it out; this is for the one who forgets.
fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// `HTTP/1.1` is `1.1`, `HTTP/2.0` is `2`.
fn version(version: &str) -> &str {
    let number = version.strip_prefix("HTTP/").unwrap_or(version);
    match number {
        "2.0" => "2",
        "3.0" => "3",
        number => number,
    }
}

/// Host and port of an address as it is written; all of it and no port where it is written otherwise.
fn address(text: &str) -> (&str, Option<u16>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => match port.parse() {
            Ok(port) => (host, nonzero(port)),
            Err(_) => (text, None),
        },
        None => (text, None),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    (bare.unwrap_or(host), port)
}

fn nonzero(port: u16) -> Option<u16> {
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_apart() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "::1", Some(80)),
            ("[::1]", "::1", None),
            ("::1", "::1", None),
            ("fe80::1:80", "fe80::1:80", None),
            ("shop.example:8080", "shop.example", Some(8_080)),
            ("shop.example", "shop.example", None),
            ("shop.example:0", "shop.example", None),
            ("unix:/run/app.sock", "unix:/run/app.sock", None),
            ("", "", None),
        ] {
            assert_eq!(address(text), (host, port), "{text}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut attributes = Attributes::default();
        attributes.text("key", &"é".repeat(MAX_TEXT_BYTES));
        attributes.text("odd", &format!("x{}", "é".repeat(MAX_TEXT_BYTES)));
        attributes.text("empty", "");
        let lengths: Vec<_> = attributes
            .into_inner()
            .into_iter()
            .map(|pair| match pair.value.unwrap().value.unwrap() {
                Value::StringValue(text) => text.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [MAX_TEXT_BYTES, MAX_TEXT_BYTES - 1]);
    }

    #[test]
    fn versions_are_named_as_the_conventions_name_them() {
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
