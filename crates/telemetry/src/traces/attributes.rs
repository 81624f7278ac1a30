//! Attributes, by the names of OpenTelemetry's semantic conventions where these have one, and `adit.*` where not.

use std::{borrow::Cow, net::IpAddr};

use adit_trace::{Edge, Record, Span};
use prost::encoding::encoded_len_varint;
use uuid::Uuid;

use crate::grpc;

use super::wire::{Wire, field_bytes};

/// Longer texts are cut: a visitor chooses the path, and the queue holds thousands of requests.
const MAX_TEXT_BYTES: usize = 1_024;

/// Fields of OTLP's `KeyValue` and `AnyValue`.
const KEY: u8 = 1;
const VALUE: u8 = 2;
const STRING: u8 = 1;
const INT: u8 = 3;
const DOUBLE: u8 = 4;

/// Writes attributes of one message.
pub(super) struct Attributes<'a> {
    wire: &'a mut Wire,
    /// The message's field for them.
    field: u8,
}

impl<'a> Attributes<'a> {
    pub(super) const fn new(wire: &'a mut Wire, field: u8) -> Self {
        Self { wire, field }
    }

    /// A text, cut where it is too long; nothing where it is empty.
    pub(super) fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
            self.begin(key, field_bytes(text.len()));
            self.wire.text(STRING, text);
        }
    }

    /// A number.
    pub(super) fn number(&mut self, key: &str, number: u64) {
        // Those of OTLP are signed.
        let number = number.min(i64::MAX.unsigned_abs());
        self.begin(key, 1 + encoded_len_varint(number));
        self.wire.varint(INT, number);
    }

    /// A number that is not 0.
    fn known(&mut self, key: &str, number: u64) {
        if number != 0 {
            self.number(key, number);
        }
    }

    fn double(&mut self, key: &str, number: f64) {
        self.begin(key, 1 + size_of::<f64>());
        self.wire.double(DOUBLE, number);
    }

    /// All before the value's own field, which takes so many bytes.
    fn begin(&mut self, key: &str, value_bytes: usize) {
        let length = field_bytes(key.len()) + field_bytes(value_bytes);
        self.wire.begin(self.field, length);
        self.wire.text(KEY, key);
        self.wire.begin(VALUE, value_bytes);
    }
}

/// What the hop's span says.
pub(super) fn of_hop(attributes: &mut Attributes<'_>, record: &Record<'_>, error_type: &str) {
    match record.protocol {
        "tcp" | "udp" => attributes.text("network.transport", record.protocol),
        _ => http(attributes, record),
    }
    if record.protocol == "grpc" {
        rpc(attributes, record);
    }
    let (host, port) = address(record.host);
    attributes.text("server.address", host);
    let port = nonzero(record.port).or(port).unwrap_or(0);
    attributes.known("server.port", port.into());
    let (visitor, port) = address(record.visitor);
    attributes.text("client.address", visitor);
    attributes.known("client.port", port.unwrap_or(0).into());
    attributes.text("error.type", error_type);
    adit(attributes, record);
}

/// What the span of a phase says. Those of the services' side that reach the service name it.
pub(super) fn of_phase(
    attributes: &mut Attributes<'_>,
    record: &Record<'_>,
    span: &Span,
    reaches_service: bool,
) {
    if let Some(busy) = span.busy {
        attributes.double("adit.wait.seconds", busy.as_secs_f64());
    }
    if reaches_service {
        let (service, port) = address(record.service);
        attributes.text("server.address", service);
        attributes.known("server.port", port.unwrap_or(0).into());
    }
}

