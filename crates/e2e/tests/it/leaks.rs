//! Two hundred rounds of connecting, killing and breaking off leave no state. F13, F15, F16.

use std::time::{Duration, Instant};

use adit_e2e::{
    Client, ClientOptions, HOST, Raw, Scripted, Server, Service, Visitor, count, empty, eventually,
    feed, pattern, procfs,
};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(30);
/// A pause that is longer than the second in which a limited log counts lines in a task.
const REST: Duration = Duration::from_millis(1_200);
const WARM_UP: usize = 20;
const ROUNDS: usize = 200;
const KILL_EVERY: usize = 10;
const MIB: u64 = 1 << 20;

/// The resources of a process, which are the same whenever no request runs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    server_descriptors: usize,
    server_threads: u64,
    tasks: u64,
    sessions: u64,
    channels: u64,
    pending: u64,
    permits: u64,
    budget: u64,
    requests: u64,
    connections: u64,
    tunnels: usize,
    client_descriptors: usize,
    client_threads: u64,
    client_tasks: u64,
    client_pending: u64,
    service_connections: u64,
}

struct Rounds {
    killed: Client,
    steady: Client,
    server: Server,
    site: Service,
}

impl Rounds {
    async fn start() -> (Self, Scripted) {
        // The service responds with half of the announced length.
        let broken = Scripted::start(|mut stream| async move {
            let mut head = [0; 2048];
            let _ = stream.read(&mut head).await;
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
                .await;
        })
        .await;
        let site = Service::site("site").await;
        let server = Server::plain().await;
        let start = async |id: &str, host: &str| {
            let config = format!(
                "client:\n  timeouts: {{ idle: 200ms }}\n  tunnels:\n    - {{ name: web, type: http, local_port: {}, domain: {host} }}\n    - {{ name: broken, type: http, local_port: {}, domain: broken.{host} }}\n",
                site.port(),
                broken.addr.port()
            );
            Client::start(ClientOptions::file(&server, id, &config)).await
        };
        let killed = start("killed", "killed.localhost").await;
        let steady = start("steady", HOST).await;
        let rounds = Self {
            killed,
            steady,
            server,
            site,
        };
        (rounds, broken)
    }

    async fn round(&mut self, number: usize) {
        let http = self.server.http;
        for host in ["killed.localhost", HOST] {
            let mut visitor = Visitor::http1(http, host).await;
            assert_eq!(visitor.get("/bytes/100000").await.body.len(), 100_000);
            assert_eq!(
                visitor.post("/sum", pattern(100_000, true)).await.text(),
                "100000 bytes, as sent"
            );

            // The visitor leaves in the middle of a download, over both versions.
            let mut raw = Raw::connect(http).await;
            raw.send(format!(
                "GET /chunked/100000000 HTTP/1.1\r\nHost: {host}\r\n\r\n"
            ))
            .await;
            raw.read_text("200 OK").await;
            if number.is_multiple_of(2) {
                raw.reset();
            } else {
                drop(raw);
            }
            let mut visitor = Visitor::http2(http, host).await;
            let request = visitor.request(&Method::GET, "/chunked/100000000", empty());
            drop(visitor.send(request).await.unwrap());

            // The visitor leaves in the middle of an upload that is not read.
            let (feeder, body) = feed();
            let request = visitor.request(&Method::POST, "/unread", body);
            let begun = self.site.stats.begun();
            let upload = tokio::spawn(async move { visitor.send(request).await.map(drop) });
            feeder.send(adit_e2e::piece(0, 20_000)).await;
            eventually("an upload that has begun", SOON, async || {
                (self.site.stats.begun() > begun).then_some(())
            })
            .await;
            upload.abort();

            // The service breaks off.
            let mut visitor = Visitor::http1(http, &format!("broken.{host}")).await;
            let request = visitor.request(&Method::GET, "/", empty());
            match visitor.whole(request).await {
                Err(_) => {}
                // The failure was detected before the head had been sent.
                Ok(response) => assert_eq!(response.reason(), "service_aborted"),
            }
        }
        if number.is_multiple_of(KILL_EVERY) {
            // The client is killed while a request runs.
            let mut raw = Raw::connect(http).await;
            raw.send("GET /begun HTTP/1.1\r\nHost: killed.localhost\r\n\r\n")
                .await;
            raw.read_text("first,").await;
            self.killed.kill();
            self.killed.restart().await;
        }
    }

    async fn held(&self) -> Held {
        let (status, client) = (self.server.status().await, self.steady.status().await);
        Held {
            tasks: count(&status, "/process/tasks"),
            sessions: count(&status, "/process/sessions"),
            channels: count(&status, "/process/channels"),
            pending: count(&status, "/process/pending"),
            permits: count(&status, "/process/permits_in_use"),
            budget: count(&status, "/process/budget_used_bytes"),
            requests: count(&status, "/visitors/requests_open"),
            connections: count(&status, "/visitors/connections_open"),
            tunnels: status["tunnels"].as_array().map_or(0, Vec::len),
            server_descriptors: procfs::descriptors(self.server.pid()),
            server_threads: procfs::threads(self.server.pid()),
            client_tasks: count(&client, "/tasks"),
            client_pending: count(&client, "/pending"),
            service_connections: count(&client, "/service_connections"),
            client_descriptors: procfs::descriptors(self.steady.pid()),
            client_threads: procfs::threads(self.steady.pid()),
        }
    }

    /// The resources when everything that was broken off has ended.
    async fn at_rest(&self) -> Held {
        let mut last = None;
        let mut same = 0;
        let begun = Instant::now();
        eventually("rest", SOON, async || {
            let held = self.held().await;
            let rest = [held.pending, held.permits, held.requests, held.connections]
                .iter()
                .chain([&held.client_pending, &held.service_connections])
                .all(|count| *count == 0);
            same = if rest && begun.elapsed() > REST && last.as_ref() == Some(&held) {
                same + 1
            } else {
                0
            };
            last = Some(held.clone());
            (same == 20).then_some(held)
        })
        .await
    }
}

#[tokio::test]
async fn two_hundred_rounds_leave_nothing_behind() {
    let (mut rounds, _broken) = Rounds::start().await;
    let mut first = None;
    for number in 1..=ROUNDS {
        rounds.round(number).await;
        if number == WARM_UP {
            let held = rounds.at_rest().await;
            let resident = [rounds.server.pid(), rounds.steady.pid()].map(procfs::resident_bytes);
            first = Some((held, resident));
        }
    }
    let (held, resident) = first.unwrap();
    let last = rounds.at_rest().await;
    assert_eq!(
        last, held,
        "after round {ROUNDS}, and after round {WARM_UP}"
    );
    assert_eq!(last.sessions, 2);
    assert_eq!((last.permits, last.budget), (0, 0));
    let now = [rounds.server.pid(), rounds.steady.pid()].map(procfs::resident_bytes);
    for (name, now, then) in [
        ("server", now[0], resident[0]),
        ("client", now[1], resident[1]),
    ] {
        let more = now.saturating_sub(then);
        assert!(more <= 5 * MIB, "the {name} took {} KiB more", more / 1024);
    }
}
