//! The server's records of requests from clients' entries: those that it serves, those that wait, and those
//! that it refuses. F08, F37, F38.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Collected, Collector, FullResponse, Process, Raw, Server, Service,
    Trace, Visitor, count, empty, eventually, get,
};
use http::{HeaderValue, Method};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// Traces that visitors began, and the spans that send the requests.
const TRACES: [&str; 2] = [
    "0af7651916cd43dd8448eb211c80319c",
    "1af7651916cd43dd8448eb211c80319c",
];
const SPAN: &str = "b7ad6b7169203331";

/// The code of a span that failed.
const ERROR: i32 = 2;

/// A server with the upstream `erp`, and a client with entries for it, both with logs, metrics and traces.
struct Office {
    collector: Collector,
    server: Server,
    client: Client,
    service: Service,
    /// The addresses of the entries, in the order of the file.
    entries: Vec<SocketAddr>,
}

const ENTRIES: &str = "[{ name: erp, type: http, listen: \"127.0.0.1:0\", upstream: erp }, \
     { name: nowhere, type: http, listen: \"127.0.0.1:0\", upstream: nowhere }, \
     { name: bytes, type: tcp, listen: \"127.0.0.1:0\", upstream: erp }]";

impl Office {
    /// `limits` are further settings in the server's file.
    async fn start(limits: &str) -> Self {
        let (collector, service) = (Collector::start().await, Service::site("erp").await);
        let telling = format!(
            "  telemetry: {{ access_log: stderr, tracing: {{ endpoint: \"http://{}\", sample_ratio: 1.0, \
             interval: 20ms }} }}\n",
            collector.addr
        );
        let server = format!(
            "server:\n  upstreams: [{{ name: erp, servers: [{{ address: \"{}\" }}] }}]\n{telling}{limits}",
            service.addr
        );
        let server = Server::with(&server).await;
        let client = format!("client:\n  group_id: offices\n  entries: {ENTRIES}\n{telling}");
        let client = Client::start(ClientOptions::file(&server, "office", &client)).await;
        let status = client.status().await;
        let entries = status["entries"].as_array().unwrap();
        let addr = |entry: &Value| entry["listen"].as_str().unwrap().parse().unwrap();
        let entries = entries.iter().map(addr).collect();
        Self {
            collector,
            server,
            client,
            service,
            entries,
        }
    }

    /// Requests a path, as part of a trace.
    async fn traced(&self, trace: &str, path: &str) -> FullResponse {
        let mut visitor = Visitor::http1(self.entries[0], "erp.internal").await;
        let mut request = visitor.request(&Method::GET, path, empty());
        let context = HeaderValue::try_from(format!("00-{trace}-{SPAN}-01")).unwrap();
        request.headers_mut().insert("traceparent", context);
        visitor.whole(request).await.unwrap()
    }

    /// Waits until this many requests of the client have reached the server.
    async fn came(&self, requests: u64) {
        eventually("requests at the server", SOON, async || {
            let status = self.server.status().await;
            (count(&status, "/clients/0/accepted") == requests).then_some(())
        })
        .await;
    }

    /// The failures with this reason that the server counts.
    async fn failures(&self, reason: &str) -> Vec<String> {
        let admin = self.server.admin;
        let metrics = get(admin, &admin.to_string(), "/metrics").await.text();
        let reason = format!("reason=\"{reason}\"");
        let of_it =
            |line: &&str| line.starts_with("adit_egress_failures_total{") && line.contains(&reason);
        metrics
            .lines()
            .filter(of_it)
            .map(ToOwned::to_owned)
            .collect()
    }

    /// The trace, once the server has exported its hop.
    async fn trace(&self, id: &str) -> Trace {
        let has_hop = |trace: &Trace| {
            let from = |service: &str| trace.0.iter().any(|one| one.service == service);
            from("adit-server") && from("adit-client")
        };
        self.collector.trace(id, has_hop).await
    }
}

/// The line of the access log for which `is_it` holds.
async fn line(process: &Process, is_it: impl Fn(&Value) -> bool) -> Value {
    eventually("a line about the request", SOON, async || {
        let log = process.stderr();
        let mut lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.find(|line: &Value| line["edge"].is_string() && is_it(line))
    })
    .await
}

