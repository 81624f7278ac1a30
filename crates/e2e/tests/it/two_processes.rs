//! Two commands without a file: the first use, and its errors.
//! F26 (files, variables, flags), F43 (command line), P-1.3, P-1.4, and the responses to bad input.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Process, Server, ServerOptions, Service, World, binary, count,
    eventually, get, run, stays,
};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

/// `adit http PORT` with no settings but the state directory.
fn bare_client(state: &std::path::Path, port: u16) -> Process {
    let env = [("ADIT__STATE_DIR".to_owned(), state.display().to_string())];
    let args = ["http", &port.to_string()];
    Process::spawn("adit", &binary("adit"), &args, &env, state)
}

/// F43: the first line of output is only the URL; the service can be reached under it.
async fn first_line_leads_to_the_service(client: &mut Process, server: &Server, service: &Service) {
    let url = client.first_line().await;
    let host = format!("http-{}.localhost:{}", service.port(), server.http.port());
    assert_eq!(url, format!("http://{host}"));
    let response = get(server.http, &host, "/who").await;
    assert_eq!(
        (response.status.as_u16(), response.text().as_str()),
        (200, "site")
    );
}

/// F43: two short commands in two terminals are a working tunnel.
#[tokio::test]
async fn two_commands_without_a_file_are_a_tunnel() {
    let service = Service::site("site").await;
    let server = Server::plain().await;
    let mut client = bare_client(server.state(), service.port());
    first_line_leads_to_the_service(&mut client, &server, &service).await;
}

/// F43: the order of the two commands does not matter.
#[tokio::test]
async fn the_client_may_be_started_first() {
    let service = Service::site("site").await;
    let state = Arc::new(tempfile::tempdir().unwrap());
    let mut client = bare_client(state.path(), service.port());
    eventually("a client that says it waits", SOON, async || {
        client.assert_running();
        client
            .stderr()
            .contains("waiting for an adit-server")
            .then_some(())
    })
    .await;
    let server = Server::start(ServerOptions {
        state: Some(state),
        ..ServerOptions::default()
    })
    .await;
    first_line_leads_to_the_service(&mut client, &server, &service).await;
}

/// Only the owner can read the token that a server generates.
#[tokio::test]
async fn the_generated_token_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let server = Server::plain().await;
    let mode = fs::metadata(server.token_file())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// F26, F43: `adit start` serves every tunnel of a file, each public URL on a line.
#[tokio::test]
async fn a_file_with_two_tunnels_is_served() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let server = Server::with("server:\n  timeouts: { startup_grace: 0s }\n").await;
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: first, type: http, local_port: {}, domain: first.test }}\n    - {{ name: second, type: http, local_port: {}, domains: [second.test], locations: [/who] }}\n",
        one.port(),
        two.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    let port = server.http.port();
    assert_eq!(
        client.process().first_line().await,
        format!("http://first.test:{port}")
    );
    let parsed = client.process().stdout();
    assert_eq!(
        parsed.lines().nth(1),
        Some(format!("http://second.test:{port}/who").as_str())
    );
    assert_eq!(get(server.http, "first.test", "/who").await.text(), "one");
    assert_eq!(get(server.http, "second.test", "/who").await.text(), "two");
    // F25: only this path is served.
    let other = get(server.http, "second.test", "/other").await;
    assert_eq!((other.status.as_u16(), other.reason()), (404, "no_tunnel"));
    let status = server.status().await;
    assert_eq!(status["tunnels"].as_array().map(Vec::len), Some(2));
}

/// F43: `adit status --json` shows both sides of this machine.
#[tokio::test]
async fn status_shows_server_and_client() {
    let world = World::site().await;
    let state = world.server.state();
    let state_text = state.display().to_string();
    let env = [("ADIT__STATE_DIR", state_text.as_str())];
    let shown = run("adit", &["status", "--json"], &env, state).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    let parsed: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(parsed["server"]["clients"][0]["client_id"], "client-1");
    assert_eq!(parsed["server"]["tunnels"][0]["name"], "web");
    assert_eq!(parsed["clients"][0]["client_id"], "client-1");
    assert_eq!(parsed["clients"][0]["connection"], "connected");
    let text = run("adit", &["status"], &env, state).await;
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    assert!(
        text.stdout.contains("web.localhost") && text.stdout.contains("client-1"),
        "{}",
        text.stdout
    );
}

