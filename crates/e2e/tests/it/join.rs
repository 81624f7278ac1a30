//! Clients that join: enrolment keys, certificates of the server's own CA, and their renewal. F32, F33.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use adit_e2e::{
    Client, ClientOptions, HOST, Load, Run, Server, ServerOptions, Service, eventually, get, run,
};
use http::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(30);

/// A server with its own CA. Its address is on loopback, where TLS is off unless it is set.
async fn server() -> Server {
    Server::with("server: { tls: true }\n").await
}

async fn run_in(program: &str, state: &Path, args: &[&str], env: &[(&str, &str)]) -> Run {
    let dir = state.display().to_string();
    let mut all = vec![("ADIT__STATE_DIR", &*dir)];
    all.extend(env);
    let logs = tempfile::tempdir().unwrap();
    run(program, args, &all, logs.path()).await
}

/// Runs `adit-server` with the file of this server.
async fn admin(server: &Server, args: &[&str]) -> Run {
    let config = server.state().join("server.yaml").display().to_string();
    let mut all = vec!["--config", &*config];
    all.extend(args);
    run_in("adit-server", server.state(), &all, &[]).await
}

/// The line of `adit-server join` with these flags.
async fn invite(server: &Server, flags: &[&str]) -> String {
    let addr = server.tunnel.to_string();
    let mut args = vec!["join", "--public-addr", &*addr];
    args.extend(flags);
    let done = admin(server, &args).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    done.stdout.trim().to_owned()
}

async fn join(state: &TempDir, line: &str) -> Run {
    run_in("adit", state.path(), &["join"], &[("ADIT__JOIN", line)]).await
}

async fn joined(state: &TempDir, line: &str) {
    let done = join(state, line).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stdout.starts_with("joined "), "{}", done.stdout);
}

/// `adit http PORT` with nothing but the state directory.
fn http(state: &TempDir, service: &Service) -> ClientOptions {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    ClientOptions {
        id: "client-1".to_owned(),
        args: ["http", &service.addr.to_string(), "--name", "web"]
            .map(String::from)
            .to_vec(),
        env: vec![
            variable("ADIT__CLIENT__RECONNECT__INITIAL_DELAY", "50ms"),
            variable("ADIT__CLIENT__RECONNECT__MAX_DELAY", "200ms"),
        ],
        state: state.path().to_owned(),
    }
}

