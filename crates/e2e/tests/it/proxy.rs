//! The client's way to the server through a proxy: F53.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use adit_e2e::{Client, ClientOptions, HOST, Server, Service, eventually, get};
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::AbortHandle,
};

const SOON: Duration = Duration::from_secs(30);

/// An HTTP proxy that leads every CONNECT to one server.
struct ConnectProxy {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl ConnectProxy {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                tokio::spawn(forward(near, server, seen.clone()));
            }
        });
        Self {
            addr,
            heads,
            task: task.abort_handle(),
        }
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(mut near: TcpStream, server: SocketAddr, heads: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match near.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    heads
        .lock()
        .await
        .push(String::from_utf8_lossy(&head).into_owned());
    let mut far = TcpStream::connect(server).await.unwrap();
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    // Either side may end first.
    let _ = copy_bidirectional(&mut near, &mut far).await;
}

/// The server's name is one that only the proxy knows, and its certificate is that of its own CA.
#[tokio::test]
async fn a_tunnel_runs_through_a_proxy() {
    let server = Server::with("server: { tls: true }\n").await;
    let proxy = ConnectProxy::to(server.tunnel).await;
    let service = Service::site("site").await;
    let state = tempfile::tempdir().unwrap();
    let status = server.status().await;
    let fingerprint = status["tls"]["ca_fingerprint"].as_str().unwrap();
    let config = format!(
        "client:\n  server_addr: tunnel.internal\n  tls: {{ ca_fingerprint: {fingerprint} }}\n  tunnels: [{{ name: web, local_port: {} }}]\n",
        service.addr.port()
    );
    let url = format!("http://ann:secret@{}", proxy.addr);
    let token = server.token_file().display().to_string();
    let mut options = ClientOptions::file(&server, "client-1", &config);
    state.path().clone_into(&mut options.state);
    let mut client =
        Client::start(options.arg("--token-file", &token).env("HTTPS_PROXY", &url)).await;
    eventually("a response", SOON, async || {
        let response = get(server.http, HOST, "/who").await;
        (response.status == StatusCode::OK).then_some(())
    })
    .await;
    let heads = proxy.heads.lock().await.clone();
    assert!(
        heads[0].starts_with("CONNECT tunnel.internal:7000 HTTP/1.1\r\n"),
        "{heads:?}"
    );
    assert!(
        heads[0].contains("\r\nProxy-Authorization: Basic "),
        "{heads:?}"
    );
    let log = client.process().stderr();
    assert!(!log.contains("secret"), "{log}");
}
