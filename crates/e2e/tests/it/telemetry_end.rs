//! The end of a process that has spans to send. F37, F38.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use adit_e2e::{Client, ClientOptions, Process, Server, Service, eventually, get};
use tokio::net::TcpListener;

const SOON: Duration = Duration::from_secs(20);

/// The warning of a process that could not send its spans in time.
const GAVE_UP: &str = "some spans did not reach the collector";

/// A listener that accepts connections, and sends nothing on them.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// A section that exports every trace to this address.
fn section(collector: SocketAddr) -> String {
    format!(
        "  telemetry: {{ tracing: {{ endpoint: \"http://{collector}\", sample_ratio: 1.0, interval: 20ms }} }}\n"
    )
}

fn tunnel(service: &Service) -> String {
    format!(
        "  tunnels: [{{ name: web, type: http, local_port: {} }}]\n",
        service.port()
    )
}

/// Waits until the process has announced its end: it only has to end its telemetry.
async fn has_left(announced: &Path) {
    eventually("no announcement", SOON, async || {
        (!announced.exists()).then_some(())
    })
    .await;
}

/// A server with a span that its collector does not accept.
struct TracedServer {
    server: Server,
    _beside: (Client, Service, TcpListener),
}

impl TracedServer {
    async fn start() -> Self {
        let service = Service::site("web").await;
        let (collector, addr) = silent().await;
        let server = Server::with(&format!("server:\n{}", section(addr))).await;
        let client = Client::http(&server, "client-1", "web", service.addr).await;
        let response = get(server.http, "web.localhost", "/who").await;
        assert_eq!(response.text(), "web");
        Self {
            server,
            _beside: (client, service, collector),
        }
    }
}

/// Expects that the process ends successfully, before the time limit of its collector.
async fn ends_at_once(process: &mut Process) {
    process.terminate();
    let status = process.exit(SOON).await;
    assert!(status.success(), "{status}");
    let log = process.stderr();
    assert!(!log.contains(GAVE_UP), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_a_server_without_its_collector() {
    let mut world = TracedServer::start().await;
    let server = &mut world.server;
    let announced = server.state().join("server.json");
    assert!(announced.exists());
    server.terminate();
    has_left(&announced).await;
    ends_at_once(server.process()).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_client_without_its_collector() {
    let service = Service::site("web").await;
    let (_collector, addr) = silent().await;
    // The client has spans only for requests that are traced by the server, whose visitors began them.
    let server = Server::with(&format!("server:\n{}", section(addr))).await;
    let file = format!("client:\n{}{}", section(addr), tunnel(&service));
    let mut client = Client::start(ClientOptions::file(&server, "client-1", &file)).await;
    let response = get(server.http, "web.localhost", "/who").await;
    assert_eq!(response.text(), "web");
    let announced = server.state().join("clients");
    let announced = fs::read_dir(announced).unwrap().next().unwrap().unwrap();
    client.terminate();
    has_left(&announced.path()).await;
    ends_at_once(client.process()).await;
}

/// The case for comparison: after a single signal, the process waits for the collector until the time limit.
#[tokio::test]
async fn one_signal_gives_the_collector_its_time() {
    let mut world = TracedServer::start().await;
    let server = &mut world.server;
    server.terminate();
    assert!(server.exit(SOON).await.success());
    let log = server.process().stderr();
    assert!(log.contains(GAVE_UP), "{log}");
}
