//! Users, tokens and keys by the command line, and what their scopes allow: F33, F34.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Raw, Server, Service, eventually, get, run};
use http::StatusCode;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// Runs `adit-server` on the state directory of the server.
async fn admin(server: &Server, args: &[&str]) -> String {
    let done = attempt("adit-server", server.state(), args).await;
    assert_eq!(done.code, Some(0), "{args:?}: {}", done.stderr);
    done.stdout.trim().to_owned()
}

async fn attempt(program: &str, state: &Path, args: &[&str]) -> adit_e2e::Run {
    let dir = state.display().to_string();
    let logs = tempfile::tempdir().unwrap();
    run(program, args, &[("ADIT__STATE_DIR", &dir)], logs.path()).await
}

/// A client of `group` with this credential, in a directory of its own, with these tunnels.
fn client(
    server: &Server,
    id: &str,
    group: &str,
    credential: &str,
    tunnels: &str,
) -> ClientOptions {
    let config = format!(
        "client:\n  group_id: {group}\n  auth_token: {credential}\n  server_addr: {}\n  server_port: {}\n  reconnect: \
         {{ initial_delay: 50ms, max_delay: 200ms }}\n  tunnels: {tunnels}\n",
        server.tunnel.ip(),
        server.tunnel.port()
    );
    let mut options = ClientOptions::file(server, id, &config);
    options.state = server.state().join(format!("of-{id}"));
    fs::create_dir_all(&options.state).unwrap();
    options
}

fn web(service: &Service) -> String {
    format!("[{{ name: web, local_port: {} }}]", service.addr.port())
}

async fn responds(http: SocketAddr) {
    responds_at(http, HOST).await;
}

