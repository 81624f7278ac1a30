//! Two users' tokens, and the names that each of them owns: P-1.9, P-1.11.

use std::{net::SocketAddr, process::Command, time::Duration};

use adit_e2e::{Client, ClientOptions, Server, Service, binary, eventually, get};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = "\
server:
  auth: [{ user: alice, token: token-of-alice-0123456789 }, { user: bob, token: token-of-bob-0123456789 }]
";

/// `adit http` with the token of a user.
fn of(server: &Server, user: &str, id: &str, name: &str, service: SocketAddr) -> ClientOptions {
    ClientOptions::http(server, id, name, service)
        .arg("--server", &server.tunnel.to_string())
        .env("ADIT__TOKEN", &format!("token-of-{user}-0123456789"))
}

/// The clients that serve a tunnel, by the server's status.
async fn serving(server: &Server, name: &str) -> Vec<String> {
    let status = server.status().await;
    let tunnels = status["tunnels"].as_array().into_iter().flatten();
    let named = tunnels.filter(|tunnel| tunnel["name"] == name);
    let clients = named.flat_map(|tunnel| tunnel["clients"].as_array().into_iter().flatten());
    clients
        .filter_map(Value::as_str)
        .map(String::from)
        .collect()
}

fn release(server: &Server, kind: &str, name: &str) -> (bool, String) {
    let output = Command::new(binary("adit-server"))
        .args(["release", kind, name, "--state-dir"])
        .arg(server.state())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Waits until the file of owners contains a name: it is written a second after a change.
async fn written(server: &Server, name: &str) {
    eventually("the file of owners", PATIENCE, async || {
        let file = std::fs::read_to_string(server.state().join("names.json")).ok()?;
        file.contains(name).then_some(())
    })
    .await;
}

/// With his own token, Bob gets Alice's group and tunnel neither while she serves it nor after a restart of the server,
/// but only once an administrator has released it.
#[tokio::test]
async fn p_1_9_a_group_is_its_users_until_it_is_released() {
    let service = Service::site("site").await;
    let mut server = Server::with(CONFIG).await;
    let own = of(&server, "alice", "alice", "web", service.addr).arg("--group", "alice");
    let mut alice = Client::start(own).await;
    let takeover = of(&server, "bob", "bob2", "web", service.addr).arg("--group", "alice");
    let mut bob = Client::spawn(takeover.clone());
    eventually("the refusal in the log of bob", PATIENCE, async || {
        bob.process()
            .stderr()
            .contains("belongs to another user")
            .then_some(())
    })
    .await;
    assert_eq!(serving(&server, "web").await, ["alice"]);
    assert_eq!(get(server.http, "web.localhost", "/who").await.status, 200);
    let (done, text) = release(&server, "group", "alice");
    assert!(!done && text.contains("in use"), "{text}");
    bob.kill();
    alice.kill();
    written(&server, "web.localhost").await;
    server.restart().await;
    let mut bob = Client::spawn(takeover.clone());
    eventually("the refusal after the restart", PATIENCE, async || {
        bob.process()
            .stderr()
            .contains("belongs to another user")
            .then_some(())
    })
    .await;
    bob.kill();
    let (done, text) = release(&server, "group", "alice");
    assert!(done && text.contains("released group `alice`"), "{text}");
    let mut bob = Client::start(takeover).await;
    assert_eq!(serving(&server, "web").await, ["bob2"]);
    written(&server, "bob2").await;
    bob.kill();
    // Without a running server the command edits the file.
    server.kill();
    let (done, text) = release(&server, "client", "bob2");
    assert!(done && text.contains("client id `bob2`"), "{text}");
    let (done, text) = release(&server, "client", "bob2");
    assert!(!done && text.contains("has no owner"), "{text}");
}
