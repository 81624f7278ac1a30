//! A server that applies changes of its configuration file while it runs: F26.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adit_e2e::{Client, ClientOptions, Server, Service, Visitor, World, count, eventually, get};
use http::StatusCode;
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);
const ERP: &str = "erp.internal";

/// A server's file with one upstream and a rule for it.
fn leading_to(service: SocketAddr) -> String {
    format!(
        "server:\n  upstreams: [{{ name: erp, servers: [{{ address: \"{service}\" }}] }}]\n  rules: [{{ host: {ERP}, to: {{ upstream: erp }} }}]\n"
    )
}

async fn clients(server: &Server) -> usize {
    let status = server.status().await;
    status["clients"].as_array().map_or(0, Vec::len)
}

#[tokio::test]
async fn an_added_rule_routes_and_a_removed_one_no_longer() {
    let service = Service::site("erp").await;
    let server = Server::with("server: { max_clients: 10 }\n").await;
    let status = server.status().await;
    assert_eq!(count(&status, "/config/revision"), 1);
    server.follows(&leading_to(service.addr), 2).await;
    let response = get(server.http, ERP, "/who").await;
    assert_eq!(
        (response.status, &*response.text()),
        (StatusCode::OK, "erp")
    );
    server
        .follows(
            "server: { max_clients: 10, timeouts: { startup_grace: 0s } }\n",
            3,
        )
        .await;
    let response = eventually("the end of the startup grace", SOON, async || {
        let response = get(server.http, ERP, "/who").await;
        (response.status != StatusCode::OK).then_some(response)
    })
    .await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn added_tokens_register_and_removed_ones_end_their_links() {
    let alice = "{ user: alice, token: token-of-alice-0123456789 }";
    let bob = "{ user: bob, token: token-of-bob-0123456789 }";
    let config = |tokens: &[&str]| format!("server: {{ auth: [{}] }}\n", tokens.join(", "));
    let server = Server::with(&config(&[alice])).await;
    let service = Service::site("site").await;
    let of = |user: &str| {
        ClientOptions::http(&server, user, user, service.addr)
            .arg("--server", &server.tunnel.to_string())
            .env("ADIT__TOKEN", &format!("token-of-{user}-0123456789"))
    };
    let _alice = Client::start(of("alice")).await;
    server.follows(&config(&[alice, bob]), 2).await;
    let _bob = Client::start(of("bob")).await;
    server.wait_for_clients(2).await;
    server.follows(&config(&[alice]), 3).await;
    // The client was disconnected together with the revision, not some time later.
    assert_eq!(clients(&server).await, 1);
    eventually("a refusal of the removed token", SOON, async || {
        let status = server.status().await;
        (count(&status, "/refusals/denied") > 0).then_some(())
    })
    .await;
    let status = server.status().await;
    assert_eq!(status["clients"][0]["user"], "alice");
    let response = get(server.http, "alice.localhost", "/who").await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_limit_holds_for_the_next_request() {
    let config = |permits: u32| {
        format!(
            "server: {{ limits: {{ max_requests: {permits} }}, timeouts: {{ permit_wait: 50ms }} }}\n"
        )
    };
    let service = Service::site("site").await;
    let world = World::configured(&config(10), service.addr).await;
    let mut held = world.http1().await;
    let held = tokio::spawn(async move { held.get("/held").await });
    eventually("a request that runs", SOON, async || {
        (service.stats.begun() == 1).then_some(())
    })
    .await;
    world.server.follows(&config(1), 2).await;
    let refused = world.get("/who").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.header("adit-reason"), "limit");
    world.server.follows(&config(10), 3).await;
    assert_eq!(world.get("/who").await.status, StatusCode::OK);
    service.release();
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_changed_timeout_holds_for_the_next_connection() {
    let service = Service::site("site").await;
    let world = World::configured("server: { max_clients: 10 }\n", service.addr).await;
    let mut before = world.http1().await;
    assert_eq!(before.get("/who").await.status, StatusCode::OK);
    let config = "server: { timeouts: { service: 200ms } }\n";
    world.server.follows(config, 2).await;
    let late = world.get("/held").await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(late.header("adit-reason"), "service_timeout");
    // A connection keeps the timeouts that it began with, and counts together with the others.
    let held = tokio::spawn(async move { before.get("/held").await });
    eventually("a second request that runs", SOON, async || {
        (service.stats.begun() == 3).then_some(())
    })
    .await;
    assert_eq!(world.get("/held").await.status, StatusCode::GATEWAY_TIMEOUT);
    service.release();
    assert_eq!(held.await.unwrap().status, StatusCode::OK);
    let status = world.server.status().await;
    assert_eq!(count(&status, "/visitors/requests"), 4);
}

#[tokio::test]
async fn requests_go_on_while_the_server_of_an_upstream_changes() {
    let (one, other) = (Service::site("one").await, Service::site("other").await);
    let server = Server::with(&leading_to(one.addr)).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let visitors: Vec<_> = (0..8)
        .map(|_| {
            let (addr, is_over) = (server.http, is_over.clone());
            tokio::spawn(async move {
                let mut visitor = Visitor::http1(addr, ERP).await;
                let mut by_other = 0;
                while !is_over.load(Ordering::Relaxed) || by_other == 0 {
                    let response = visitor.get("/who").await;
                    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
                    by_other += u64::from(response.text() == "other");
                }
            })
        })
        .collect();
    eventually("requests to the first server", SOON, async || {
        (one.stats.finished() > 50).then_some(())
    })
    .await;
    for revision in 2..8 {
        let next = if revision % 2 == 0 { &other } else { &one };
        server.follows(&leading_to(next.addr), revision).await;
        let before = next.stats.finished();
        eventually("requests to the next server", SOON, async || {
            (next.stats.finished() > before + 50).then_some(())
        })
        .await;
    }
    server.follows(&leading_to(other.addr), 8).await;
    is_over.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.await.unwrap();
    }
    eventually("closed connections to the first server", SOON, async || {
        (one.stats.connections() == 0).then_some(())
    })
    .await;
    let status = server.status().await;
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
}

/// The line and the column of the mistake are in the log, and the metric counts the rejected change.
#[tokio::test]
async fn an_invalid_file_changes_nothing_until_it_is_valid() {
    let good = "server:\n  max_clients: 10\n";
    let mut server = Server::with(good).await;
    server.replace_config("server:\n  max_clients: ten\n");
    let error = eventually("a rejected file", SOON, async || {
        let status = server.status().await;
        status["config"]["last_error"].as_str().map(str::to_owned)
    })
    .await;
    assert!(
        error.contains("server.yaml:2:16: server.max_clients"),
        "{error}"
    );
    let log = server.process().stderr() + &server.process().stdout();
    assert!(log.contains("server.yaml:2:16"), "{log}");
    let metrics = get(server.admin, &server.admin.to_string(), "/metrics")
        .await
        .text();
    for line in [
        "adit_config_revision 1\n",
        "adit_config_reloads_total{result=\"rejected\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line}{metrics}");
    }
    server.follows("server:\n  max_clients: 11\n", 2).await;
    let status = server.status().await;
    assert_eq!(status["config"]["last_error"], Value::Null);
    assert_eq!(count(&status, "/config/applied"), 1);
    assert_eq!(count(&status, "/config/rejected"), 1);
}

