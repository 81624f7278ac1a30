//! Client entries: listeners of the client for upstreams of the server. F08, section 12 of the protocol.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, End, FullResponse, HOST, Raw, Scripted, Server, Service, Visitor,
    checked, count, empty, eventually, full, get, pattern,
    python::{PythonService, visit},
    query, run, within,
};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

const SOON: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// A server with upstreams and a client with entries.
struct Office {
    client: Client,
    server: Server,
    /// The addresses of the entries, in the order of the file.
    entries: Vec<SocketAddr>,
}

/// Settings of the files in addition to upstreams and entries.
#[derive(Default)]
struct Also<'a> {
    server: &'a str,
    client: &'a str,
    log: bool,
}

/// `upstreams` and `entries` are lists, written as YAML on one line.
async fn office(upstreams: &str, entries: &str, also: Also<'_>) -> Office {
    let telling = if also.log {
        "  telemetry: { access_log: stderr }\n"
    } else {
        ""
    };
    let server = format!(
        "server:\n  upstreams: {upstreams}\n{telling}{}",
        also.server
    );
    let server = Server::with(&server).await;
    let config = format!("client:\n  entries: {entries}\n{telling}{}", also.client);
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    let entries = listening(&client).await;
    Office {
        client,
        server,
        entries,
    }
}

async fn listening(client: &Client) -> Vec<SocketAddr> {
    let status = client.status().await;
    let entries = status["entries"].as_array().unwrap();
    let addr = |entry: &Value| entry["listen"].as_str().unwrap().parse().unwrap();
    entries.iter().map(addr).collect()
}

/// A server with an upstream of HTTP servers, and a client with an entry for it.
async fn erp(services: &[&Service], also: Also<'_>) -> Office {
    office(
        &format!("[{}]", upstream("erp", "http1", services)),
        ERP,
        also,
    )
    .await
}

const ERP: &str = r#"[{ name: erp, type: http, listen: "127.0.0.1:0", upstream: erp }]"#;

fn upstream(name: &str, protocol: &str, services: &[&Service]) -> String {
    let addrs: Vec<_> = services.iter().map(|service| service.addr).collect();
    upstream_at(name, protocol, &addrs)
}

fn upstream_at(name: &str, protocol: &str, addrs: &[SocketAddr]) -> String {
    let servers: Vec<_> = addrs
        .iter()
        .map(|addr| format!("{{ address: \"{addr}\" }}"))
        .collect();
    format!(
        "{{ name: {name}, policy: round_robin, protocol: {protocol}, servers: [{}] }}",
        servers.join(", ")
    )
}

/// An address that refuses connections.
async fn closed_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Echoes the bytes of each connection.
async fn echo() -> Scripted {
    Scripted::start(|mut stream: TcpStream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

fn seen<'v>(echoed: &'v Value, name: &str) -> Vec<&'v str> {
    echoed["headers"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line[0] == name)
        .map(|line| line[1].as_str().unwrap())
        .collect()
}

/// Waits until nothing is open on the server.
async fn at_rest(server: &Server) {
    eventually("a server at rest", SOON, async || {
        let status = server.status().await;
        let open: u64 = status["upstreams"]
            .as_array()?
            .iter()
            .flat_map(|upstream| upstream["servers"].as_array().unwrap())
            .map(|server| count(server, "/requests_open"))
            .sum();
        let permits = count(&status, "/process/permits_in_use");
        (open == 0 && permits == 0).then_some(())
    })
    .await;
}

impl Office {
    async fn http1(&self) -> Visitor {
        Visitor::http1(self.entries[0], "erp.internal").await
    }

    async fn get(&self, path: &str) -> FullResponse {
        get(self.entries[0], "erp.internal", path).await
    }
}

