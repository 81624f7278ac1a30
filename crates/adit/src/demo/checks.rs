//! What `adit demo --once` tries, one after the other, over real sockets.

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

/// What moves little is done in no time, or hangs.
const SOON: Duration = Duration::from_secs(20);

/// What moves much may take a while on a slow machine, or in a build that was not optimized.
const LONG: Duration = Duration::from_secs(120);

/// Where visitors that name no host go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// The client's own, which leads to the server's side.
    pub(super) entry: SocketAddr,
    pub(super) tcp: SocketAddr,
    pub(super) udp: SocketAddr,
}

/// Tries everything; on a terminal it says on standard error how far it is.
pub(super) async fn run_all(site: &Site, ports: Ports, say: bool) -> Vec<Row> {
    let mut tries = Tries {
        rows: Vec::new(),
        say: say && io::stderr().is_terminal(),
    };
    tries
        .run("small requests", SOON, small::requests(site))
        .await;
    tries.run("HTTP/2 visitor", SOON, small::http2(site)).await;
    tries
        .run("HTTP/2 service", SOON, small::h2c_service(site))
        .await;
    tries.run("download", LONG, bulk::download(site)).await;
    tries.run("upload", LONG, bulk::upload(site)).await;
    tries.run("event stream", SOON, streams::events(site)).await;
    tries.run("trailers", SOON, streams::trailers(site)).await;
    tries
        .run("early answer", SOON, streams::early_answer(site))
        .await;
    tries
        .run("unread upload", SOON, streams::unread_upload(site))
        .await;
    tries.run("WebSocket", LONG, websocket::echo(site)).await;
    let grpc = site.over_h2c();
    tries.run("gRPC", SOON, rpc::chat(&grpc)).await;
    tries.run("TCP", LONG, sessions::tcp(ports.tcp)).await;
    tries.run("UDP", SOON, sessions::udp(ports.udp)).await;
    let entry = Site::new(ports.entry);
    tries
        .run("client entry", SOON, small::requests(&entry))
        .await;
    tries
        .run("stalled reader", SOON, faults::stalled_reader(site))
        .await;
    tries
        .run("aborting service", SOON, faults::abort(site))
        .await;
    tries
        .run("unknown host", SOON, faults::unknown_host(site))
        .await;
    tries
        .run("unknown host, gRPC", SOON, rpc::unknown_host(site))
        .await;
    tries.rows
}

struct Tries {
    rows: Vec<Row>,
    say: bool,
}

impl Tries {
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
        if self.say {
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
        Measured, Tries, faults, small, streams,
    };

    #[tokio::test]
    async fn what_fails_or_hangs_does_not_end_the_rest() {
        let mut tries = Tries {
            rows: Vec::new(),
            say: false,
        };
        let soon = Duration::from_millis(10);
        tries.run("hangs", soon, std::future::pending()).await;
        tries.run("fails", soon, async { Err("why".into()) }).await;
        tries
            .run("works", soon, async { Ok(Measured::words("so")) })
            .await;
        let outcomes: Vec<_> = tries
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

    /// What only a tunnel does is missing where there is none; what the service does is not.
    #[tokio::test]
    async fn without_a_tunnel_the_checks_of_the_tunnel_fail() {
        let service = Service::start().expect("a free port");
        let site = Site::new(service.addr());
        let fails = |outcome: Result<Measured, String>| outcome.expect_err("there is no tunnel");
        assert_eq!(
            fails(faults::unknown_host(&site).await),
            "answered 200 OK ()"
        );
        assert_eq!(
            fails(small::h2c_service(&site).await),
            "the service was not spoken to in HTTP/2"
        );
        small::requests(&site).await.expect("small requests");
        small::http2(&site).await.expect("HTTP/2");
        streams::events(&site).await.expect("events");
        streams::trailers(&site).await.expect("trailers");
        streams::early_answer(&site).await.expect("early answer");
        faults::abort(&site).await.expect("abort");
        service.stop();
    }
}
