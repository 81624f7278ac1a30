//! Layers of a configuration: their order, their tunnel, and changes while the programs run. F44, F26, P-1.16.

use std::{fs, time::Duration};

use adit_e2e::{
    Client, ClientOptions, FullResponse, Server, Service, Visitor, empty, eventually, get,
};
use http::StatusCode;

const SOON: Duration = Duration::from_secs(30);
const ID: &str = "office";

/// A client's file with the tunnels `web` and `plain`, of which `web` has these layers.
fn file(service: &Service, layers: &str) -> String {
    let port = service.port();
    format!(
        "client:\n  tunnels:\n    - {{ name: plain, local_port: {port} }}\n    - name: web\n      \
         local_port: {port}\n      layers: {layers}\n"
    )
}

/// Replaces the client's file by `config`, and sends SIGHUP.
fn change(server: &Server, client: &mut Client, config: &str) {
    let file = server.state().join(format!("{ID}.yaml"));
    let aside = file.with_extension("new");
    fs::write(&aside, config).unwrap();
    fs::rename(&aside, &file).unwrap();
    client.process().signal("HUP");
}

/// The response to a visitor, once it has this status.
async fn responds_with(visitor: &mut Visitor, path: &str, status: u16) -> FullResponse {
    eventually("a response of the changed layers", SOON, async || {
        let response = visitor.get(path).await;
        (response.status == status).then_some(response)
    })
    .await
}

const GUARDED: &str = "[{ response_headers: { set: { x-tunnel: web } } }, \
     { require_header: { name: x-key, values: [the-key] } }]";
/// The layers of `GUARDED` in the other order.
const UNMARKED: &str = "[{ require_header: { name: x-key, values: [the-key] } }, \
     { response_headers: { set: { x-tunnel: web } } }]";
const CLOSED: &str =
    "[{ respond: { status: 503, headers: { retry-after: \"600\" }, body: noon } }]";

#[tokio::test]
async fn p_1_16_layers_of_a_tunnel_follow_the_file() {
    let service = Service::site("site").await;
    let server = Server::plain().await;
    let options = ClientOptions::file(&server, ID, &file(&service, GUARDED));
    let mut client = Client::start(options).await;
    // The same connection is used for all changes.
    let mut visitor = Visitor::http1(server.http, "web.localhost").await;
    let refused = responds_with(&mut visitor, "/who", 403).await;
    assert_eq!(refused.header("x-tunnel"), "web");
    assert_eq!(service.stats.begun(), 0);
    let mut request = visitor.request(&http::Method::GET, "/who", empty());
    let key = http::HeaderValue::from_static("the-key");
    request.headers_mut().insert("x-key", key);
    let response = visitor.whole(request).await.unwrap();
    assert_eq!(
        (response.status, &*response.text()),
        (StatusCode::OK, "site")
    );
    assert_eq!(response.header("x-tunnel"), "web");
    let plain = get(server.http, "plain.localhost", "/who").await;
    assert_eq!(plain.status, StatusCode::OK);
    assert!(!plain.headers.contains_key("x-tunnel"));

    change(&server, &mut client, &file(&service, UNMARKED));
    eventually("the other order", SOON, async || {
        let response = visitor.get("/who").await;
        assert_eq!(response.status, StatusCode::FORBIDDEN);
        (!response.headers.contains_key("x-tunnel")).then_some(())
    })
    .await;
    change(&server, &mut client, &file(&service, CLOSED));
    let closed = responds_with(&mut visitor, "/who", 503).await;
    assert_eq!(
        (closed.header("retry-after"), &*closed.text()),
        ("600", "noon")
    );
    change(&server, &mut client, &file(&service, "[]"));
    assert_eq!(
        responds_with(&mut visitor, "/who", 200).await.text(),
        "site"
    );
}

#[tokio::test]
async fn p_1_16_layers_beyond_the_bounds_of_the_server_refuse_the_tunnel() {
    let service = Service::site("site").await;
    let server = Server::with("server: { limits: { max_layers_per_tunnel: 1 } }\n").await;
    let options = ClientOptions::file(&server, ID, &file(&service, GUARDED));
    let client = Client::start(options).await;
    let error = eventually("a refusal", SOON, async || {
        let status = client.status().await;
        let error = status["tunnels"][1]["error"].as_str();
        error.map(str::to_owned)
    })
    .await;
    assert!(
        error.contains("server.limits.max_layers_per_tunnel"),
        "{error}"
    );
    let plain = get(server.http, "plain.localhost", "/who").await;
    assert_eq!(plain.status, StatusCode::OK);
}

/// A server's file with layers before routing, and others on a rule to an upstream.
fn server_file(service: &Service, layers: &str, of_rule: &str) -> String {
    format!(
        "server:\n  timeouts: {{ startup_grace: 0s }}\n  layers: {layers}\n  \
         upstreams: [{{ name: erp, servers: [{{ address: \"{}\" }}] }}]\n  \
         rules: [{{ host: erp.internal, to: {{ upstream: erp }}, layers: {of_rule} }}]\n",
        service.addr
    )
}

#[tokio::test]
async fn server_layers_hold_for_every_request_and_follow_the_file() {
    let service = Service::site("erp").await;
    let marked = "[{ response_headers: { set: { x-server: \"1\" } } }]";
    let by_rule = "[{ response_headers: { set: { x-rule: \"1\" } } }]";
    let mut server = Server::with(&server_file(&service, marked, by_rule)).await;
    let mut visitor = Visitor::http1(server.http, "erp.internal").await;
    let response = visitor.get("/who").await;
    assert_eq!(
        (response.status, &*response.text()),
        (StatusCode::OK, "erp")
    );
    assert_eq!(
        (response.header("x-server"), response.header("x-rule")),
        ("1", "1")
    );
    let unknown = get(server.http, "unknown.internal", "/").await;
    assert_eq!(unknown.reason(), "no_tunnel");
    assert_eq!(unknown.header("x-server"), "1");
    assert!(!unknown.headers.contains_key("x-rule"));

    // The existing connection has the new layers.
    server.replace_config(&server_file(&service, CLOSED, "[]"));
    server.process().signal("HUP");
    let closed = responds_with(&mut visitor, "/who", 503).await;
    assert_eq!(closed.text(), "noon");
    server.replace_config(&server_file(&service, "[]", "[]"));
    server.process().signal("HUP");
    let response = responds_with(&mut visitor, "/who", 200).await;
    assert!(!response.headers.contains_key("x-rule"));
}

#[tokio::test]
async fn layers_of_an_entry_hold_before_requests_cross() {
    let service = Service::site("erp").await;
    let server = Server::with(&server_file(&service, "[]", "[]")).await;
    let entry = "client:\n  entries:\n    - name: erp\n      listen: 0\n      upstream: erp\n      \
         layers: [{ response_headers: { set: { x-entry: \"1\" } } }, \
         { redirect: { host: erp.example, status: 302 } }]\n";
    let client = Client::start(ClientOptions::file(&server, ID, entry)).await;
    let status = client.status().await;
    let listen = status["entries"][0]["listen"].as_str().unwrap();
    let listen = listen.parse().unwrap();
    let moved = get(listen, "erp.internal", "/who?a=b").await;
    assert_eq!(moved.status, StatusCode::FOUND);
    assert_eq!(moved.header("location"), "http://erp.example/who?a=b");
    assert_eq!(moved.header("x-entry"), "1");
    assert_eq!(service.stats.begun(), 0);
    let response = get(listen, "erp.example", "/who").await;
    assert_eq!(
        (response.status, &*response.text()),
        (StatusCode::OK, "erp")
    );
}
