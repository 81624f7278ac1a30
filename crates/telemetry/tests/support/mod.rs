//! A record of a finished request.

use std::time::{Duration, Instant};

use adit_trace::{Edge, Record};

/// A successful GET through tunnel `web` of user `ann`: 20 ms to the first byte, 30 ms in total.
pub fn record(edge: Edge, started: Instant) -> Record<'static> {
    Record {
        edge,
        protocol: "http",
        opener: "server",
        request_uuid: 0x0192_f0c1_2345_7890_8abc_def0_1234_5678_u128.to_be_bytes(),
        user: "ann",
        group: "office",
        client: "office-1",
        tunnel: "web",
        revision: 3,
        visitor: "192.0.2.7:4711",
        scheme: "http",
        method: "GET",
        host: "app.example.com",
        port: 80,
        path: "/a",
        version: "HTTP/1.1",
        status: 200,
        grpc_status: None,
        service: "",
        reason: None,
        received_bytes: 5,
        sent_bytes: 700,
        retries: 0,
        started,
        responded: Some(started + Duration::from_millis(20)),
        ended: started + Duration::from_millis(30),
        timeline: None,
    }
}