fn http(attributes: &mut Attributes<'_>, record: &Record<'_>) {
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

fn rpc(attributes: &mut Attributes<'_>, record: &Record<'_>) {
    attributes.text("rpc.system", "grpc");
    if let Some((service, method)) = grpc::method(record.path) {
        attributes.text("rpc.service", service);
        attributes.text("rpc.method", method);
    }
    if let Some(status) = record.grpc_status {
        attributes.number("rpc.grpc.status_code", status.into());
    }
}

fn adit(attributes: &mut Attributes<'_>, record: &Record<'_>) {
    let uuid = Uuid::from_bytes(record.request_uuid);
    if !uuid.is_nil() {
        let mut text = Uuid::encode_buffer();
        attributes.text(
            "adit.request.uuid",
            uuid.hyphenated().encode_lower(&mut text),
        );
    }
    attributes.text("adit.edge", record.edge.as_str());
    attributes.text("adit.protocol", record.protocol);
    attributes.text("adit.opener", record.opener);
    attributes.text("adit.user", record.user);
    attributes.text("adit.group", record.group);
    attributes.text("adit.client", record.client);
    attributes.text("adit.tunnel", record.tunnel);
    attributes.known("adit.revision", record.revision);
    attributes.text("adit.service", record.service);
    attributes.text("adit.reason", record.reason.unwrap_or_default());
    attributes.number("adit.bytes.received", record.received_bytes);
    attributes.number("adit.bytes.sent", record.sent_bytes);
    if record.edge == Edge::Ingress {
        attributes.number("adit.retries", record.retries.into());
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
pub(super) fn failure(record: &Record<'_>) -> Option<Cow<'static, str>> {
    /// What a visitor did or left undone is no failure of who serves it.
    const THE_VISITORS: [&str; 6] = [
        "no_tunnel",
        "bad_request",
        "header_too_large",
        "loop",
        "stalled",
        "cancelled",
    ];
    match record.reason {
        Some(reason) if !THE_VISITORS.contains(&reason) => return Some(reason.into()),
        Some(_) => return None,
        None => {}
    }
    if record.status >= 500 {
        return Some(record.status.to_string().into());
    }
    record
        .grpc_status
        .and_then(grpc::name)
        .filter(|name| SERVERS_OWN.contains(name))
        .map(Cow::Borrowed)
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
    let (host, port) = match text.rsplit_once(':') {
        // More than one colon, and none of them within brackets: of IPv6 it is the address alone.
        Some((host, _))
            if host.contains(':') && !host.ends_with(']') && text.parse::<IpAddr>().is_ok() =>
        {
            (text, None)
        }
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
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, KeyValue, any_value::Value},
        resource::v1::Resource,
    };
    use prost::Message;

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

    /// Attributes as a collector reads them.
    fn read(write: impl FnOnce(&mut Attributes<'_>)) -> Vec<KeyValue> {
        let mut wire = Wire::default();
        write(&mut Attributes::new(&mut wire, 1));
        let read = Resource::decode(&wire.into_inner()[..]).unwrap();
        read.attributes
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let read = read(|attributes| {
            attributes.text("key", &"é".repeat(MAX_TEXT_BYTES));
            attributes.text("odd", &format!("x{}", "é".repeat(MAX_TEXT_BYTES)));
            attributes.text("empty", "");
        });
        let lengths: Vec<_> = read
            .into_iter()
            .map(|pair| match pair.value.unwrap().value.unwrap() {
                Value::StringValue(text) => text.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(lengths, [MAX_TEXT_BYTES, MAX_TEXT_BYTES - 1]);
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        let long = "k".repeat(200);
        let read = read(|attributes| {
            attributes.number("zero", 0);
            attributes.number(&long, 300);
            attributes.number("most", u64::MAX);
            attributes.known("unknown", 0);
            attributes.double("double", 0.25);
            attributes.text("text", "é");
        });
        let value = |value| Some(AnyValue { value: Some(value) });
        let pair = |key: &str, of| (key.to_owned(), value(of));
        let pairs: Vec<_> = read
            .into_iter()
            .map(|pair| (pair.key, pair.value))
            .collect();
        let told = [
            pair("zero", Value::IntValue(0)),
            pair(&long, Value::IntValue(300)),
            pair("most", Value::IntValue(i64::MAX)),
            pair("double", Value::DoubleValue(0.25)),
            pair("text", Value::StringValue("é".to_owned())),
        ];
        assert_eq!(pairs, told);
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
