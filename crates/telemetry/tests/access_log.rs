//! The lines of the access log.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::panic)]

mod support;

use std::time::Instant;

use adit_telemetry::{AccessLog, AccessLogSettings, Rotate, Telemetry};
use adit_trace::{Edge, Observer, Record, Timeline, TraceContext, TraceId};
use serde_json::{Value, json};
use support::record;

/// The lines of these records, written through the observer.
fn lines(records: &[Record<'_>]) -> Vec<Value> {
    written(records)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn written(records: &[Record<'_>]) -> String {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("access.log");
    let settings = AccessLogSettings::try_new(path.to_str().unwrap(), Rotate::Daily, 1).unwrap();
    let (access_log, guard) = AccessLog::start(&settings).unwrap();
    let telemetry = Telemetry {
        access_log: Some(access_log),
        ..Telemetry::default()
    };
    assert!(telemetry.is_enabled());
    for record in records {
        telemetry.on_end(record);
    }
    drop(guard);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_line_has_every_field_and_joins_the_trace() {
    let context = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let parent: TraceContext = context.parse().unwrap();
    let timeline = Timeline::new(Some(parent), TraceId::from_random(1), 0xabc);
    let mut lines = lines(&[Record {
        protocol: "grpc",
        grpc_status: Some(0),
        reason: Some("link_lost"),
        service: "127.0.0.1:8080",
        retries: 2,
        timeline: Some(&timeline),
        ..record(Edge::Egress, Instant::now())
    }]);
    let mut line = lines.remove(0);
    let time = line["time"].take();
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    assert!(time <= jiff::Timestamp::now());
    line.as_object_mut().unwrap().remove("time");
    let expected = json!({
        "edge": "egress",
        "protocol": "grpc",
        "opener": "server",
        "request_id": "0192f0c1-2345-7890-8abc-def012345678",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "0000000000000abc",
        "user": "ann",
        "group": "office",
        "client": "office-1",
        "tunnel": "web",
        "revision": 3,
        "visitor": "192.0.2.7:4711",
        "scheme": "http",
        "method": "GET",
        "host": "app.example.com",
        "port": 80,
        "path": "/a",
        "version": "HTTP/1.1",
        "status": 200,
        "grpc_status": 0,
        "service": "127.0.0.1:8080",
        "reason": "link_lost",
        "received_bytes": 5,
        "sent_bytes": 700,
        "duration_ms": 30.0,
        "first_byte_ms": 20.0,
        "retries": 2,
    });
    assert_eq!(line, expected);
    let documented = include_str!("../../../docs/logs.md");
    for field in expected.as_object().unwrap().keys() {
        assert!(documented.contains(&format!("| `{field}` |")), "{field}");
    }
}

#[test]
fn both_sides_write_a_line_with_the_same_id() {
    let now = Instant::now();
    let cases = [
        (Edge::Ingress, "server"),
        (Edge::Egress, "server"),
        (Edge::Ingress, "client"),
        (Edge::Egress, "client"),
    ];
    let records = cases.map(|(edge, opener)| Record {
        opener,
        ..record(edge, now)
    });
    let lines = lines(&records);
    for (line, (edge, opener)) in lines.iter().zip(cases) {
        assert_eq!(line["edge"], edge.as_str());
        assert_eq!(line["opener"], opener);
        assert_eq!(line["request_id"], lines[0]["request_id"]);
    }
    assert_eq!(lines.len(), cases.len());
}

#[test]
fn what_is_not_known_is_left_out() {
    let lines = lines(&[Record {
        protocol: "udp",
        opener: "",
        request_uuid: [0; 16],
        user: "",
        group: "",
        client: "",
        tunnel: "",
        revision: 0,
        visitor: "",
        scheme: "",
        method: "",
        host: "",
        port: 0,
        path: "",
        version: "",
        status: 0,
        responded: None,
        ..record(Edge::Ingress, Instant::now())
    }]);
    let fields: Vec<_> = lines[0].as_object().unwrap().keys().collect();
    let expected = [
        "duration_ms",
        "edge",
        "protocol",
        "received_bytes",
        "retries",
        "sent_bytes",
        "time",
    ];
    let mut sorted: Vec<_> = fields.iter().map(|field| field.as_str()).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
}

#[test]
fn a_hostile_value_stays_in_its_line() {
    let path = "/\"}\n{\"edge\":\"forged\"}\u{1b}[31m\u{2028}\0";
    let long = "h".repeat(100_000);
    let lines = lines(&[Record {
        path,
        host: &long,
        ..record(Edge::Ingress, Instant::now())
    }]);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["path"], path);
    assert!(lines[0]["host"].as_str().unwrap().len() < 2_100);
}

#[test]
fn c1_and_bidi_characters_are_escaped_once() {
    let path = "/a\u{9b}31m\u{85}\u{7f}\u{202e}gpj\u{2066}é\u{feff}";
    let text = written(&[Record {
        path,
        ..record(Edge::Ingress, Instant::now())
    }]);
    let shown = r#""path":"/a\u009b31m\u0085\u007f\u202egpj\u2066é\ufeff""#;
    assert!(text.contains(shown), "{text}");
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["path"], path);
}
