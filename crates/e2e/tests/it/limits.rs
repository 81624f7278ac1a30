//! Limits and quotas of clients, tunnels and users, with both programs: F35, section 16 of the protocol.

use std::{
    fs,
    io::ErrorKind,
    net::SocketAddr,
    os::unix::fs::{MetadataExt, PermissionsExt},
    time::{Duration, Instant},
};

use adit_e2e::{
    Client, ClientOptions, FullResponse, Process, Raw, Scripted, Server, ServerOptions, Service,
    Visitor, World, binary, count, eventually, pattern,
};
use http::{HeaderValue, Method};
use serde_json::Value;
use tokio::{
    io::AsyncReadExt,
    net::{TcpStream, UdpSocket},
};

const SOON: Duration = Duration::from_secs(30);
const HOST: &str = "web.localhost";

/// A server's file with these limits.
fn limits(limits: &str) -> String {
    format!("server:\n  limits: {{ {limits} }}\n")
}

/// A world with a server that has these limits.
async fn world(text: &str) -> World {
    let service = Service::site("site").await;
    let mut world = World::configured(&limits(text), service.addr).await;
    world.service = Some(service);
    world
}

/// Status, reason and text of a response.
fn verdict(response: &FullResponse) -> (u16, &str, String) {
    let reason = response.headers.get("adit-reason");
    let reason = reason.map_or("", |reason| reason.to_str().unwrap());
    (response.status.as_u16(), reason, response.text())
}

fn assert_refused(response: &FullResponse, status: u16, text: &str) {
    let (got, reason, got_text) = verdict(response);
    assert_eq!((got, reason), (status, "limit"), "{got_text}");
    assert!(got_text.contains(text), "{got_text}");
    let wait: u64 = response.header("retry-after").parse().unwrap();
    assert!(wait >= 1, "{wait}");
}

/// Refusals by a limit, from the status of the server.
async fn refusals(server: &Server, of: &str, limit: &str) -> u64 {
    let status = server.status().await;
    let refusals = status["traffic"]["refusals"].as_array().unwrap();
    let found = refusals
        .iter()
        .find(|one| one["of"] == of && one["limit"] == limit);
    found.map_or(0, |one| one["count"].as_u64().unwrap())
}

fn quota_used(status: &Value, of: &str, quota: &str) -> Option<u64> {
    let accounts = status["traffic"]["accounts"].as_array()?;
    let account = accounts.iter().find(|account| account["of"] == of)?;
    let quotas = account["quotas"].as_array()?;
    quotas.iter().find(|one| one["quota"] == quota)?["used"].as_u64()
}

/// Bytes per second are between 0.9 and 1.05 of `rate`: with the burst of the start, and with the machine's own work.
fn assert_rate(bytes: usize, start: Instant, rate: f64) {
    let took = start.elapsed().as_secs_f64();
    let measured = bytes as f64 / took;
    assert!(
        measured <= rate * 1.08 && measured >= rate * 0.7,
        "{measured} instead of {rate} bytes a second, in {took} s"
    );
}

#[tokio::test]
async fn p_16_1_downloads_and_uploads_have_the_bandwidth_of_the_client() {
    let world = world("max_bandwidth: 1MB").await;
    let start = Instant::now();
    let response = world.get("/bytes/3000000").await;
    assert_eq!(response.body.len(), 3_000_000);
    assert_rate(3_000_000, start, 1e6);
    let start = Instant::now();
    let response = world.post("/sum", pattern(3_000_000, true)).await;
    assert_eq!(response.text(), "3000000 bytes, as sent");
    assert_rate(3_000_000, start, 1e6);
    // Each direction has it.
    let start = Instant::now();
    let (down, up) = tokio::join!(
        world.get("/bytes/2000000"),
        world.post("/sum", pattern(2_000_000, false))
    );
    assert_eq!(down.body.len(), 2_000_000);
    assert_eq!(up.text(), "2000000 bytes, as sent");
    assert_rate(2_000_000, start, 1e6);
    let status = world.server.status().await;
    let account = &status["traffic"]["accounts"][0];
    assert_eq!(
        (&account["of"], &account["name"]),
        (&"client".into(), &"client-1".into())
    );
    assert_eq!(account["max_bandwidth"], 1_000_000);
    assert!(
        account["waited_millis"].as_u64().unwrap() > 1_000,
        "{account}"
    );
}

#[tokio::test]
async fn p_16_2_requests_share_the_bandwidth_of_the_tunnel() {
    let world = world("per_tunnel: { max_bandwidth: 2MB }").await;
    let start = Instant::now();
    let gets = (0..4).map(|_| {
        let server = world.server.http;
        async move {
            let response = adit_e2e::get(server, HOST, "/bytes/1000000").await;
            assert_eq!(response.body.len(), 1_000_000);
            start.elapsed().as_secs_f64()
        }
    });
    let mut ends = futures_util::future::join_all(gets).await;
    ends.sort_by(f64::total_cmp);
    assert_rate(4_000_000, start, 2e6);
    // With equal shares they end together.
    assert!(ends[0] >= ends[3] * 0.75, "{ends:?}");
}