async fn line_of(process: &Process, request_id: &str) -> Value {
    line(process, |line| line["request_id"] == request_id).await
}

async fn line_at(process: &Process, path: &str) -> Value {
    line(process, |line| line["path"] == path).await
}

/// The owner of a request, as the server recorded it.
fn assert_owner(line: &Value) {
    assert_eq!(line["edge"], "egress", "{line}");
    assert_eq!(line["opener"], "client", "{line}");
    assert_eq!(line["client"], "office", "{line}");
    assert_eq!(line["user"], "default", "{line}");
}

/// The start and the end of a span.
fn times(one: &Collected) -> (u64, u64) {
    (one.span.start_time_unix_nano, one.span.end_time_unix_nano)
}

#[tokio::test]
async fn requests_of_a_client_entry_are_recorded_with_their_owner() {
    let mut office = Office::start("").await;
    let response = office.traced(TRACES[0], "/who").await;
    assert_eq!(response.text(), "erp");
    let record = line_at(office.server.process(), "/who").await;
    assert_owner(&record);
    let asked = line_at(office.client.process(), "/who").await;
    assert_eq!(record["request_id"], asked["request_id"]);
    assert_eq!(record["tunnel"], "erp");
    assert_eq!(record["status"], 200);
    assert_eq!(record["trace_id"], TRACES[0]);
    assert_eq!(record["service"], office.service.addr.to_string());
    let hop = office.trace(TRACES[0]).await;
    let hop = hop.named("adit-server", "GET")[0];
    assert_eq!(hop.attribute("adit.client"), "office");
    assert_eq!(hop.attribute("adit.user"), "default");
    assert_eq!(record["span_id"].as_str().unwrap().len(), 16);
}

/// Requests that the server opens at a client: the client records its own name.
#[tokio::test]
async fn requests_that_a_client_serves_are_recorded_with_its_name() {
    let service = Service::site("web").await;
    let server = Server::plain().await;
    let file = format!(
        "client:\n  telemetry: {{ access_log: stderr }}\n  tunnels: [{{ name: web, type: http, local_port: {} }}]\n",
        service.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "office", &file)).await;
    assert_eq!(
        get(server.http, "web.localhost", "/who").await.text(),
        "web"
    );
    let record = line_at(client.process(), "/who").await;
    assert_eq!(record["edge"], "egress");
    assert_eq!(record["client"], "office");
}

#[tokio::test]
async fn a_wait_for_a_permit_is_a_phase() {
    let limits = "  limits: { max_requests: 1 }\n  timeouts: { permit_wait: 20s }\n";
    let mut office = Office::start(limits).await;
    let second = async {
        eventually("a held request", SOON, async || {
            (office.service.stats.begun() == 1).then_some(())
        })
        .await;
        let waits = office.traced(TRACES[1], "/who");
        let release = async {
            office.came(2).await;
            office.service.release();
        };
        tokio::join!(waits, release).0
    };
    let (first, second) = tokio::join!(office.traced(TRACES[0], "/held"), second);
    assert_eq!((first.text(), second.text()), ("erp".into(), "erp".into()));
    let (held, waited) = (office.trace(TRACES[0]).await, office.trace(TRACES[1]).await);
    let hop = waited.named("adit-server", "GET")[0];
    // The second queue phase is the wait for a connection of the pool.
    let queue = waited.named("adit-server", "queue");
    let queue = queue.iter().min_by_key(|one| times(one).0).unwrap();
    assert_eq!(queue.span.parent_span_id, hop.span.span_id);
    assert_eq!(times(queue).0, times(hop).0, "it counts from when it came");
    let first_byte = waited.named("adit-server", "first byte")[0];
    assert!(times(queue).1 <= times(first_byte).0);
    // The permit was returned when the previous request was over.
    let before = times(held.named("adit-server", "first byte")[0]).1;
    assert!(times(queue).0 < before && before <= times(queue).1);
    assert_owner(&line_at(office.server.process(), "/who").await);
}