/// F43: if no program runs, `adit status` reports that and the advice.
#[tokio::test]
async fn status_without_a_process_suggests_what_to_start() {
    let state = tempfile::tempdir().unwrap();
    let text = state.path().display().to_string();
    let shown = run(
        "adit",
        &["status"],
        &[("ADIT__STATE_DIR", &text)],
        state.path(),
    )
    .await;
    assert_eq!(shown.code, Some(1));
    assert!(shown.stderr.contains("adit-server"), "{}", shown.stderr);
}

/// F25: `adit route test` explains the choice, and fails when no rule matches the URL.
#[tokio::test]
async fn route_test_explains_the_choice() {
    let world = World::site().await;
    let state = world.server.state();
    let state_text = state.display().to_string();
    let env = [("ADIT__STATE_DIR", state_text.as_str())];
    let found = run(
        "adit",
        &["route", "test", "http://web.localhost/a?b=c"],
        &env,
        state,
    )
    .await;
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert!(found.stdout.contains("web"), "{}", found.stdout);
    let json = run(
        "adit",
        &["--json", "route", "test", "http://web.localhost/"],
        &env,
        state,
    )
    .await;
    let parsed: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(parsed["tunnel"], "web");
    let lost = run(
        "adit",
        &["route", "test", "http://unknown.test/"],
        &env,
        state,
    )
    .await;
    assert_eq!(lost.code, Some(1));
    assert!(
        lost.stderr.contains("http://unknown.test/"),
        "{}",
        lost.stderr
    );
}

/// F26: an invalid file ends the program with code 2, and the error states the place and the expected value.
#[tokio::test]
async fn a_bad_file_is_refused_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().display().to_string();
    let env = [("ADIT__STATE_DIR", state.as_str())];
    for (program, name, text, place, hint) in [
        (
            "adit-server",
            "a.yaml",
            "server:\n  bind_prot: 1\n",
            "a.yaml:2:3",
            "bind_port",
        ),
        (
            "adit-server",
            "b.yaml",
            "server:\n  http: { bind_port: many }\n",
            "b.yaml:2:22",
            "65535",
        ),
        (
            "adit-server",
            "c.yaml",
            "server:\n  limits: { max_requests: 0 }\n",
            "c.yaml:2:27",
            "1",
        ),
        (
            "adit-server",
            "d.toml",
            "[server]\nbind_port = \n",
            "d.toml:2:",
            "",
        ),
        (
            "adit",
            "e.yaml",
            "client:\n  tunnels:\n    - { name: web, type: http }\n",
            "e.yaml:3:",
            "local_port",
        ),
        ("adit", "f.yaml", "client:\n  tunnels: [\n", "f.yaml:", ""),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let args: &[&str] = match program {
            "adit" => &["start", "--config", &file],
            _ => &["--config", &file],
        };
        let refused = run(program, args, &env, dir.path()).await;
        assert_eq!(refused.code, Some(2), "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(place), "{name}: {}", refused.stderr);
        assert!(refused.stderr.contains(hint), "{name}: {}", refused.stderr);
    }
    // The error of a variable contains the name of the variable.
    let env = [env[0], ("ADIT__SERVER__BIND_PORT", "x")];
    let refused = run("adit-server", &[], &env, dir.path()).await;
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("ADIT__SERVER__BIND_PORT"),
        "{}",
        refused.stderr
    );
}

/// Only one server may use a public port: a second server fails with an error, and the first one is not affected.
#[tokio::test]
async fn a_second_server_on_the_same_port_is_refused() {
    let world = World::site().await;
    let server = &world.server;
    let other = tempfile::tempdir().unwrap();
    let state = other.path().display().to_string();
    let (ip, http) = (server.http.ip().to_string(), server.http.port().to_string());
    let env = [
        ("ADIT__STATE_DIR", state.as_str()),
        ("ADIT__SERVER__BIND_ADDR", &ip),
        ("ADIT__SERVER__BIND_PORT", "0"),
        ("ADIT__SERVER__HTTP__BIND_PORT", &http),
        ("ADIT__SERVER__ADMIN__BIND", "off"),
    ];
    let refused = run("adit-server", &[], &env, other.path()).await;
    assert_eq!(refused.code, Some(1));
    let addr = server.http.to_string();
    assert!(
        refused.stderr.contains(&addr) && refused.stderr.contains("in use"),
        "{}",
        refused.stderr
    );
    assert!(!other.path().join("server.json").exists());
    assert_eq!(world.get("/who").await.text(), "site");
}