async fn responds_at(http: SocketAddr, host: &str) {
    eventually("a response", SOON, async || {
        let response = get(http, host, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
}

/// Waits for a text in the log of a client.
async fn logs(client: &mut Client, text: &str) {
    eventually(text, SOON, async || {
        let log = client.process().stderr();
        log.contains(text).then_some(())
    })
    .await;
}

async fn list(server: &Server, what: &str) -> Vec<Value> {
    let text = admin(server, &[what, "list", "--json"]).await;
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test]
async fn a_revoked_key_ends_its_link_and_running_requests() {
    let server = Server::plain().await;
    let service = Service::site("site").await;
    admin(&server, &["user", "add", "alice", "--group", "office"]).await;
    let key = admin(&server, &["key", "add", "alice", "--label", "laptop"]).await;
    assert!(key.starts_with("adit_key_"), "{key}");
    let mut connected =
        Client::start(client(&server, "laptop", "office", &key, &web(&service))).await;
    responds(server.http).await;
    // A request that runs while the key is revoked, and that is not sent to another client.
    let mut running = Raw::connect(server.http).await;
    running
        .send(format!(
            "POST /held HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: 0\r\n\r\n"
        ))
        .await;
    let keys = list(&server, "key").await;
    let [listed] = &keys[..] else {
        panic!("{keys:?}")
    };
    let id = listed["id"].as_str().unwrap();
    assert_eq!(
        (&listed["label"], &listed["state"]),
        (&"laptop".into(), &"valid".into())
    );
    assert_eq!(&key["adit_key_".len()..][..12], id);
    admin(&server, &["key", "revoke", id]).await;
    running.read_text("adit-reason: link_lost").await;
    logs(&mut connected, "did not accept these credentials").await;
    logs(&mut connected, "trying again in").await;
    // Nothing that is kept or written shows the secret.
    let secret = &key["adit_key_".len() + 13..];
    for entry in fs::read_dir(server.state()).unwrap() {
        let path = entry.unwrap().path();
        // The file of the client has it.
        let is_of_client = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        if path.is_file() && !is_of_client {
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    let mode = fs::metadata(server.state().join("identities.json")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    let status = server.status().await.to_string();
    assert!(!status.contains(secret) && !connected.process().stderr().contains(secret));
}

/// The commands wait until the server has read a change: a client that comes at once is not refused, and does not wait for
/// its longest delay.
#[tokio::test]
async fn a_new_key_is_accepted_at_once() {
    let server = Server::plain().await;
    let service = Service::site("site").await;
    admin(&server, &["user", "add", "alice"]).await;
    for number in 0..4 {
        let key = admin(&server, &["key", "add", "alice"]).await;
        let id = format!("laptop-{number}");
        let options = client(&server, &id, "office", &key, &web(&service));
        let mut connected = Client::start(options).await;
        let log = connected.process().stderr();
        assert!(!log.contains("did not accept"), "{log}");
    }
}

#[tokio::test]
async fn a_change_without_a_server_is_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let done = attempt("adit-server", dir.path(), &["user", "add", "alice"]).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("when one starts"), "{}", done.stderr);
    let dir = tempfile::tempdir().unwrap();
    let done = attempt("adit", dir.path(), &["user", "add", "alice"]).await;
    assert_eq!(done.code, Some(2));
    let text = "no adit-server has used the state directory";
    assert!(done.stderr.contains(text), "{}", done.stderr);
    assert!(!dir.path().join("identities.json").exists());
}

#[tokio::test]
async fn lost_records_stay_in_force_and_are_not_begun_anew_unasked() {
    let mut server = Server::plain().await;
    let service = Service::site("site").await;
    admin(&server, &["user", "add", "alice"]).await;
    let key = admin(&server, &["key", "add", "alice"]).await;
    let options = client(&server, "laptop", "office", &key, &web(&service));
    let mut connected = Client::start(options).await;
    responds(server.http).await;
    let epoch = server.status().await["clients"][0]["epoch"].clone();
    let records = server.state().join("identities.json");
    let content = fs::read(&records).unwrap();
    fs::remove_file(&records).unwrap();
    let refused = attempt("adit-server", server.state(), &["user", "add", "bob"]).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("is gone"), "{}", refused.stderr);
    // Begun anew on purpose, it is for the next start.
    fs::remove_file(server.state().join("identities.lock")).unwrap();
    admin(&server, &["user", "add", "bob"]).await;
    eventually("the other set in the log", SOON, async || {
        let log = server.process().stderr();
        log.contains("another set of users").then_some(())
    })
    .await;
    responds(server.http).await;
    assert_eq!(server.status().await["clients"][0]["epoch"], epoch);
    // The old set, put back, is followed as before.
    fs::write(&records, content).unwrap();
    admin(&server, &["user", "revoke", "alice"]).await;
    logs(&mut connected, "did not accept these credentials").await;
}

#[tokio::test]
async fn both_programs_have_the_same_commands() {
    let server = Server::plain().await;
    let by_client = attempt("adit", server.state(), &["user", "add", "bob"]).await;
    assert_eq!(by_client.code, Some(0), "{}", by_client.stderr);
    let again = attempt("adit-server", server.state(), &["user", "add", "bob"]).await;
    assert_eq!(again.code, Some(2));
    assert!(
        again.stderr.contains("user bob exists already"),
        "{}",
        again.stderr
    );
    let unknown = attempt("adit", server.state(), &["key", "add", "eve"]).await;
    assert!(
        unknown.stderr.contains("user add eve"),
        "{}",
        unknown.stderr
    );
    let wrong = attempt(
        "adit",
        server.state(),
        &["user", "add", "x", "--port", "9-8"],
    )
    .await;
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("2200-2299"), "{}", wrong.stderr);
    let token = admin(&server, &["token", "add", "bob"]).await;
    let service = Service::site("site").await;
    let _client = Client::start(client(&server, "bobs", "bobs", &token, &web(&service))).await;
    responds(server.http).await;
    let users = list(&server, "user").await;
    assert_eq!(users[0]["name"], "bob");
}

/// A user joins no group, tunnel, host or port of another one.
#[tokio::test]
async fn a_user_cannot_take_the_names_of_another() {
    let server = Server::plain().await;
    let service = Service::site("site").await;
    for user in ["alice", "mallory"] {
        admin(&server, &["user", "add", user]).await;
    }
    let alice = admin(&server, &["key", "add", "alice"]).await;
    let mallory = admin(&server, &["key", "add", "mallory"]).await;
    let port = adit_e2e::own_address();
    let free = std::net::TcpListener::bind((port, 0)).unwrap();
    let remote = free.local_addr().unwrap().port();
    drop(free);
    let local = service.addr.port();
    let both = format!(
        "[{{ name: web, local_port: {local}, domain: web.localhost }}, {{ name: ssh, type: tcp, local_port: {local}, \
         remote_port: {remote} }}]"
    );
    let _owner = Client::start(client(&server, "owner", "office", &alice, &both)).await;
    responds(server.http).await;
    // The same group.
    let mut joins = Client::spawn(client(&server, "thief", "office", &mallory, &both));
    logs(&mut joins, "group `office` belongs to another user").await;
    // The same client id.
    let mut poses = Client::spawn(ClientOptions {
        id: "owner".into(),
        ..client(&server, "poses", "elsewhere", &mallory, &both)
    });
    logs(&mut poses, "client id `owner` belongs to another user").await;
    // The same tunnel: host and port, from a group of its own.
    let mut takes = Client::spawn(client(&server, "takes", "mine", &mallory, &both));
    logs(
        &mut takes,
        "is held by tunnel `web` of group `office`, of another user",
    )
    .await;
    logs(
        &mut takes,
        "is held by tunnel `ssh` of group `office`, of another user",
    )
    .await;
    let status = server.status().await;
    for tunnel in status["tunnels"].as_array().unwrap() {
        assert_eq!(tunnel["clients"], serde_json::json!(["owner"]), "{tunnel}");
    }
}

#[tokio::test]
async fn a_scope_is_named_by_the_refusal() {
    let server = Server::plain().await;
    let service = Service::site("site").await;
    let scopes = [
        "user",
        "add",
        "carol",
        "--group",
        "lab-*",
        "--host",
        "*.lab.example",
    ];
    admin(&server, &scopes).await;
    let key = admin(&server, &["key", "add", "carol", "--max-tunnels", "1"]).await;
    let local = service.addr.port();
    let mut outside = Client::spawn(client(&server, "c1", "office", &key, &web(&service)));
    logs(
        &mut outside,
        "group `office` is outside the scopes of user `carol`: `groups` allows lab-*",
    )
    .await;
    let tunnels = format!("[{{ name: web, local_port: {local}, domain: web.example.com }}]");
    let mut host = Client::spawn(client(&server, "c2", "lab-2", &key, &tunnels));
    logs(&mut host, "`hosts` allows *.lab.example").await;
    let two = format!(
        "[{{ name: a, local_port: {local}, domain: a.lab.example }}, {{ name: b, local_port: {local}, domain: b.lab.example }}]"
    );
    let mut number = Client::spawn(client(&server, "c3", "lab-3", &key, &two));
    logs(&mut number, "`max_tunnels` of its scopes").await;
    // Changed scopes reach a connected client: its link ends, and it registers again.
    admin(&server, &["key", "set", &key["adit_key_".len()..][..12]]).await;
    responds_at(server.http, "a.lab.example").await;
    responds_at(server.http, "b.lab.example").await;
    admin(&server, &["user", "set", "carol", "--group", "other"]).await;
    logs(
        &mut number,
        "group `lab-3` is outside the scopes of user `carol`: `groups` allows other",
    )
    .await;
    admin(&server, &["user", "revoke", "carol"]).await;
    logs(&mut number, "did not accept these credentials").await;
}

#[tokio::test]
async fn every_wrong_credential_gets_the_same_answer() {
    let server = Server::plain().await;
    let service = Service::site("site").await;
    admin(&server, &["user", "add", "dave"]).await;
    let good = admin(&server, &["key", "add", "dave"]).await;
    let expired = admin(&server, &["key", "add", "dave", "--expires", "1s"]).await;
    let revoked = admin(&server, &["key", "add", "dave"]).await;
    let id = revoked["adit_key_".len()..][..12].to_owned();
    admin(&server, &["key", "revoke", &id]).await;
    eventually("an expired key", SOON, async || {
        let keys = list(&server, "key").await;
        { keys.iter() }
            .any(|key| key["state"] == "expired")
            .then_some(())
    })
    .await;
    let mut texts = Vec::new();
    for (number, wrong) in ["an-unknown-token-of-some-length", &expired, &revoked]
        .into_iter()
        .enumerate()
    {
        let options = client(
            &server,
            &format!("d{number}"),
            "dave",
            wrong,
            &web(&service),
        );
        let mut refused = Client::spawn(options);
        logs(&mut refused, "did not accept these credentials").await;
        let log = refused.process().stderr();
        let line = log
            .lines()
            .find(|line| line.contains("did not accept"))
            .unwrap();
        texts.push(line[line.find("the server did not").unwrap()..].to_owned());
        assert!(
            !log.contains("expired") && !log.contains("revoked"),
            "{log}"
        );
    }
    assert!(texts.windows(2).all(|two| two[0] == two[1]), "{texts:?}");
    let _client = Client::start(client(&server, "d9", "dave", &good, &web(&service))).await;
    responds(server.http).await;
    let status = server.status().await;
    assert!(status["refusals"]["denied"].as_u64() >= Some(3), "{status}");
}
