//! TLS on the tunnel with the server's own CA: F32.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Load, Server, Service, count, eventually, get};
use http::StatusCode;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// A server with its own CA. Its address is on loopback, where TLS is off unless it is set.
async fn server() -> Server {
    Server::with("server: { tls: true }\n").await
}

async fn fingerprint(server: &Server) -> String {
    let status = server.status().await;
    let fingerprint = status["tls"]["ca_fingerprint"].as_str();
    fingerprint.expect("a CA of its own").to_owned()
}

/// A client on another machine, with this value of `client.tls`.
fn elsewhere(server: &Server, state: &Path, service: &Service, tls: &str) -> ClientOptions {
    let port = service.addr.port();
    let config = format!(
        "client:\n  tls: {tls}\n  reconnect: {{ initial_delay: 50ms, max_delay: 50ms }}\n  tunnels: [{{ name: web, local_port: {port} }}]\n"
    );
    ClientOptions::file(server, "client-1", &config).elsewhere(server, state)
}

async fn responds(http: SocketAddr) {
    eventually("a response", SOON, async || {
        let response = get(http, HOST, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_of_this_machine_needs_no_setting() {
    let mut server = server().await;
    let service = Service::site("site").await;
    let _client = Client::http(&server, "client-1", "web", service.addr).await;
    responds(server.http).await;
    let status = server.status().await;
    assert_eq!(status["tls"]["mode"], "own_ca");
    // What a person reads at the start is what clients are given.
    let printed = server.process().stdout();
    assert!(printed.contains(&fingerprint(&server).await), "{printed}");
}

#[tokio::test]
async fn a_client_elsewhere_pins_the_fingerprint() {
    let mut server = server().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let tls = format!("{{ ca_fingerprint: {} }}", fingerprint(&server).await);
    let _client = Client::start(elsewhere(&server, state.path(), &service, &tls)).await;
    responds(server.http).await;
    // The CA outlives the process.
    server.restart().await;
    responds(server.http).await;
}

#[tokio::test]
async fn a_client_without_trust_reports_the_fingerprint() {
    let server = server().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let expected = fingerprint(&server).await;
    let mut client = Client::spawn(elsewhere(&server, state.path(), &service, "true"));
    let log = eventually("a refusal", SOON, async || {
        client.process().assert_running();
        let log = client.process().stderr();
        log.contains(&expected).then_some(log)
    })
    .await;
    assert!(log.contains("client.tls.ca_fingerprint"), "{log}");
    let status = server.status().await;
    assert_eq!(count(&status, "/visitors/requests"), 0);
    assert_eq!(status["clients"], Value::Array(Vec::new()));
}

/// Certificate and CA are replaced every few seconds. The running connection goes on, and the next one trusts the newest CA:
/// the client reads the file of the CA again when it changes.
#[tokio::test]
async fn requests_go_on_while_the_ca_is_replaced() {
    let config = "server: { tls: { certificate_lifetime: 4s, ca_lifetime: 6s } }\n";
    let mut server = Server::with(config).await;
    let service = Service::site("site").await;
    let options = ClientOptions::http(&server, "client-1", "web", service.addr);
    let mut client = Client::start(options).await;
    let load = Load::start(server.http, HOST, "site").await;
    for _ in 0..2 {
        let before = fingerprint(&server).await;
        eventually("another CA", SOON, async || {
            (fingerprint(&server).await != before).then_some(())
        })
        .await;
        load.goes_on().await;
    }
    load.stop().await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
    // By now the first CA has expired.
    server.restart().await;
    responds(server.http).await;
    let log = client.process().stderr();
    assert!(!log.contains("certificate"), "{log}");
}

#[tokio::test]
async fn the_key_of_the_ca_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;

    let mut server = server().await;
    let file = server.state().join("tls/ca.json");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let dir = fs::metadata(server.state().join("tls")).unwrap();
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    let key = fs::read_to_string(&file).unwrap();
    let status = server.status().await.to_string();
    let process = server.process();
    for text in [status, process.stdout(), process.stderr()] {
        assert!(!text.contains("PRIVATE KEY"), "{text}");
    }
    assert!(key.contains("PRIVATE KEY"));
}