#[tokio::test]
async fn sighup_loads_the_file_and_names_what_needs_a_restart() {
    let mut server = Server::with("server: { threads: 1 }\n").await;
    server.process().signal("HUP");
    eventually("an unchanged configuration", SOON, async || {
        let log = server.process().stderr() + &server.process().stdout();
        log.contains("unchanged").then_some(())
    })
    .await;
    server
        .follows("server: { threads: 2, max_clients: 5 }\n", 2)
        .await;
    let status = server.status().await;
    let needs = &status["config"]["needs_restart"];
    assert_eq!(*needs, serde_json::json!(["server.threads"]));
}

#[tokio::test]
async fn a_changed_token_file_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alice.token");
    fs::write(&file, "token-of-alice-0123456789").unwrap();
    let config = format!(
        "server: {{ auth: {{ user: alice, token_file: {} }} }}\n",
        file.display()
    );
    let server = Server::with(&config).await;
    let service = Service::site("site").await;
    let options = ClientOptions::http(&server, "alice", "alice", service.addr)
        .arg("--server", &server.tunnel.to_string())
        .env("ADIT__TOKEN", "token-of-alice-0123456789");
    let _alice = Client::start(options).await;
    assert_eq!(clients(&server).await, 1);
    fs::write(&file, "another-token-of-alice").unwrap();
    eventually("the end of the link", SOON, async || {
        (clients(&server).await == 0).then_some(())
    })
    .await;
}