#[tokio::test]
async fn a_request_without_a_permit_is_recorded() {
    let limits = "  limits: { max_requests: 1 }\n  timeouts: { permit_wait: 50ms }\n";
    let mut office = Office::start(limits).await;
    let refused = async {
        eventually("a held request", SOON, async || {
            (office.service.stats.begun() == 1).then_some(())
        })
        .await;
        let refused = office.traced(TRACES[1], "/refused?secret=1").await;
        office.service.release();
        refused
    };
    let (_, refused) = tokio::join!(office.traced(TRACES[0], "/held"), refused);
    assert_eq!((refused.status.as_u16(), refused.reason()), (503, "limit"));
    let id = refused.header("adit-request-id").to_owned();
    let record = line_of(office.server.process(), &id).await;
    assert_owner(&record);
    assert_eq!(record["reason"], "limit");
    assert_eq!(record["tunnel"], "erp");
    assert_eq!(record["method"], "GET");
    assert_eq!(record["path"], "/refused");
    assert!(record["duration_ms"].as_f64().unwrap() >= 50.0, "{record}");
    let failures = office.failures("limit").await;
    let [counted] = failures.as_slice() else {
        panic!("{failures:?}");
    };
    assert!(counted.contains("tunnel=\"erp\""), "{counted}");
    assert!(counted.ends_with(" 1"), "{counted}");
    let trace = office.trace(TRACES[1]).await;
    let hop = trace.named("adit-server", "GET")[0];
    assert_eq!(hop.attribute("adit.reason"), "limit");
    assert_eq!(hop.span.status.clone().unwrap().code, ERROR);
    assert_eq!(trace.named("adit-server", "queue").len(), 1);
    let transit = trace.named("adit-client", "transit")[0];
    assert_eq!(hop.span.parent_span_id, transit.span.span_id);
}

/// A visitor that leaves while it waits for a permit is recorded too.
#[tokio::test]
async fn a_visitor_that_leaves_the_queue_is_recorded() {
    let limits = "  limits: { max_requests: 1 }\n  timeouts: { permit_wait: 20s }\n";
    let mut office = Office::start(limits).await;
    let leaving = async {
        eventually("a held request", SOON, async || {
            (office.service.stats.begun() == 1).then_some(())
        })
        .await;
        let mut visitor = Raw::connect(office.entries[0]).await;
        let head = "GET /left HTTP/1.1\r\nHost: erp.internal\r\n\r\n";
        visitor.send(head).await;
        office.came(2).await;
        visitor.reset();
        eventually("a visitor who has left", SOON, async || {
            (office.failures("cancelled").await.len() == 1).then_some(())
        })
        .await;
        office.service.release();
    };
    let (held, ()) = tokio::join!(office.traced(TRACES[0], "/held"), leaving);
    assert_eq!(held.text(), "erp");
    let record = line_at(office.server.process(), "/left").await;
    assert_owner(&record);
    assert_eq!(record["reason"], "cancelled");
    assert_eq!(record["tunnel"], "erp");
}

/// Names that clients invent are not counted separately.
#[tokio::test]
async fn a_missing_upstream_is_recorded() {
    let mut office = Office::start("").await;
    let response = get(office.entries[1], "erp.internal", "/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (404, "no_tunnel")
    );
    let id = response.header("adit-request-id").to_owned();
    let record = line_of(office.server.process(), &id).await;
    assert_owner(&record);
    assert_eq!(record["reason"], "no_tunnel");
    assert_eq!(record["tunnel"], Value::Null, "{record}");
    // The client's record has the name that it requested.
    let asked = line_of(office.client.process(), &id).await;
    assert_eq!(asked["tunnel"], "nowhere");
    let failures = office.failures("no_tunnel").await;
    let [counted] = failures.as_slice() else {
        panic!("{failures:?}");
    };
    assert!(counted.contains("tunnel=\"\""), "{counted}");
}

#[tokio::test]
async fn an_upstream_of_another_kind_is_recorded() {
    let mut office = Office::start("").await;
    let mut visitor = Raw::connect(office.entries[2]).await;
    visitor.read_to_end().await;
    let record = line(office.server.process(), |line| line["protocol"] == "tcp").await;
    assert_owner(&record);
    assert_eq!(record["reason"], "no_tunnel");
    assert_eq!(record["tunnel"], "erp");
}
