//! Records of finished requests.

use std::time::{Duration, Instant};

use adit_otlp::{Traces, TracesSettings};
use adit_trace::{Edge, Record, Timeline};
use opentelemetry_proto::tonic::trace::v1::Span;

use super::collector::{Collector, spans};

/// Settings without a short timeout: the test itself ends slow operations.
pub(super) fn settings(endpoint: &str) -> TracesSettings {
    TracesSettings {
        timeout: Duration::from_secs(300),
        interval: Duration::from_millis(1),
        ..TracesSettings::new(endpoint, "adit-test")
    }
}

/// A time that only an operation that hangs exceeds.
pub(super) const AMPLE: Duration = Duration::from_secs(60);

pub(super) fn http(edge: Edge, started: Instant) -> Record<'static> {
    Record {
        edge,
        protocol: "http",
        opener: "server",
        request_uuid: [0x5a; 16],
        user: "ann",
        group: "office",
        client: "office-1",
        tunnel: "shop",
        revision: 7,
        visitor: "203.0.113.9:40001",
        scheme: "https",
        method: "GET",
        host: "shop.example",
        port: 443,
        path: "/cart",
        version: "HTTP/2.0",
        status: 200,
        grpc_status: None,
        service: "",
        reason: None,
        received_bytes: 11,
        sent_bytes: 222,
        retries: 1,
        started,
        responded: Some(started),
        ended: started + Duration::from_millis(100),
        timeline: None,
    }
}

/// Records a request without phases.
pub(super) fn record_any(traces: &Traces) {
    let timeline = traces.begin("").unwrap();
    record_with(traces, &timeline, http(Edge::Ingress, Instant::now()));
}

pub(super) fn record_with(traces: &Traces, timeline: &Timeline, record: Record<'_>) {
    traces.on_end(&Record {
        timeline: Some(timeline),
        ..record
    });
}

/// The span of a request without phases, as it arrives.
pub(super) fn hop(record: Record<'_>) -> Span {
    let collector = Collector::start();
    let traces = Traces::start(settings(&collector.endpoint)).unwrap();
    record_with(&traces, &traces.begin("").unwrap(), record);
    let spans = spans(&collector.export());
    assert_eq!(spans.len(), 1);
    spans.into_iter().next().unwrap()
}