/// F08: an entry of the client does for its visitors what an entry of the server does.
#[tokio::test]
async fn an_http_entry_leads_to_its_upstream() {
    let service = Service::site("erp").await;
    let office = erp(&[&service], Also::default()).await;
    for mut visitor in [
        office.http1().await,
        Visitor::http2(office.entries[0], "erp.internal").await,
    ] {
        assert_eq!(visitor.get("/who").await.text(), "erp");
        assert_eq!(visitor.get("/status/404").await.status.as_u16(), 404);
        let response = visitor.post("/sum", pattern(5 * MIB, true)).await;
        assert_eq!(response.text(), format!("{} bytes, as sent", 5 * MIB));
        let response = visitor.post("/sum", pattern(300_000, false)).await;
        assert_eq!(response.text(), "300000 bytes, as sent");
        for path in ["/bytes/3000000", "/chunked/3000000"] {
            let request = visitor.request(&Method::GET, path, empty());
            let response = visitor.send(request).await.unwrap();
            assert_eq!(checked(response.into_body()).await, Ok(3_000_000));
        }
        // P-3.4: the headers about the visitor, and the host as the visitor sent it.
        let echoed = visitor.get("/request?a=b").await;
        let echoed: Value = serde_json::from_slice(&echoed.body).unwrap();
        assert_eq!(echoed["target"], "/request?a=b");
        assert_eq!(seen(&echoed, "host"), ["erp.internal"]);
        assert_eq!(seen(&echoed, "x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen(&echoed, "x-forwarded-host"), ["erp.internal"]);
        assert_eq!(seen(&echoed, "x-forwarded-proto"), ["http"]);
        assert_eq!(seen(&echoed, "x-request-id").len(), 1);
    }
    at_rest(&office.server).await;
    // P-12.3: the status of both sides contains which side opened requests.
    let (server, client) = (office.server.status().await, office.client.status().await);
    let at_server = &server["clients"][0];
    assert_eq!(
        (&at_server["opened"], &at_server["accepted"]),
        (&0.into(), &14.into())
    );
    assert_eq!(
        (&client["opened"], &client["accepted"]),
        (&14.into(), &0.into())
    );
    assert_eq!(count(&client, "/entries/0/requests"), 14);
    assert_eq!(client["entries"][0]["error"], Value::Null);
    assert_eq!(count(&server, "/upstreams/0/requests"), 14);
    assert_eq!(count(&server, "/visitors/requests"), 0);
}

#[tokio::test]
async fn trailers_cross_an_entry() {
    let service = Service::site("erp").await;
    let office = erp(&[&service], Also::default()).await;
    let mut visitor = office.http1().await;
    let (feeder, body) = adit_e2e::feed();
    let mut request = visitor.request(&Method::POST, "/echo", body);
    let headers = request.headers_mut();
    headers.insert("trailer", HeaderValue::from_static("x-sum"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    let sent = tokio::spawn(async move {
        feeder.send("some bytes").await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("42"));
        feeder.trailers(trailers).await;
    });
    let response = visitor.whole(request).await.unwrap();
    sent.await.unwrap();
    assert_eq!(response.text(), "some bytes");
    assert_eq!(response.trailers.unwrap()["x-sum"], "42");
}

/// P-10.1, P-10.2: bytes cross in both directions, and each direction ends independently.
#[tokio::test]
async fn a_tcp_entry_leads_to_its_upstream() {
    let echo = echo().await;
    let office = office(
        &format!("[{}]", upstream_at("echo", "tcp", &[echo.addr])),
        r#"[{ name: echo, type: tcp, listen: "127.0.0.1:0", upstream: echo }]"#,
        Also::default(),
    )
    .await;
    let mut visitors = JoinSet::new();
    for number in 0..8_u8 {
        let addr = office.entries[0];
        visitors.spawn(async move {
            let sent: Vec<_> = (0..2 * MIB).map(|at| (at % 251) as u8 ^ number).collect();
            let (mut read, mut write) = TcpStream::connect(addr).await.unwrap().into_split();
            let writing = {
                let sent = sent.clone();
                tokio::spawn(async move {
                    write.write_all(&sent).await.unwrap();
                    write.shutdown().await.unwrap();
                    write
                })
            };
            let mut back = Vec::new();
            read.read_to_end(&mut back).await.unwrap();
            writing.await.unwrap();
            assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
        });
    }
    visitors.join_all().await;
    at_rest(&office.server).await;
    let status = office.client.status().await;
    assert_eq!(count(&status, "/entries/0/requests"), 8);
    assert_eq!(count(&status, "/opened"), 8);
}

/// F23: requests of entries are shared among the servers of an upstream by its policy.
#[tokio::test]
async fn three_thousand_requests_are_shared_evenly() {
    const REQUESTS: usize = 3_000;
    const CONNECTIONS: usize = 6;
    let services = [
        Service::site("a").await,
        Service::site("b").await,
        Service::site("c").await,
    ];
    let office = erp(&services.each_ref(), Also::default()).await;
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut visitor = office.http1().await;
        tasks.spawn(async move {
            let mut names = Vec::new();
            for _ in 0..REQUESTS / CONNECTIONS {
                names.push(visitor.get("/who").await.text());
            }
            names
        });
    }
    let mut spread = BTreeMap::<_, usize>::new();
    for name in tasks.join_all().await.into_iter().flatten() {
        *spread.entry(name).or_default() += 1;
    }
    assert_eq!(spread.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    for count in spread.values() {
        assert!(count.abs_diff(REQUESTS / 3) <= 1, "{spread:?}");
    }
    let status = office.server.status().await;
    assert_eq!(count(&status, "/cores/balance_choices"), REQUESTS as u64);
}

/// P-12.1: an entry for an unknown upstream reaches no server, whatever host its visitors name.
#[tokio::test]
async fn p_12_1_nothing_else_of_the_server_can_be_reached() {
    let (service, secret) = (Service::site("erp").await, Service::site("secret").await);
    let upstreams = format!("[{}]", upstream("erp", "http1", &[&service]));
    let entries = format!(
        r#"[{{ name: good, listen: 0, upstream: erp }},
            {{ name: unknown, listen: 0, upstream: nope }},
            {{ name: address, listen: 0, upstream: "{}" }},
            {{ name: bytes, type: tcp, listen: 0, upstream: nope }},
            {{ name: other-kind, type: tcp, listen: 0, upstream: erp }}]"#,
        // The forms that a name may have: digits and dots.
        secret.addr.ip(),
    );
    let office = office(&upstreams, &entries, Also::default()).await;
    let host = secret.addr.to_string();
    let response = get(office.entries[0], &host, "/who").await;
    assert_eq!(response.text(), "erp", "the host does not choose");
    for entry in &office.entries[1..3] {
        let response = get(*entry, &host, "/who").await;
        assert_eq!(
            (response.status.as_u16(), response.reason()),
            (404, "no_tunnel")
        );
        assert!(!response.header("adit-request-id").is_empty());
    }
    for entry in &office.entries[3..] {
        let mut raw = Raw::connect(*entry).await;
        assert_eq!(raw.read_to_end().await.end, End::Reset, "P-10.4");
    }
    // RFC 9112, 3.2.2: an absolute target is another way to name a host.
    let mut raw = Raw::connect(office.entries[0]).await;
    raw.send(format!(
        "GET http://{host}/who HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    ))
    .await;
    assert!(raw.read_to_end().await.text().ends_with("erp"));
    assert_eq!(secret.stats.connections(), 0);
    assert_eq!(secret.stats.begun(), 0);
    // The client detects the unknown upstreams, and reports them.
    let status = eventually("what leads nowhere", SOON, async || {
        let status = office.client.status().await;
        status["entries"][1]["error"].is_string().then_some(status)
    })
    .await;
    let error = status["entries"][1]["error"].as_str().unwrap();
    assert_eq!(
        error,
        "the server defines no upstream `nope`, or the scopes of this client do not allow it"
    );
    assert_eq!(status["entries"][0]["error"], Value::Null);
    assert_eq!(count(&status, "/entries/1/failures/no_tunnel"), 1);
}

/// F11, F08: requests of both directions share one data stream, and a stalled one in each delays no other.
#[tokio::test]
async fn entries_and_tunnels_share_one_data_stream() {
    const VISITORS: u64 = 6;
    const LENGTH: u64 = 2 * MIB;
    let (inner, outer) = (Service::site("inner").await, Service::site("outer").await);
    let echo = echo().await;
    let upstreams = format!(
        "[{}, {}]",
        upstream("erp", "http1", &[&outer]),
        upstream_at("echo", "tcp", &[echo.addr])
    );
    let entries = "[{ name: erp, listen: 0, upstream: erp }, \
                   { name: echo, type: tcp, listen: 0, upstream: echo }]";
    let tunnels = format!(
        "  tunnels: [{{ name: web, type: http, local_port: {} }}]\n",
        inner.port()
    );
    let also = Also {
        client: &tunnels,
        ..Also::default()
    };
    let office = office(&upstreams, entries, also).await;
    let ways = [
        (office.server.http, HOST, "inner"),
        (office.entries[0], "erp.internal", "outer"),
    ];
    // One visitor in each direction does not read its response.
    let mut stalled = Vec::new();
    for (addr, host, _) in ways {
        let mut raw = Raw::narrow(addr, 4096).await;
        raw.send(format!(
            "GET /bytes/{} HTTP/1.1\r\nhost: {host}\r\n\r\n",
            64 * MIB
        ))
        .await;
        stalled.push(raw);
    }
    eventually("stalled downloads", SOON, async || {
        (inner.stats.begun() + outer.stats.begun() == 2).then_some(())
    })
    .await;
    let mut work = JoinSet::new();
    for _ in 0..VISITORS {
        for (addr, host, name) in ways {
            work.spawn(async move {
                let mut visitor = Visitor::http1(addr, host).await;
                assert_eq!(visitor.get("/who").await.text(), name);
                let path = format!("/bytes/{LENGTH}");
                let request = visitor.request(&Method::GET, &path, empty());
                let response = visitor.send(request).await.unwrap();
                assert_eq!(checked(response.into_body()).await, Ok(LENGTH));
                let response = visitor.post("/sum", pattern(LENGTH, false)).await;
                assert_eq!(response.text(), format!("{LENGTH} bytes, as sent"));
            });
        }
        let addr = office.entries[1];
        work.spawn(async move {
            let mut stream = TcpStream::connect(addr).await.unwrap();
            for turn in 0..50_u8 {
                let sent = vec![turn; 10_000];
                let (mut read, mut write) = stream.split();
                let mut back = vec![0; sent.len()];
                let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut back));
                wrote.unwrap();
                got.unwrap();
                assert!(back == sent);
            }
        });
    }
    within("both directions at once", SOON * 2, work.join_all()).await;
    let (server, client) = (office.server.status().await, office.client.status().await);
    let at_server = &server["clients"][0];
    assert_eq!(count(at_server, "/lanes"), 1);
    assert_eq!(count(at_server, "/opened"), 3 * VISITORS + 1);
    assert_eq!(count(at_server, "/accepted"), 4 * VISITORS + 1);
    assert_eq!(count(&client, "/opened"), 4 * VISITORS + 1);
    assert_eq!(count(&client, "/accepted"), 3 * VISITORS + 1);
    drop(stalled);
    at_rest(&office.server).await;
}

/// F04, F08: protocols over HTTP cross an entry as they cross a tunnel. Needs Python, as `tests/grpc.rs` does.
#[tokio::test]
async fn grpc_crosses_an_entry() {
    let service = PythonService::start("grpc_service.py").await;
    let upstreams = format!("[{}]", upstream_at("erp", "h2c", &[service.addr]));
    let office = office(&upstreams, ERP, Also::default()).await;
    let held = visit("grpc_visitor.py", office.entries[0], "erp.internal", &[]).await;
    assert_eq!(held.len(), 11, "{held:?}");
}

/// F05, F08: WebSockets cross an entry as they cross a tunnel.
#[tokio::test]
async fn websocket_crosses_an_entry() {
    let service = PythonService::start("ws_service.py").await;
    let upstreams = format!("[{}]", upstream_at("erp", "http1", &[service.addr]));
    let office = office(&upstreams, ERP, Also::default()).await;
    let held = visit("ws_visitor.py", office.entries[0], "erp.internal", &[]).await;
    assert_eq!(held.len(), 12, "{held:?}");
}

/// P-12.3: the logs of both sides contain the UUID of a request and its opener, and the metrics of both count it so.
#[tokio::test]
async fn p_12_3_the_opener_stands_in_logs_and_metrics_of_both_sides() {
    let (inner, outer) = (Service::site("inner").await, Service::site("outer").await);
    let tunnels = format!(
        "  tunnels: [{{ name: web, type: http, local_port: {} }}]\n",
        inner.port()
    );
    let also = Also {
        client: &tunnels,
        log: true,
        ..Also::default()
    };
    let mut office = erp(&[&outer], also).await;
    let mut ids = Vec::new();
    for (addr, host) in [
        (office.entries[0], "erp.internal"),
        (office.server.http, HOST),
    ] {
        let echoed = get(addr, host, "/request").await;
        let echoed: Value = serde_json::from_slice(&echoed.body).unwrap();
        ids.push(seen(&echoed, "x-request-id")[0].to_owned());
    }
    let (at_client, at_server) = (["ingress", "egress"], ["egress", "ingress"]);
    for ((id, opener), side) in ids.iter().zip(["client", "server"]).zip([0, 1]) {
        for (process, edges) in [
            (office.client.process(), at_client),
            (office.server.process(), at_server),
        ] {
            let line = eventually("a line about the request", SOON, async || {
                let log = process.stderr();
                let line = log.lines().find(|line| line.contains(id))?;
                serde_json::from_str::<Value>(line).ok()
            })
            .await;
            assert_eq!(line["opener"], opener, "{line}");
            assert_eq!(line["edge"], edges[side], "{line}");
        }
        for admin in [office.server.admin, office.client.admin().unwrap()] {
            let metrics = get(admin, &admin.to_string(), "/metrics").await.text();
            let counted = metrics.lines().any(|line| {
                line.contains("_requests_total{") && line.contains(&format!("opener=\"{opener}\""))
            });
            assert!(counted, "{opener} in {metrics}");
        }
    }
}

/// P-6.4: a lost link fails its requests once each; requests that are safe to repeat are repeated on the next link.
#[tokio::test]
async fn p_6_4_a_link_lost_in_the_middle() {
    let service = Service::site("erp").await;
    let quiet = Scripted::start(|mut stream: TcpStream| async move {
        let _ = stream.write_all(b"hello").await;
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let upstreams = format!(
        "[{}, {}]",
        upstream("erp", "http1", &[&service]),
        upstream_at("quiet", "tcp", &[quiet.addr])
    );
    let entries = "[{ name: erp, listen: 0, upstream: erp }, \
                   { name: quiet, type: tcp, listen: 0, upstream: quiet }]";
    let also = Also {
        client: "  timeouts: { link_wait: 30s }\n",
        ..Also::default()
    };
    let mut office = office(&upstreams, entries, also).await;
    let mut tcp = Raw::connect(office.entries[1]).await;
    tcp.read_text("hello").await;
    let (mut getting, mut posting) = (office.http1().await, office.http1().await);
    let begun = office.http1().await;
    let get = getting.request(&Method::GET, "/held", empty());
    let get = tokio::spawn(async move { getting.whole(get).await });
    let post = posting.request(&Method::POST, "/held", full("x"));
    let post = tokio::spawn(async move { posting.whole(post).await });
    let mut half = begun;
    let request = half.request(&Method::GET, "/begun", empty());
    let response = half.send(request).await.unwrap();
    eventually("requests that run", SOON, async || {
        (service.stats.begun() == 3).then_some(())
    })
    .await;
    office.server.kill();
    let failed = post.await.unwrap().unwrap();
    assert_eq!(
        (failed.status.as_u16(), failed.reason()),
        (502, "link_lost")
    );
    assert_eq!(tcp.read_to_end().await.end, End::Reset, "P-10.3");
    let broken = adit_e2e::full_response(response).await;
    assert!(broken.is_err(), "P-7.1: {broken:?}");
    office.server.restart().await;
    eventually("the GET on the next link", SOON, async || {
        (service.stats.begun() == 4).then_some(())
    })
    .await;
    service.release();
    let response = get.await.unwrap().unwrap();
    assert_eq!(
        (response.status.as_u16(), response.text().as_str()),
        (200, "erp")
    );
    assert_eq!(office.get("/who").await.text(), "erp");
    at_rest(&office.server).await;
}

/// F17: an entry listens before there is a link, and its visitors wait for it.
#[tokio::test]
async fn visitors_of_an_entry_wait_for_the_link() {
    let service = Service::site("erp").await;
    let upstreams = format!("[{}]", upstream("erp", "http1", &[&service]));
    let mut server = Server::with(&format!("server:\n  upstreams: {upstreams}\n")).await;
    server.kill();
    let state = tempfile::tempdir().unwrap();
    let config = format!("client:\n  timeouts: {{ link_wait: 30s }}\n  entries: {ERP}\n");
    let options = ClientOptions::file(&server, "office", &config).elsewhere(&server, state.path());
    let client = Client::spawn(options);
    let entry = eventually("an entry", SOON, async || {
        client.admin()?;
        Some(listening(&client).await[0])
    })
    .await;
    let mut waiting = JoinSet::new();
    for _ in 0..10 {
        waiting.spawn(async move { get(entry, "erp.internal", "/who").await });
    }
    eventually("visitors who wait", SOON, async || {
        (count(&client.status().await, "/entries/0/requests_open") == 10).then_some(())
    })
    .await;
    server.restart().await;
    for response in waiting.join_all().await {
        assert_eq!(
            (response.status.as_u16(), response.text().as_str()),
            (200, "erp")
        );
    }
}

/// The wait is bounded: after it, HTTP visitors get a response, and TCP connections are reset (P-10.4).
#[tokio::test]
async fn without_a_link_visitors_get_the_reason() {
    let service = Service::site("erp").await;
    let upstreams = format!(
        "[{}, {}]",
        upstream("erp", "http1", &[&service]),
        upstream("bytes", "tcp", &[&service])
    );
    let entries = "[{ name: erp, listen: 0, upstream: erp }, \
                   { name: bytes, type: tcp, listen: 0, upstream: bytes }]";
    let also = Also {
        client: "  timeouts: { link_wait: 200ms }\n",
        ..Also::default()
    };
    let mut office = office(&upstreams, entries, also).await;
    assert_eq!(office.get("/who").await.text(), "erp");
    office.server.kill();
    let response = office.get("/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (503, "no_client")
    );
    assert_eq!(response.header("retry-after"), "1");
    let mut raw = Raw::connect(office.entries[1]).await;
    assert_eq!(raw.read_to_end().await.end, End::Reset);
    office.server.restart().await;
    eventually("the upstream again", SOON, async || {
        (office.get("/who").await.status.as_u16() == 200).then_some(())
    })
    .await;
}

/// The reasons are those of section 7, whichever side opened the request (P-12.2).
#[tokio::test]
async fn p_12_2_failures_have_their_reasons() {
    let down = closed_address().await;
    let silent = Scripted::start(|stream: TcpStream| async move {
        let mut rest = Vec::new();
        let mut stream = stream;
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let rude = Scripted::start(|mut stream: TcpStream| async move {
        let mut head = [0; 1024];
        let _ = stream.read(&mut head).await;
    })
    .await;
    let upstreams = format!(
        "[{}, {}, {}, {}]",
        upstream_at("down", "http1", &[down]),
        upstream_at("silent", "http1", &[silent.addr]),
        upstream_at("rude", "http1", &[rude.addr]),
        upstream_at("bytes", "tcp", &[down]),
    );
    let entries = "[{ name: down, listen: 0, upstream: down }, \
                   { name: silent, listen: 0, upstream: silent }, \
                   { name: rude, listen: 0, upstream: rude }, \
                   { name: bytes, type: tcp, listen: 0, upstream: bytes }]";
    let also = Also {
        server: "  timeouts: { service: 300ms }\n",
        ..Also::default()
    };
    let office = office(&upstreams, entries, also).await;
    let expected = [
        (502, "dial_failed"),
        (504, "service_timeout"),
        (502, "service_aborted"),
    ];
    for (entry, expected) in office.entries.iter().zip(expected) {
        let response = get(*entry, "erp.internal", "/who").await;
        assert_eq!((response.status.as_u16(), response.reason()), expected);
        assert!(!response.header("adit-request-id").is_empty());
    }
    let mut raw = Raw::connect(office.entries[3]).await;
    assert_eq!(raw.read_to_end().await.end, End::Reset);
    at_rest(&office.server).await;
    let status = office.client.status().await;
    for (entry, reason) in [
        (0, "dial_failed"),
        (1, "service_timeout"),
        (3, "dial_failed"),
    ] {
        let failures = format!("/entries/{entry}/failures/{reason}");
        assert_eq!(count(&status, &failures), 1, "{status}");
    }
}

/// F12: open requests of visitors of the server and of entries count against the same permits.
#[tokio::test]
async fn p_12_2_permits_are_shared_with_visitors_of_the_server() {
    let (inner, outer) = (Service::site("inner").await, Service::site("outer").await);
    let tunnels = format!(
        "  tunnels: [{{ name: web, type: http, local_port: {} }}]\n",
        inner.port()
    );
    let also = Also {
        server: "  limits: { max_requests: 2 }\n  timeouts: { permit_wait: 100ms }\n",
        client: &tunnels,
        ..Also::default()
    };
    let office = erp(&[&outer], also).await;
    let ways = [
        (office.server.http, HOST),
        (office.entries[0], "erp.internal"),
    ];
    let mut held = JoinSet::new();
    for (addr, host) in ways {
        held.spawn(async move { get(addr, host, "/held").await });
    }
    eventually("held requests", SOON, async || {
        (inner.stats.begun() + outer.stats.begun() == 2).then_some(())
    })
    .await;
    for (addr, host) in ways {
        let response = get(addr, host, "/who").await;
        assert_eq!(
            (response.status.as_u16(), response.reason()),
            (503, "limit")
        );
        assert_eq!(response.header("retry-after"), "1");
    }
    inner.release();
    outer.release();
    for response in held.join_all().await {
        assert_eq!(response.status.as_u16(), 200);
    }
    for (addr, host) in ways {
        assert_eq!(get(addr, host, "/who").await.status.as_u16(), 200);
    }
}

/// The requests of a killed client are released on the server, and so are the connections to the upstream.
#[tokio::test]
async fn a_killed_client_leaves_nothing_behind() {
    let service = Service::site("erp").await;
    let mut office = erp(&[&service], Also::default()).await;
    let mut held = JoinSet::new();
    for _ in 0..20 {
        let mut visitor = office.http1().await;
        let request = visitor.request(&Method::GET, "/held", empty());
        held.spawn(async move { visitor.whole(request).await.is_err() });
    }
    eventually("held requests", SOON, async || {
        (service.stats.begun() == 20).then_some(())
    })
    .await;
    office.client.kill();
    assert!(held.join_all().await.into_iter().all(|broken| broken));
    at_rest(&office.server).await;
    eventually("no connection to the upstream", SOON, async || {
        (service.stats.connections() == 0).then_some(())
    })
    .await;
    let status = office.server.status().await;
    for gauge in [
        "sessions",
        "pending",
        "upstream_connections",
        "budget_used_bytes",
    ] {
        assert_eq!(count(&status, &format!("/process/{gauge}")), 0, "{gauge}");
    }
}

/// A visitor that leaves cancels its request at the upstream.
#[tokio::test]
async fn a_visitor_that_leaves_cancels_its_request() {
    let service = Service::site("erp").await;
    let office = erp(&[&service], Also::default()).await;
    let mut raw = Raw::connect(office.entries[0]).await;
    raw.send("GET /held HTTP/1.1\r\nhost: x\r\n\r\n").await;
    eventually("a held request", SOON, async || {
        (service.stats.begun() == 1).then_some(())
    })
    .await;
    raw.reset();
    eventually("a cancelled request", SOON, async || {
        (service.stats.cancelled() == 1).then_some(())
    })
    .await;
    at_rest(&office.server).await;
}

/// F21: a client that drains accepts no new visitors, and the current ones get their responses.
#[tokio::test]
async fn a_client_that_drains_finishes_what_its_entries_began() {
    let service = Service::site("erp").await;
    let mut office = erp(&[&service], Also::default()).await;
    let entry = office.entries[0];
    let held = tokio::spawn(async move { get(entry, "erp.internal", "/held").await });
    eventually("a held request", SOON, async || {
        (service.stats.begun() == 1).then_some(())
    })
    .await;
    office.client.terminate();
    eventually("an entry that is closed", SOON, async || {
        TcpStream::connect(entry).await.is_err().then_some(())
    })
    .await;
    office.client.process().assert_running();
    service.release();
    let response = held.await.unwrap();
    assert_eq!(
        (response.status.as_u16(), response.text().as_str()),
        (200, "erp")
    );
    assert!(office.client.exit(SOON).await.success());
}

/// F21: a server that drains completes requests that clients have opened.
#[tokio::test]
async fn a_server_that_drains_finishes_what_entries_began() {
    let service = Service::site("erp").await;
    let also = Also {
        client: "  timeouts: { link_wait: 100ms }\n",
        ..Also::default()
    };
    let mut office = erp(&[&service], also).await;
    let entry = office.entries[0];
    let held = tokio::spawn(async move { get(entry, "erp.internal", "/held").await });
    eventually("a held request", SOON, async || {
        (service.stats.begun() == 1).then_some(())
    })
    .await;
    office.server.terminate();
    eventually("a server that takes nothing new", SOON, async || {
        (office.get("/who").await.status.as_u16() != 200).then_some(())
    })
    .await;
    office.server.process().assert_running();
    service.release();
    let response = held.await.unwrap();
    assert_eq!(
        (response.status.as_u16(), response.text().as_str()),
        (200, "erp")
    );
    assert!(office.server.exit(SOON).await.success());
}

/// The error for a port in use names its key.
#[tokio::test]
async fn an_entry_that_cannot_listen_names_its_key() {
    let server = Server::plain().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let config = format!(
        "client:\n  entries: [{{ name: free, listen: 0, upstream: erp }}, {{ name: erp, listen: \"{addr}\", upstream: erp }}]\n"
    );
    let options = ClientOptions::file(&server, "office", &config);
    let state = server.state().display().to_string();
    let args: Vec<_> = options.args.iter().map(String::as_str).collect();
    let env = [("ADIT__STATE_DIR", state.as_str())];
    let run = run("adit", &args, &env, server.state()).await;
    assert_eq!(run.code, Some(1), "{run:?}");
    let expected = format!("client.entries[1].listen (entry `erp`): {addr} is in use");
    assert!(run.stderr.contains(&expected), "{}", run.stderr);
}

/// F25: the target of a rule may be an upstream, without any client.
#[tokio::test]
async fn a_rule_leads_visitors_to_an_upstream() {
    let services = [Service::site("a").await, Service::site("b").await];
    let config = format!(
        "server:\n  limits: {{ max_requests: 1 }}\n  timeouts: {{ startup_grace: 0s }}\n  upstreams: [{}, {}]\n  rules:\n    \
         - {{ host: erp.internal, to: {{ upstream: erp }} }}\n    \
         - {{ host: down.internal, to: {{ upstream: down }} }}\n",
        upstream("erp", "http1", &services.each_ref()),
        upstream_at("down", "http1", &[closed_address().await]),
    );
    // One permit is enough for one visitor: the request takes no second one on its path.
    let server = Server::with(&config).await;
    let mut visitor = Visitor::http1(server.http, "erp.internal").await;
    let names = [
        visitor.get("/who").await.text(),
        visitor.get("/who").await.text(),
    ];
    assert!(names.contains(&"a".to_owned()) && names.contains(&"b".to_owned()));
    let response = visitor.post("/sum", pattern(5 * MIB, false)).await;
    assert_eq!(response.text(), format!("{} bytes, as sent", 5 * MIB));
    let request = visitor.request(&Method::GET, "/bytes/5000000", empty());
    let response = visitor.send(request).await.unwrap();
    assert_eq!(checked(response.into_body()).await, Ok(5_000_000));
    let response = get(server.http, "down.internal", "/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (502, "dial_failed")
    );
    let response = get(server.http, "other.internal", "/who").await;
    assert_eq!(
        (response.status.as_u16(), response.reason()),
        (404, "no_tunnel")
    );
    at_rest(&server).await;
    let status = server.status().await;
    assert_eq!(status["upstreams"][1]["name"], "erp");
    assert_eq!(count(&status, "/upstreams/1/requests"), 4);
    let route = query(server.admin, "/api/route?url=http://erp.internal/x").await;
    assert_eq!(
        (&route["upstream"], &route["tunnel"]),
        (&"erp".into(), &Value::Null)
    );
}

/// Of ten permits, one address gets seven at most while others wait, whatever host it names.
#[tokio::test]
async fn one_address_at_an_entry_leaves_permits_to_others() {
    let service = Service::site("site").await;
    let entries = r#"[{ name: erp, listen: "127.0.0.1:0", upstream: erp },
        { name: other, listen: "127.0.0.1:0", upstream: erp }]"#;
    let also = Also {
        client: "  limits: { max_requests: 10 }\n  timeouts: { permit_wait: 60s }\n",
        ..Also::default()
    };
    let upstreams = format!("[{}]", upstream("erp", "http1", &[&service]));
    let office = office(&upstreams, entries, also).await;
    let mut greedy = JoinSet::new();
    for number in 0..12 {
        let host = format!("host-{number}.internal");
        let mut visitor = Visitor::http1(office.entries[0], &host).await;
        greedy.spawn(async move { visitor.get("/held").await });
    }
    eventually("a share of the permits", SOON, async || {
        (service.stats.begun() >= 7).then_some(())
    })
    .await;
    for entry in &office.entries {
        let source = [127, 0, 0, 2].into();
        let mut visitor = Visitor::http1_from(source, *entry, "erp.internal").await;
        assert_eq!(visitor.get("/who").await.text(), "site");
    }
    assert_eq!(service.stats.begun(), 9, "seven are held, two were passing");
    service.release();
    let responses = greedy.join_all().await;
    assert!(responses.iter().all(|response| response.text() == "site"));
    at_rest(&office.server).await;
}