async fn responds(http: SocketAddr) {
    eventually("a response", SOON, async || {
        let response = get(http, HOST, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
}

async fn logs(client: &mut Client, text: &str) {
    eventually(text, SOON, async || {
        let log = client.process().stderr();
        log.contains(text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn p_1_19_two_commands_join_a_server_elsewhere() {
    let server = server().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let line = invite(&server, &[]).await;
    assert_eq!(line.lines().count(), 1);
    joined(&state, &line).await;
    let file = state.path().join("joined.json");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let _client = Client::start(http(&state, &service)).await;
    responds(server.http).await;
    // The key is used up, and was never written.
    let other = tempfile::tempdir().unwrap();
    let again = join(&other, &line).await;
    assert_eq!(again.code, Some(1));
    assert!(
        again.stderr.contains("it can be used once"),
        "{}",
        again.stderr
    );
    let records = fs::read_to_string(server.state().join("identities.json")).unwrap();
    let key = line.split('/').nth(1).unwrap();
    assert!(!records.contains(&key["adit_join_".len() + 13..]));
    let status = server.status().await;
    assert_eq!(status["clients"][0]["user"], "default");
}

/// The flags of the running server are not those of the command: the line follows the server.
#[tokio::test]
async fn the_line_is_of_the_server_that_runs() {
    let server = Server::start(ServerOptions {
        env: vec![("ADIT__SERVER__TLS".to_owned(), "true".to_owned())],
        ..ServerOptions::default()
    })
    .await;
    let args = ["join", "--public-addr", "127.0.0.1"];
    let done = run_in("adit-server", server.state(), &args, &[]).await;
    let status = server.status().await;
    let fingerprint = status["tls"]["ca_fingerprint"].as_str().unwrap();
    let line = done.stdout.trim();
    assert!(line.ends_with(fingerprint), "{line} {}", done.stderr);
    let port = server.tunnel.port();
    assert!(line.starts_with(&format!("127.0.0.1:{port}/")), "{line}");
}

#[tokio::test]
async fn a_line_of_another_server_is_refused() {
    let (server, other) = (server().await, server().await);
    let state = tempfile::tempdir().unwrap();
    let line = invite(&server, &[]).await;
    let theirs = invite(&other, &[]).await;
    let (key, _) = line.rsplit_once('/').unwrap();
    let (_, trust) = theirs.rsplit_once('/').unwrap();
    let refused = join(&state, &format!("{key}/{trust}")).await;
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("fingerprint"), "{}", refused.stderr);
    assert!(!state.path().join("joined.json").exists());
    // The key was not sent: it is still good.
    joined(&state, &line).await;
}

#[tokio::test]
async fn the_line_is_read_from_an_argument_with_a_warning_and_from_a_file() {
    let server = server().await;
    let state = tempfile::tempdir().unwrap();
    let line = invite(&server, &["--uses", "2"]).await;
    let by_argument = run_in("adit", state.path(), &["join", &line], &[]).await;
    assert_eq!(by_argument.code, Some(0), "{}", by_argument.stderr);
    let warning = "can read a command line";
    assert!(
        by_argument.stderr.contains(warning),
        "{}",
        by_argument.stderr
    );
    let file = state.path().join("line");
    fs::write(&file, format!("{line}\n")).unwrap();
    let file = file.display().to_string();
    let by_file = run_in("adit", state.path(), &["join", "--file", &file], &[]).await;
    assert_eq!(by_file.code, Some(0), "{}", by_file.stderr);
    let nothing = run_in("adit", state.path(), &["join"], &[]).await;
    assert_eq!(nothing.code, Some(2));
    assert!(
        nothing.stderr.contains("adit-server join"),
        "{}",
        nothing.stderr
    );
    let wrong = join(&state, "hello").await;
    assert_eq!(wrong.code, Some(2));
    assert!(
        wrong.stderr.contains("HOST:PORT/KEY/TRUST"),
        "{}",
        wrong.stderr
    );
}

#[tokio::test]
async fn a_joined_client_waits_for_approval_and_ends_with_its_certificate() {
    let server = server().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let line = invite(&server, &["--approve"]).await;
    joined(&state, &line).await;
    let mut client = Client::spawn(http(&state, &service));
    let listed = admin(&server, &["ca", "list", "--json"]).await.stdout;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[0]["state"], "awaits approval");
    let id = listed[0]["id"].as_str().unwrap();
    logs(&mut client, &format!("adit-server key approve {id}")).await;
    admin(&server, &["key", "approve", id]).await;
    responds(server.http).await;
    admin(&server, &["ca", "revoke", id]).await;
    logs(&mut client, "did not accept these credentials").await;
    let log = client.process().stderr();
    assert!(log.contains("`adit join`"), "{log}");
}

#[tokio::test]
async fn a_server_without_its_own_ca_gives_a_key() {
    let server = Server::plain().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let addr = server.tunnel.to_string();
    let args = ["join", "--public-addr", &addr];
    let done = run_in("adit-server", server.state(), &args, &[]).await;
    let line = done.stdout.trim();
    assert!(line.ends_with("/clear"), "{line} {}", done.stderr);
    // Clear text is for this machine alone.
    let elsewhere = ["join", "--public-addr", "tunnel.example.com"];
    let refused = run_in("adit-server", server.state(), &elsewhere, &[]).await;
    assert!(refused.stderr.contains("--bind-addr"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    joined(&state, line).await;
    let text = fs::read_to_string(state.path().join("joined.json")).unwrap();
    assert!(text.contains("adit_key_"), "{text}");
    let _client = Client::start(http(&state, &service)).await;
    responds(server.http).await;
}

#[tokio::test]
async fn an_administrator_issues_a_certificate_without_a_join() {
    let server = server().await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    admin(&server, &["user", "add", "alice"]).await;
    let (addr, out) = (server.tunnel.to_string(), state.path().join("joined.json"));
    let out = out.display().to_string();
    let args = [
        "ca",
        "issue",
        "alice",
        "--client-id",
        "office-1",
        "--public-addr",
        &addr,
        "--out",
        &out,
    ];
    let done = admin(&server, &args).await;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let again = admin(&server, &args).await;
    assert_eq!(again.code, Some(2), "{}", again.stderr);
    assert!(again.stderr.contains("exists already"), "{}", again.stderr);
    let _client = Client::start(http(&state, &service)).await;
    responds(server.http).await;
    let status = server.status().await;
    assert_eq!(status["clients"][0]["user"], "alice");
}

/// The certificates of server and client and the CA are replaced every few seconds: no request fails, and after a restart
/// of the server, long after the first CA has expired, the client trusts the newest one.
#[tokio::test]
async fn everything_is_replaced_under_load() {
    let config = "server: { tls: { certificate_lifetime: 6s, ca_lifetime: 9s } }\n";
    let mut server = Server::with(config).await;
    let (service, state) = (Service::site("site").await, tempfile::tempdir().unwrap());
    let line = invite(&server, &[]).await;
    joined(&state, &line).await;
    let mut client = Client::start(http(&state, &service)).await;
    let load = Load::start(server.http, HOST, "site").await;
    let kept = |name: &str| {
        let text = fs::read_to_string(state.path().join("joined.json")).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        all.pointer(name).unwrap().clone()
    };
    for _ in 0..3 {
        for name in ["/credential/certificate/certificate", "/trust/own_ca"] {
            let before = kept(name);
            eventually("another certificate and CA", SOON, async || {
                (kept(name) != before).then_some(())
            })
            .await;
        }
        load.goes_on().await;
    }
    load.stop().await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
    // A certificate that outlives the restart, however slow the machine is.
    let long = "server: { tls: { certificate_lifetime: 1h, ca_lifetime: 2h } }\n";
    server.follows(long, 2).await;
    let expires = || kept("/credential/certificate/expires_at").as_u64().unwrap();
    let issued = || kept("/credential/certificate/issued_at").as_u64().unwrap();
    eventually("a certificate for an hour", SOON, async || {
        (expires() - issued() > 1_000).then_some(())
    })
    .await;
    server.restart().await;
    responds(server.http).await;
    let log = client.process().stderr();
    assert!(
        !log.contains("expired") && !log.contains("not renew"),
        "{log}"
    );
}
