//! Prints the page for Prometheus of a `server` or a `client`, with a sample of every family and requests of every
//! kind, for `ci/metrics`.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use adit_telemetry::{Metrics, MetricsSettings};
use adit_trace::{Edge, Record};

fn main() {
    let families = match std::env::args().nth(1).as_deref() {
        Some("client") => adit_client::metrics::FAMILIES,
        _ => adit_server::metrics::FAMILIES,
    };
    let samples: Vec<_> = families
        .iter()
        .map(|family| family.sample(&vec!["a \"b\"\n\\"; family.labels.len()], 1.5))
        .collect();
    let metrics = Metrics::new(MetricsSettings::default(), env!("CARGO_PKG_VERSION"));
    for edge in [Edge::Ingress, Edge::Egress] {
        for opener in ["server", "client"] {
            for protocol in ["http", "grpc", "websocket", "tcp", "udp"] {
                for reason in [None, Some("dial_failed"), Some("cancelled")] {
                    metrics.on_end(&request(edge, opener, protocol, reason));
                }
            }
        }
    }
    print!("{}", metrics.render(&samples));
}

fn request(
    edge: Edge,
    opener: &'static str,
    protocol: &'static str,
    reason: Option<&'static str>,
) -> Record<'static> {
    let started = Instant::now();
    Record {
        edge,
        protocol,
        opener,
        request_uuid: [1; 16],
        user: "ann",
        group: "office",
        client: "office-1",
        tunnel: "a \"b\"\n\\",
        revision: 1,
        visitor: "192.0.2.7:4711",
        scheme: "",
        method: "GET",
        host: "app.example.com",
        port: 80,
        path: "/",
        version: "",
        status: 200,
        grpc_status: (protocol == "grpc").then_some(14),
        service: "",
        reason,
        received_bytes: 1,
        sent_bytes: 2,
        retries: 1,
        started,
        responded: Some(started + Duration::from_millis(3)),
        ended: started + Duration::from_millis(4),
        timeline: None,
    }
}
