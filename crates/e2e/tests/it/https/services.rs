//! Services over TLS, of HTTP/1.1, HTTP/2 and WebSocket.

use std::{net::SocketAddr, sync::Arc};

use adit_e2e::{Client, ClientOptions, Server, eventually, get, within};
use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};

use super::{Ca, SOON};

/// The configuration of a service with this certificate, which offers these protocols.
fn config(ca: &Ca, file: &str, alpn: &[&str]) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_file(ca.path(file, "crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(ca.path(file, "key")).unwrap();
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    Arc::new(config).into()
}

async fn answer(request: Request<Incoming>) -> Result<Response<String>, std::convert::Infallible> {
    let body = http_body_util::BodyExt::collect(request.into_body()).await;
    let length = body.map_or(0, |body| body.to_bytes().len());
    Ok(Response::new(format!("{length} bytes")))
}

/// A site over TLS that speaks the chosen protocol, and names it in a header line. It listens on `addr`.
async fn site(addr: SocketAddr, acceptor: TlsAcceptor) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        // They end with this task.
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            connections.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let version = if is_http2 { "h2" } else { "http/1.1" };
                let service = service_fn(move |request| async move {
                    answer(request).await.map(|mut response| {
                        let headers = response.headers_mut();
                        headers.insert("x-version", version.parse().unwrap());
                        response
                    })
                });
                let io = TokioIo::new(stream);
                if is_http2 {
                    let builder = http2::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(io, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                }
            });
        }
    });
    (addr, serving)
}

/// A service of WebSockets over TLS that returns each message.
async fn echo(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let stream = acceptor.accept(stream).await.unwrap();
                let mut socket = accept_async(stream).await.unwrap();
                while let Some(Ok(message)) = socket.next().await {
                    if message.is_text() {
                        socket.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    addr
}

fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// A server, and a client with these tunnels, whose services have certificates of `ca` for `service.internal`.
async fn world(ca: &Ca, tunnels: &[(&str, &str, SocketAddr)]) -> (Client, Server) {
    let roots = ca.path("ca", "crt");
    let lines = tunnels.iter().map(|(name, keys, addr)| {
        format!(
            "    - {{ name: {name}, {keys}local_port: {}, local_tls: {{ ca_file: {}, server_name: service.internal }} }}\n",
            addr.port(),
            roots.display(),
        )
    });
    let config = format!("client:\n  tunnels:\n{}", lines.collect::<String>());
    let server = Server::plain().await;
    let client = Client::start(ClientOptions::file(&server, "office", &config)).await;
    (client, server)
}

#[tokio::test]
async fn a_service_over_tls_chooses_the_version_of_http() {
    let ca = Ca::new();
    ca.issue("service", &["service.internal"]);
    let acceptor = |alpn: &[&str]| config(&ca, "service", alpn);
    let (both, _) = site(any(), acceptor(&["h2", "http/1.1"])).await;
    let (old, _) = site(any(), acceptor(&["http/1.1"])).await;
    let (none, _) = site(any(), acceptor(&[])).await;
    let (h2, _) = site(any(), acceptor(&["h2"])).await;
    let tunnels = [
        ("both", "", both),
        ("one", "local_protocol: http1, ", both),
        ("two", "local_protocol: h2, ", both),
        ("old", "", old),
        ("none", "", none),
        ("h2", "", h2),
        ("wrong", "local_protocol: http1, ", h2),
    ];
    let (_client, server) = world(&ca, &tunnels).await;
    for (name, expected) in [
        ("both", "h2"),
        ("one", "http/1.1"),
        ("two", "h2"),
        ("old", "http/1.1"),
        ("none", "http/1.1"),
        ("h2", "h2"),
    ] {
        let host = format!("{name}.localhost");
        for length in [0, 10, 300_000] {
            let body = vec![b'a'; length];
            let response = adit_e2e::post(server.http, &host, "/", body).await;
            assert_eq!(
                response.status,
                StatusCode::OK,
                "{name}: {}",
                response.text()
            );
            assert_eq!(response.text(), format!("{length} bytes"));
            assert_eq!(response.header("x-version"), expected, "{name}");
        }
    }
    let response = get(server.http, "wrong.localhost", "/").await;
    assert_eq!(
        (response.status, response.reason()),
        (StatusCode::BAD_GATEWAY, "dial_failed")
    );
}

#[tokio::test]
async fn a_service_may_change_its_choice() {
    let ca = Ca::new();
    ca.issue("service", &["service.internal"]);
    let (addr, serving) = site(any(), config(&ca, "service", &["h2"])).await;
    let (_client, server) = world(&ca, &[("web", "", addr)]).await;
    let version = async || {
        let response = get(server.http, "web.localhost", "/").await;
        response.header("x-version").to_owned()
    };
    assert_eq!(version().await, "h2");
    serving.abort();
    let _ = serving.await;
    let (_, _serving) = site(addr, config(&ca, "service", &["http/1.1"])).await;
    eventually("the other version", SOON, async || {
        (version().await == "http/1.1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn websockets_reach_services_over_tls() {
    let ca = Ca::new();
    ca.issue("service", &["service.internal"]);
    let addr = echo(config(&ca, "service", &["http/1.1"])).await;
    let tunnels = [("ws", "type: websocket, ", addr), ("web", "", addr)];
    let (_client, server) = world(&ca, &tunnels).await;
    for host in ["ws.localhost", "web.localhost"] {
        let stream = TcpStream::connect(server.http).await.unwrap();
        let url = format!("ws://{host}/");
        let (mut socket, _) = client_async(url, stream).await.unwrap();
        socket.send(Message::text("text")).await.unwrap();
        let reply = within("an echo", SOON, socket.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply, Message::text("text"));
    }
}
