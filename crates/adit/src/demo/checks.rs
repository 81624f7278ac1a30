//! The checks of `adit demo --once`, one after the other, over real sockets.

mod bulk;
mod faults;
mod rpc;
mod same;
mod sessions;
mod small;
mod streams;
mod websocket;

use std::{
    future::Future,
    io::{self, IsTerminal},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::time::timeout;

use super::{
    table::{Measured, Row, duration},
    visitor::Site,
};
use crate::errln;

/// The time limit of checks that transfer few bytes: a longer one hangs.
const SOON: Duration = Duration::from_secs(20);

/// The time limit of checks that transfer many bytes, on a slow machine and without optimization.
const LONG: Duration = Duration::from_secs(120);

/// Addresses for visitors that name no host.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// The client's entry, whose upstream is on the server's side.
    pub(super) entry: SocketAddr,
    pub(super) tcp: SocketAddr,
    pub(super) udp: SocketAddr,
}

/// Runs every check; on a terminal it shows the progress on standard error.
pub(super) async fn run_all(site: &Site, ports: Ports, show_progress: bool) -> Vec<Row> {
    let mut checks = Checks {
        rows: Vec::new(),
        show_progress: show_progress && io::stderr().is_terminal(),
    };
    checks
        .run("small requests", SOON, small::requests(site))
        .await;
    checks.run("HTTP/2 visitor", SOON, small::http2(site)).await;
    checks
        .run("HTTP/2 service", SOON, small::h2c_service(site))
        .await;
    checks.run("download", LONG, bulk::download(site)).await;
    checks.run("upload", LONG, bulk::upload(site)).await;
    checks
        .run("event stream", SOON, streams::events(site))
        .await;
    checks.run("trailers", SOON, streams::trailers(site)).await;
    checks
        .run("early response", SOON, streams::early_response(site))
        .await;
    checks
        .run("unread upload", SOON, streams::unread_upload(site))
        .await;
    checks.run("WebSocket", LONG, websocket::echo(site)).await;
    let grpc = site.over_h2c();
    checks.run("gRPC", SOON, rpc::chat(&grpc)).await;
    checks.run("TCP", LONG, sessions::tcp(ports.tcp)).await;
    checks.run("UDP", SOON, sessions::udp(ports.udp)).await;
    let entry = Site::new(ports.entry);
    checks
        .run("client entry", SOON, small::requests(&entry))
        .await;
    checks
        .run("stalled reader", SOON, faults::stalled_reader(site))
        .await;
    checks
        .run("aborting service", SOON, faults::abort(site))
        .await;
    checks
        .run("unknown host", SOON, faults::unknown_host(site))
        .await;
    checks
        .run("unknown host, gRPC", SOON, rpc::unknown_host(site))
        .await;
    checks.rows
}

struct Checks {
    rows: Vec<Row>,
    show_progress: bool,
}

impl Checks {
    async fn run(
        &mut self,
        name: &'static str,
        within: Duration,
        check: impl Future<Output = Result<Measured, String>>,
    ) {
        let started = Instant::now();
        let outcome = timeout(within, check)
            .await
            .unwrap_or_else(|_| Err(format!("not done within {}", duration(within))));
        if self.show_progress {
            let result = if outcome.is_ok() { "ok" } else { "FAILED" };
            errln!("{name} ... {result}");
        }
        self.rows.push(Row {
            name,
            took: started.elapsed(),
            outcome,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use std::time::Duration;

    use super::{
        super::{service::Service, visitor::Site},
        Checks, Measured, faults, small, streams,
    };

    #[tokio::test]
    async fn a_failed_or_hanging_check_does_not_end_the_rest() {
        let mut checks = Checks {
            rows: Vec::new(),
            show_progress: false,
        };
        let soon = Duration::from_millis(10);
        checks.run("hangs", soon, std::future::pending()).await;
        checks.run("fails", soon, async { Err("why".into()) }).await;
        checks
            .run("works", soon, async { Ok(Measured::words("so")) })
            .await;
        let outcomes: Vec<_> = checks
            .rows
            .into_iter()
            .map(|row| (row.name, row.outcome))
            .collect();
        assert_eq!(
            outcomes,
            [
                ("hangs", Err("not done within 10 ms".into())),
                ("fails", Err("why".into())),
                ("works", Ok(Measured::words("so"))),
            ]
        );
    }

    /// When the visitor connects to the service directly, the checks of the tunnel's own work fail and the others pass.
    #[tokio::test]
    async fn without_a_tunnel_the_checks_of_the_tunnel_fail() {
        let service = Service::start().expect("a free port");
        let site = Site::new(service.addr());
        let fails = |outcome: Result<Measured, String>| outcome.expect_err("a failed check");
        assert_eq!(fails(faults::unknown_host(&site).await), "status 200 OK ()");
        assert_eq!(
            fails(small::h2c_service(&site).await),
            "the service was not reached over HTTP/2"
        );
        small::requests(&site).await.expect("small requests");
        small::http2(&site).await.expect("HTTP/2");
        streams::events(&site).await.expect("events");
        streams::trailers(&site).await.expect("trailers");
        streams::early_response(&site)
            .await
            .expect("early response");
        faults::abort(&site).await.expect("abort");
        service.stop();
    }
}
