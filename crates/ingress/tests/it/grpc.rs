//! Calls of gRPC (section 8 of the protocol): both ends of a lane in memory. The service is tonic or a script; the
//! visitor is tonic, or sends HTTP/2 frame by frame.
#![allow(unreachable_pub, reason = "each file uses its part")]

mod carried;
mod endings;
mod failures;
mod library;
mod service;

use std::time::Duration;

use adit_egress::{Config, Protocol, ServiceConfig};
use adit_ingress::HttpConfig;
use adit_testlink::{EgressLink, HttpEntry, Route};

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// An entry with a service on this machine.
fn to_service(port: u16, config: HttpConfig) -> HttpEntry {
    let egress = Config {
        // The egress has a timeout that does not apply to calls.
        response_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let service = ServiceConfig::new("127.0.0.1", port, Protocol::Http2);
    Route::to(&EgressLink::to(service, egress).link).http(config)
}
