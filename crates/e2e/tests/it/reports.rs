//! The reports for operators of a client when a service is down, a name is held, or a tunnel leads to its own server.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, FullResponse, HOST, Raw, Server, Service, World, eventually, get, within,
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// An address that refuses connections.
async fn closed_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Lines about failed requests on a client's terminal.
fn failed(world: &mut World) -> Vec<String> {
    let log = world.client.process().stderr();
    let lines = log.lines().filter(|line| line.contains("request failed"));
    lines.map(str::to_owned).collect()
}

/// Regression: the client did not report a service that is down.
#[tokio::test]
async fn requests_to_a_dead_service_have_one_line_each() {
    let mut world = World::before(closed_address().await).await;
    let mut responses: Vec<FullResponse> = Vec::new();
    for _ in 0..3 {
        responses.push(world.get("/").await);
    }
    let lines = eventually("three lines", PATIENCE, async || {
        let lines = failed(&mut world);
        (lines.len() >= 3).then_some(lines)
    })
    .await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    for response in &responses {
        assert_eq!(
            (response.status.as_u16(), response.reason()),
            (502, "dial_failed")
        );
        let id = response.header("adit-request-id");
        let line = lines.iter().find(|line| line.contains(id));
        let line = line.unwrap_or_else(|| panic!("no line of {id}: {lines:?}"));
        for part in ["WARN", "tunnel=web", "dial_failed", "start the service"] {
            assert!(line.contains(part), "no {part} in {line}");
        }
    }
    // Many failures are logged in a few lines a second, with the number of requests.
    let begun = Instant::now();
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        let http = world.server.http;
        flood.spawn(async move { get(http, HOST, "/").await.status.as_u16() });
    }
    assert!(flood.join_all().await.iter().all(|status| *status == 502));
    let total = |lines: &[String]| -> u64 {
        let count = |line: &String| {
            let (_, count) = line.split_once("count=")?;
            count.split_whitespace().next()?.parse().ok()
        };
        lines.iter().map(|line| count(line).unwrap_or(1)).sum()
    };
    let lines = eventually("lines for all of them", PATIENCE, async || {
        let lines = failed(&mut world);
        (total(&lines) == 103).then_some(lines)
    })
    .await;
    let most = 3 + 6 * (begun.elapsed().as_secs() + 2);
    assert!(
        lines.len() as u64 <= most,
        "{} lines, not {most}",
        lines.len()
    );
}

/// How often the server has refused tunnels of the client `second`.
fn refusals(server: &mut Server) -> u64 {
    let log = server.process().stderr();
    let lines = log
        .lines()
        .filter(|line| line.contains("refused: tunnel") && line.contains("client=second"));
    let count = |line: &str| -> Option<u64> {
        let (_, count) = line.split_once("count=")?;
        count.split_whitespace().next()?.parse().ok()
    };
    lines.filter_map(count).sum()
}

/// P-1.4. After three refusals the client would announce again in 3 s at the earliest: `TunnelsFreed` arrives before
/// that. The three refusals take 3 s.
#[tokio::test]
async fn p_1_4_refused_name_and_port_are_taken_when_freed() {
    let mut server = Server::plain().await;
    let services = [Service::site("first").await, Service::site("second").await];
    let options = |id: &str, service: &Service| {
        let config = format!(
            "client:\n  tunnels:\n    - {{ name: web, type: http, local_port: {port} }}\n    \
             - {{ name: raw, type: tcp, local_port: {port}, remote_port: 4004 }}\n",
            port = service.addr.port()
        );
        ClientOptions::file(&server, id, &config)
    };
    let (first, second) = (
        options("first", &services[0]),
        options("second", &services[1]),
    );
    let first = Client::start(first).await;
    let second = Client::start(second).await;
    eventually("three refusals", PATIENCE, async || {
        (refusals(&mut server) >= 3).then_some(())
    })
    .await;
    assert_eq!(get(server.http, HOST, "/who").await.text(), "first");
    let begun = Instant::now();
    first.terminate();
    eventually("both tunnels of the second", PATIENCE, async || {
        let status = second.status().await;
        let mut tunnels = status["tunnels"].as_array()?.iter();
        tunnels
            .all(|tunnel| tunnel["error"].is_null())
            .then_some(())
    })
    .await;
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_millis(2_500), "{elapsed:?}");
    assert_eq!(get(server.http, HOST, "/who").await.text(), "second");
    let port = SocketAddr::new(server.http.ip(), 4004);
    let mut visitor = Raw::connect(port).await;
    let request = "GET /who HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    visitor.send(request).await;
    let read = visitor.read_to_end().await;
    assert!(read.text().ends_with("second"), "{}", read.text());
}

/// P-3.12: a tunnel whose service is the server that it belongs to.
#[tokio::test]
async fn p_3_12_tunnel_to_its_own_server_gives_508_at_once() {
    let server = Server::plain().await;
    let mut client = Client::http(&server, "client-1", "web", server.http).await;
    let response = within("a response", Duration::from_secs(5), async {
        get(server.http, HOST, "/").await
    })
    .await;
    assert_eq!((response.status.as_u16(), response.reason()), (508, "loop"));
    assert!(!response.text().is_empty());
    // The request has passed the server once, and not until permits or descriptors were exhausted.
    let status = server.status().await;
    assert_eq!(
        adit_e2e::count(&status, "/visitors/requests"),
        2,
        "{status}"
    );
    client.process().assert_running();
}