/// The bytes of a TCP connection, in both directions.
#[tokio::test]
async fn p_16_1_tcp_has_the_bandwidth_of_its_user() {
    let service = Scripted::start(|stream| async move {
        let mut raw = Raw { stream };
        let read = raw.read_until(|bytes| bytes.len() >= 1_500_000).await;
        raw.send(read.bytes).await;
    })
    .await;
    let server = Server::with(&limits("per_user: { max_bandwidth: 1MB }")).await;
    let _client = Client::start(tcp_client(&server, service.addr)).await;
    let addr = port_of(&server).await;
    let mut raw = Raw::connect(addr).await;
    let start = Instant::now();
    raw.send(vec![7; 1_500_000]).await;
    let read = raw.read_until(|bytes| bytes.len() >= 1_500_000).await;
    assert_eq!(read.bytes.len(), 1_500_000);
    // First there, then back.
    assert_rate(3_000_000, start, 1e6);
}

fn tcp_client(server: &Server, service: SocketAddr) -> ClientOptions {
    let file = format!(
        "client:\n  tunnels:\n    - {{ name: ssh, type: tcp, local_port: {}, remote_port: 0 }}\n",
        service.port()
    );
    ClientOptions::file(server, "client-1", &file)
}

async fn port_of(server: &Server) -> SocketAddr {
    let port = eventually("a public port", SOON, async || {
        let status = server.status().await;
        status["tunnels"][0]["port"].as_u64()
    })
    .await;
    SocketAddr::new(server.tunnel.ip(), u16::try_from(port).unwrap())
}

#[tokio::test]
async fn p_16_4_requests_above_a_rate_get_429() {
    // The rate is so low that no request is admitted again within the test.
    let world = world("per_tunnel: { max_requests_per_second: 1 }").await;
    let mut visitor = world.http1().await;
    let mut refused = None;
    for _ in 0..20 {
        let response = visitor.get("/who").await;
        if response.status != 200 {
            refused = Some(response);
            break;
        }
    }
    let text = "the tunnel is over its limit of 1 requests per second (`limits.per_tunnel.max_requests_per_second`)";
    assert_refused(&refused.expect("a refusal"), 429, text);
    // The same for a call of gRPC.
    let mut visitor = world.http2().await;
    let mut status = String::new();
    for _ in 0..20 {
        let mut call = visitor.request(&Method::POST, "/a.B/C", adit_e2e::empty());
        let grpc = HeaderValue::from_static("application/grpc");
        call.headers_mut().insert("content-type", grpc);
        let response = visitor.whole(call).await.unwrap();
        if response
            .headers
            .get("adit-reason")
            .is_some_and(|reason| reason == "limit")
        {
            status = response.header("grpc-status").to_owned();
            break;
        }
    }
    assert_eq!(status, "8", "RESOURCE_EXHAUSTED");
    assert!(refusals(&world.server, "tunnel", "requests_per_second").await >= 2);
}