/// P-1.4: a host that another group holds is refused with the holder's name, and served once the holder has drained.
#[tokio::test]
async fn a_host_taken_by_another_group_is_refused_by_name() {
    let mut world = World::site().await;
    let addr: SocketAddr = world.service().addr;
    let options = ClientOptions::http(&world.server, "newcomer", "web", addr);
    let mut newcomer = Client::spawn(options);
    eventually("the refusal", SOON, async || {
        let text = newcomer.process().stderr();
        (text.contains("client-1") && text.contains("web.localhost")).then_some(())
    })
    .await;
    assert_eq!(world.get("/who").await.text(), "site");
    world.client.terminate();
    world.client.exit(SOON).await;
    eventually("the newcomer is served", SOON, async || {
        (world.get("/who").await.status == 200).then_some(())
    })
    .await;
}

/// P-1.4: the refusal of one tunnel does not affect the other tunnels of the same client.
#[tokio::test]
async fn one_refused_tunnel_leaves_the_others_standing() {
    let world = World::site().await;
    let port = world.service().port();
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: web, type: http, local_port: {port} }}\n    - {{ name: mine, type: http, local_port: {port} }}\n"
    );
    let client = Client::start(ClientOptions::file(&world.server, "second", &config)).await;
    let status = client.status().await;
    let error = status["tunnels"][0]["error"].as_str().unwrap_or_default();
    assert!(error.contains("client-1"), "{status}");
    assert_eq!(status["tunnels"][1]["error"], Value::Null);
    assert_eq!(
        get(world.server.http, "mine.localhost", "/who")
            .await
            .text(),
        "site"
    );
}

/// P-1.3: a wrong token is refused with an explanation, and tried again only after the longest delay.
#[tokio::test]
async fn a_bad_token_is_refused_without_a_retry_storm() {
    let service = Service::site("site").await;
    let server = Server::plain().await;
    let state = tempfile::tempdir().unwrap();
    let token = state.path().join("wrong");
    fs::write(&token, "0".repeat(64)).unwrap();
    let options = ClientOptions::http(&server, "stranger", "web", service.addr)
        .arg("--server", &server.tunnel.to_string())
        .arg("--token-file", &token.display().to_string());
    let mut client = Client::spawn(ClientOptions {
        state: state.path().to_path_buf(),
        ..options
    });
    eventually("a refusal in words", SOON, async || {
        let log = client.process().stderr();
        (log.contains("credential") || log.contains("token")).then_some(())
    })
    .await;
    if client.process().has_ended() {
        return;
    }
    // The usual backoff would dial five times in this time.
    stays(
        "one dial and no more",
        Duration::from_secs(2),
        async || match client.admin() {
            Some(_) => count(&client.status().await, "/cores/reconnect_dials") <= 1,
            None => true,
        },
    )
    .await;
    let clients = server.status().await["clients"].as_array().map(Vec::len);
    assert_eq!(clients, Some(0));
}

/// SIGHUP reads the file again; an invalid one changes nothing and is reported.
#[tokio::test]
async fn a_bad_file_on_reload_changes_nothing() {
    let mut server = Server::with("server:\n  max_clients: 10\n").await;
    fs::write(
        server.state().join("server.yaml"),
        "server:\n  max_clients: ten\n",
    )
    .unwrap();
    server.process().signal("HUP");
    eventually("a word about the bad file", SOON, async || {
        let log = server.process().stderr() + &server.process().stdout();
        log.contains("nothing has changed").then_some(())
    })
    .await;
    server.process().assert_running();
    assert_eq!(server.status().await["phase"], "running");
}
