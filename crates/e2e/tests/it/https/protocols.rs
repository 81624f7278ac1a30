//! All protocols of visitors over TLS.

use std::path::Path;

use adit_e2e::{
    Server, Service, Visitor, eventually, get, python::PythonService, run_program, within,
};
use futures_util::{SinkExt, StreamExt};
use http::{StatusCode, Version};
use serde_json::Value;
use tokio_tungstenite::{client_async, tungstenite::Message};
use tonic::transport::Endpoint;
use tower::service_fn;

use super::{Ca, SOON, tunnel, world, world_with};
use crate::grpc_tonic::{echo::echo_client::EchoClient, message, service};

/// The request as the service has received it.
async fn received(visitor: &mut Visitor) -> Value {
    let response = visitor.get("/request").await;
    assert_eq!(response.status, StatusCode::OK, "{}", response.text());
    serde_json::from_slice(&response.body).unwrap()
}

fn header<'v>(request: &'v Value, name: &str) -> &'v str {
    let lines = request["headers"].as_array().unwrap().iter();
    let mut found = lines.filter(|line| line[0] == name);
    found
        .next()
        .and_then(|line| line[1].as_str())
        .unwrap_or_default()
}

#[tokio::test]
async fn p_14_1_http_1_and_http_2_are_served_over_tls() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let (mut client, server, https) = world(
        &ca.keys("www"),
        &[
            tunnel("web", "www.example.com", &service),
            tunnel("plain", "plain.example.com", &service),
        ],
    )
    .await;
    let mut http1 = ca.http1(https, "www.example.com").await;
    let mut http2 = ca.http2(https, "www.example.com").await;
    for (visitor, version) in [
        (&mut http1, Version::HTTP_11),
        (&mut http2, Version::HTTP_2),
    ] {
        let request = received(visitor).await;
        assert_eq!(header(&request, "x-forwarded-proto"), "https");
        assert_eq!(header(&request, "host"), "www.example.com");
        let response = visitor.get("/bytes/300000").await;
        assert_eq!((response.version, response.body.len()), (version, 300_000));
    }
    // The port for HTTP stays as it was.
    let response = get(server.http, "www.example.com", "/who").await;
    assert_eq!(response.text(), "site");
    let status = server.status().await;
    let url = |name: &str| {
        let mut tunnels = status["tunnels"].as_array().unwrap().iter();
        let tunnel = tunnels.find(|tunnel| tunnel["name"] == name).unwrap();
        tunnel["public_url"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        url("web"),
        format!("https://www.example.com:{}", https.port())
    );
    assert_eq!(
        url("plain"),
        format!("http://plain.example.com:{}", server.http.port())
    );
    assert_eq!(
        status["https"]["certificates"][0]["names"][0],
        "www.example.com"
    );
    assert!(
        client.process().stdout().contains(&url("web")),
        "the client prints the URL"
    );
}

/// curl with its own TLS.
#[tokio::test]
async fn curl_verifies_the_certificate_and_gets_the_page() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["*.example.com"]);
    let tunnel = tunnel("web", "www.example.com", &service);
    let (_client, _server, https) = world(&ca.keys("www"), &[tunnel]).await;
    let url = format!("https://www.example.com:{}/who", https.port());
    let resolve = format!("www.example.com:{}:{}", https.port(), https.ip());
    let roots = ca.path("ca", "crt").display().to_string();
    for version in ["--http1.1", "--http2"] {
        let args = [
            "-sS",
            version,
            "--cacert",
            &roots,
            "--resolve",
            &resolve,
            "-w",
            " %{http_version}",
            &url,
        ];
        let run = run_program(Path::new("curl"), &args, &[], ca.dir(), SOON).await;
        let expected = if version == "--http2" {
            "site 2"
        } else {
            "site 1.1"
        };
        assert_eq!(run.stdout.trim(), expected, "{}", run.stderr);
    }
}