#[tokio::test]
async fn p_16_4_requests_beyond_the_running_ones_get_503() {
    let world = world("per_user: { max_running_requests: 1 }").await;
    let server = world.server.http;
    let held = tokio::spawn(async move { adit_e2e::get(server, HOST, "/held").await });
    eventually("a running request", SOON, async || {
        (world.service().stats.begun() == 1).then_some(())
    })
    .await;
    let text =
        "the user is at its limit of 1 running requests (`limits.per_user.max_running_requests`)";
    assert_refused(&world.get("/who").await, 503, text);
    world.service().release();
    assert_eq!(held.await.unwrap().status, 200);
    eventually("room for a request", SOON, async || {
        (world.get("/who").await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn p_16_4_a_connection_beyond_the_limit_is_reset() {
    let service = Scripted::start(|stream| async move {
        let mut raw = Raw { stream };
        raw.send("hello").await;
        raw.read_to_end().await;
    })
    .await;
    let server = Server::with(&limits("per_client: { max_connections: 1 }")).await;
    let _client = Client::start(tcp_client(&server, service.addr)).await;
    let addr = port_of(&server).await;
    let mut first = Raw::connect(addr).await;
    assert_eq!(first.read_text("hello").await.text(), "hello");
    assert!(!is_served(addr).await);
    assert_eq!(refusals(&server, "client", "connections").await, 1);
    drop(first);
    eventually("room for a connection", SOON, async || {
        is_served(addr).await.then_some(())
    })
    .await;
}

/// Whether a connection receives `hello`; otherwise it is reset, which may be reported as the error of the connect.
async fn is_served(addr: SocketAddr) -> bool {
    let mut greeting = [0; 5];
    let read = async {
        let mut stream = TcpStream::connect(addr).await?;
        stream.read_exact(&mut greeting).await
    };
    match read.await {
        Ok(_) => {
            assert_eq!(&greeting, b"hello");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            false
        }
    }
}

/// Datagrams wait for the bandwidth, in both directions; none of these few is dropped.
#[tokio::test]
async fn p_16_7_datagrams_wait_for_the_bandwidth() {
    const DATAGRAMS: usize = 40;
    let service = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Server::with(&limits("per_tunnel: { max_bandwidth: 20kB }")).await;
    let file = format!(
        "client:\n  tunnels:\n    - {{ name: dns, type: udp, local_port: {}, remote_port: 0 }}\n",
        service.local_addr().unwrap().port()
    );
    let _client = Client::start(ClientOptions::file(&server, "client-1", &file)).await;
    let echo = tokio::spawn(async move {
        let mut buffer = [0; 2_000];
        loop {
            let (length, from) = service.recv_from(&mut buffer).await.unwrap();
            service.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    let visitor = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    visitor.connect(port_of(&server).await).await.unwrap();
    let start = Instant::now();
    for _ in 0..DATAGRAMS {
        visitor.send(&[7; 1_000]).await.unwrap();
    }
    let mut buffer = [0; 2_000];
    for _ in 0..DATAGRAMS {
        let received = tokio::time::timeout(SOON, visitor.recv(&mut buffer)).await;
        assert_eq!(received.expect("a datagram").unwrap(), 1_000);
    }
    assert_rate(DATAGRAMS * 1_000, start, 20e3);
    echo.abort();
}

#[tokio::test]
async fn p_16_5_a_tunnel_beyond_those_of_its_user_is_refused() {
    let server = Server::with(&limits("per_user: { max_tunnels: 1 }")).await;
    let file = "client:\n  tunnels:\n    - { name: one, local_port: 1 }\n    - { name: two, local_port: 1 }\n";
    let client = Client::spawn(ClientOptions::file(&server, "client-1", file));
    server.wait_for_clients(1).await;
    let error = eventually("a refusal", SOON, async || {
        let status = client.admin().map(|_| client.status());
        let status = status?.await;
        let tunnels = status["tunnels"].as_array()?.iter();
        let mut errors = tunnels.filter_map(|tunnel| tunnel["error"].as_str().map(String::from));
        errors.next()
    })
    .await;
    assert!(error.contains("at most 1 tunnels"), "{error}");
    assert!(
        error.contains("server.limits.per_user.max_tunnels"),
        "{error}"
    );
    assert!(refusals(&server, "user", "tunnels").await >= 1);
}

/// A quota is over, and stays over when the server has been killed.
#[tokio::test]
async fn p_16_6_requests_over_the_quota_get_429_also_after_a_kill() {
    let service = Service::site("site").await;
    let quota =
        "per_user: { quota: { requests_per_month: 3, bytes_per_day: 1GB } }, time_zone: Asia/Tokyo";
    let mut server = Server::with(&limits(quota)).await;
    let mut client = Client::http(&server, "client-1", "web", service.addr).await;
    let mut visitor = Visitor::http1(server.http, HOST).await;
    for _ in 0..3 {
        assert_eq!(visitor.get("/bytes/1000").await.status, 200);
    }
    let text = "the user is over its quota of requests per month; it resets at 20";
    assert_refused(&visitor.get("/who").await, 429, text);
    let file = server.state().join("usage.json");
    // It is written within five seconds.
    let stored = eventually("the stored usage", SOON, async || {
        let stored: Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
        (stored["usages"][0]["month_requests"] == 3).then_some(stored)
    })
    .await;
    assert_eq!(stored["usages"][0]["of"], "user");
    assert_eq!(stored["usages"][0]["month_bytes"], 3_000);
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.kill();
    server.restart().await;
    client.connected().await;
    server.wait_for_clients(1).await;
    let mut visitor = Visitor::http1(server.http, HOST).await;
    assert_refused(&visitor.get("/who").await, 429, text);
    let status = server.status().await;
    assert_eq!(quota_used(&status, "user", "requests_per_month"), Some(3));
    assert_eq!(quota_used(&status, "user", "bytes_per_day"), Some(3_000));
    assert_eq!(status["traffic"]["time_zone"], "Asia/Tokyo");
    // Without a quota the same requests are served.
    server.follows(&limits("max_bandwidth: 100MB"), 2).await;
    assert_eq!(visitor.get("/who").await.status, 200);
}

/// A request that runs when the quota is reached goes on; the next one is refused.
#[tokio::test]
async fn p_16_6_bytes_of_both_directions_count() {
    let world = world("per_tunnel: { quota: { bytes_per_day: 100kB } }").await;
    assert_eq!(world.post("/sum", pattern(60_000, true)).await.status, 200);
    let response = world.get("/bytes/500000").await;
    assert_eq!(response.body.len(), 500_000, "it goes on");
    let text = "the tunnel is over its quota of bytes per day; it resets at ";
    assert_refused(&world.get("/who").await, 429, text);
    let used = quota_used(&world.server.status().await, "tunnel", "bytes_per_day").unwrap();
    assert!((560_000..561_000).contains(&used), "{used}");
    assert_eq!(refusals(&world.server, "tunnel", "bytes_per_day").await, 1);
}

/// The usage is written at an orderly end, without a wait for the next five seconds.
#[tokio::test]
async fn p_16_6_an_orderly_end_loses_nothing() {
    let service = Service::site("site").await;
    let mut server =
        Server::with(&limits("per_client: { quota: { requests_per_day: 100 } }")).await;
    let _client = Client::http(&server, "client-1", "web", service.addr).await;
    let file = server.state().join("usage.json");
    let mut visitor = Visitor::http1(server.http, HOST).await;
    assert_eq!(visitor.get("/who").await.status, 200);
    eventually("the first file", SOON, async || file.exists().then_some(())).await;
    let before = fs::metadata(&file).unwrap().ino();
    for _ in 0..5 {
        assert_eq!(visitor.get("/who").await.status, 200);
    }
    drop(visitor);
    server.terminate();
    assert!(server.exit(SOON).await.success());
    assert_ne!(fs::metadata(&file).unwrap().ino(), before, "it is replaced");
    let stored: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored["usages"][0]["day_requests"], 6, "{stored}");
}

#[tokio::test]
async fn p_16_6_a_server_does_not_start_with_a_broken_file() {
    let state = tempfile::tempdir().unwrap();
    fs::write(state.path().join("usage.json"), "{").unwrap();
    let env = [
        (
            "ADIT__STATE_DIR".to_owned(),
            state.path().display().to_string(),
        ),
        ("ADIT__SERVER__BIND_PORT".to_owned(), "0".to_owned()),
        ("ADIT__SERVER__HTTP__BIND_PORT".to_owned(), "0".to_owned()),
        ("ADIT__SERVER__ADMIN__BIND".to_owned(), "off".to_owned()),
    ];
    let args: [&str; 0] = [];
    let program = binary("adit-server");
    let mut server = Process::spawn("adit-server", &program, &args, &env, state.path());
    assert!(!server.exit(SOON).await.success());
    let log = server.stderr();
    assert!(
        log.contains("usage.json") && log.contains("move it away"),
        "{log}"
    );
}

/// A changed bandwidth holds for a request that runs.
#[tokio::test]
async fn p_16_8_a_reload_changes_the_bandwidth_of_running_requests() {
    let world = world("max_bandwidth: 100kB").await;
    let server = world.server.http;
    let start = Instant::now();
    // At the first rate it would take 50 s.
    let download = tokio::spawn(async move { adit_e2e::get(server, HOST, "/bytes/5000000").await });
    eventually("a running download", SOON, async || {
        (world.service().stats.begun() == 1).then_some(())
    })
    .await;
    world
        .server
        .follows(&limits("max_bandwidth: 50MB"), 2)
        .await;
    assert_eq!(download.await.unwrap().body.len(), 5_000_000);
    assert!(
        start.elapsed() < Duration::from_secs(25),
        "{:?}",
        start.elapsed()
    );
}

/// The complete example of a server's file.
#[tokio::test]
async fn p_16_1_limits_are_shown_with_their_metrics() {
    let service = Service::site("site").await;
    let config = "server:\n  limits: { max_tunnels_per_client: 10, max_bandwidth: \"100MB\", per_client: { quota: { bytes_per_month: 1TB } } }\n  telemetry: { metrics: {} }\n";
    let server = Server::start(ServerOptions {
        config: config.to_owned(),
        ..ServerOptions::default()
    })
    .await;
    let _client = Client::http(&server, "client-1", "web", service.addr).await;
    let mut visitor = Visitor::http1(server.http, HOST).await;
    assert_eq!(visitor.get("/bytes/12345").await.status, 200);
    let admin = server.admin.to_string();
    let metrics = adit_e2e::get(server.admin, &admin, "/metrics").await.text();
    for line in [
        "adit_limits_bandwidth_bytes{of=\"client\",group=\"client-1\"",
        "adit_limits_quota_used{",
        "adit_limits_accounts 1",
    ] {
        let line = line.replace("group=\"client-1\"", "group=\"\"");
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    assert_eq!(count(&server.status().await, "/traffic/known"), 1);
}