#[tokio::test]
async fn calls_of_grpc_cross_over_tls() {
    let ca = Ca::new();
    ca.issue("rpc", &["rpc.example.com"]);
    let service = service::Service::start("one").await;
    let port = service.addr.port();
    let tunnel = format!("name: rpc, type: grpc, domain: rpc.example.com, local_port: {port}");
    let (_client, _server, https) = world(&ca.keys("rpc"), &[tunnel]).await;
    let stream = ca.connect(https, "rpc.example.com", &["h2"]).await.unwrap();
    let mut stream = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| std::io::Error::other("used")) }
    });
    let channel = Endpoint::from_static("http://rpc.example.com")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut visitor = EchoClient::new(channel);
    let reply = within("a reply", SOON, visitor.unary(message("text", 7))).await;
    assert_eq!(reply.unwrap().into_inner(), message("text", 7));
    let sent = (0..100).map(|number| message("x", number));
    let collected = visitor.collect(tokio_stream::iter(sent)).await.unwrap();
    assert_eq!(collected.into_inner().count, 100);
}

#[tokio::test]
async fn websockets_cross_over_tls() {
    let ca = Ca::new();
    ca.issue("ws", &["ws.example.com"]);
    let service = PythonService::start("ws_service.py").await;
    let port = service.addr.port();
    let tunnel = format!("name: ws, type: websocket, domain: ws.example.com, local_port: {port}");
    let (mut client, _server, https) = world(&ca.keys("ws"), &[tunnel]).await;
    let stream = ca
        .connect(https, "ws.example.com", &["http/1.1"])
        .await
        .unwrap();
    let (mut socket, response) = client_async("wss://ws.example.com/echo", stream)
        .await
        .unwrap();
    assert_eq!(response.status(), 101);
    for text in ["one", "two"] {
        socket.send(Message::text(text)).await.unwrap();
        let reply = within("an echo", SOON, socket.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply, Message::text(text));
    }
    socket.close(None).await.unwrap();
    let url = format!("wss://ws.example.com:{}", https.port());
    assert!(client.process().stdout().contains(&url));
}

#[tokio::test]
async fn p_14_2_each_port_tells_what_it_is_for() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let tunnel = tunnel("web", "www.example.com", &service);
    let (_client, mut server, https) = world(&ca.keys("www"), &[tunnel]).await;
    let mut http1 = Visitor::http1(https, "www.example.com").await;
    let mut http2 = Visitor::http2(https, "www.example.com").await;
    for visitor in [&mut http1, &mut http2] {
        let response = visitor.get("/who").await;
        let found = (response.status, response.reason());
        assert_eq!(found, (StatusCode::BAD_REQUEST, "bad_request"));
        assert!(
            response.text().contains("use https://"),
            "{}",
            response.text()
        );
    }
    let error = ca.connect(server.http, "www.example.com", &["h2"]).await;
    assert!(error.is_err());
    logged(
        &mut server,
        "received a TLS handshake on a port for HTTP in clear text",
    )
    .await;
}

/// Waits for a line in the log of the server: those that visitors can cause at will appear once a second.
async fn logged(server: &mut Server, text: &str) {
    eventually(text, SOON, async || {
        server.process().stderr().contains(text).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_access_log_and_the_route_test_know_https() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let log = ca.path("access", "log");
    let telemetry = format!(
        "  telemetry: {{ access_log: {{ path: {} }} }}\n",
        log.display()
    );
    let tunnel = tunnel("web", "www.example.com", &service);
    let (_client, server, https) = world_with(&ca.keys("www"), &telemetry, &[tunnel]).await;
    ca.http1(https, "www.example.com").await.get("/who").await;
    let line = eventually("a line of the access log", SOON, async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().next().map(str::to_owned)
    })
    .await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["scheme"], "https");
    for (url, expected) in [
        (
            "https://www.example.com/a",
            "the certificate is that of www.example.com",
        ),
        (
            "https://b.example.com/a",
            "no certificate covers b.example.com",
        ),
    ] {
        let path = format!("/api/route?url={url}");
        let route = adit_e2e::query(server.admin, &path).await;
        let text = route["explanation"].as_str().unwrap();
        assert!(text.contains(expected), "{text}");
    }
}
