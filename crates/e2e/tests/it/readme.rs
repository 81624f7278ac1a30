//! The commands and files in the README work as they are, except for the ports.

use std::{fs, net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Process, Server, Service, Visitor, binary, eventually, get,
    python::workspace,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_tungstenite::{accept_async, client_async, tungstenite::Message};

const PATIENCE: Duration = Duration::from_secs(60);

fn readme() -> String {
    fs::read_to_string(workspace().join("README.md")).unwrap()
}

/// The command with this beginning, without `adit` and its comment, and with another port for the service.
fn command(begins: &str, port: u16) -> Vec<String> {
    let readme = readme();
    let line = readme
        .lines()
        .find(|line| line.starts_with(begins))
        .unwrap_or_else(|| panic!("the README shows no `{begins}`"));
    let line = line.split('#').next().unwrap_or_default();
    let mut words: Vec<_> = line.split_whitespace().skip(1).map(String::from).collect();
    words[1] = port.to_string();
    words
}

async fn shown(begins: &str, service: SocketAddr) -> (Server, Client) {
    let server = Server::plain().await;
    let options = ClientOptions::http(&server, "client-1", "unused", service);
    let options = ClientOptions {
        args: command(begins, service.port()),
        ..options
    };
    let client = Client::start(options).await;
    (server, client)
}

#[tokio::test]
async fn a_grpc_service_is_exposed() {
    let service = Service::site("rpc").await;
    let (server, _client) = shown("adit grpc ", service.addr).await;
    let mut visitor = Visitor::http2(server.http, "rpc.localhost").await;
    let mut request = visitor.request(&Method::POST, "/who", adit_e2e::empty());
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    assert_eq!(visitor.send(request).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_websocket_crosses_with_its_http_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        let received = socket.next().await.unwrap().unwrap();
        socket.send(received).await.unwrap();
        socket.next().await
    });
    let (server, _client) = shown("adit http 8080 --name chat", addr).await;
    let stream = TcpStream::connect(server.http).await.unwrap();
    let (mut socket, _) = client_async("ws://chat.localhost/", stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
}

#[tokio::test]
async fn a_tcp_service_is_exposed_on_a_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await
    });
    let (server, _client) = shown("adit tcp ", addr).await;
    let mut stream = TcpStream::connect((server.tunnel.ip(), 2222))
        .await
        .unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).await.unwrap();
    assert_eq!(received, "hello");
}

#[tokio::test]
async fn a_udp_service_is_exposed_on_a_port() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = [0; 100];
        let (length, from) = socket.recv_from(&mut datagram).await.unwrap();
        socket.send_to(&datagram[..length], from).await
    });
    let (server, _client) = shown("adit udp ", addr).await;
    let visitor = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    visitor.connect((server.tunnel.ip(), 5353)).await.unwrap();
    visitor.send(b"hello").await.unwrap();
    let mut back = [0; 100];
    let length = visitor.recv(&mut back).await.unwrap();
    assert_eq!(&back[..length], b"hello");
}

/// The file in the README that contains `key`.
fn file(key: &str) -> String {
    let readme = readme();
    let mut blocks = readme.split("```yaml\n").skip(1);
    blocks
        .find_map(|rest| {
            let block = rest.split("```").next()?;
            block.contains(key).then(|| block.to_owned())
        })
        .unwrap_or_else(|| panic!("the README shows no file with `{key}`"))
}

#[tokio::test]
async fn a_client_entry_leads_to_an_upstream() {
    let (one, two) = (Service::site("one").await, Service::site("two").await);
    let upstreams = file("upstreams:")
        .replace("127.0.0.1:9001", &one.addr.to_string())
        .replace("127.0.0.1:9002", &two.addr.to_string());
    let server = Server::with(&upstreams).await;
    let listen = SocketAddr::from((adit_e2e::own_address(), 9000));
    let entries = file("entries:").replace("127.0.0.1:9000", &listen.to_string());
    let _client = Client::start(ClientOptions::file(&server, "client-1", &entries)).await;
    let mut responses = Vec::new();
    for _ in 0..2 {
        responses.push(get(listen, "erp.test", "/who").await.text());
    }
    responses.sort();
    assert_eq!(responses, ["one", "two"]);
}

/// The programs accept the files for two machines: the tests end because of the network, not because of the files.
#[tokio::test]
async fn the_files_for_two_machines_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    let client = file("client_id: office-1")
        .replace("tunnel.example.com", &adit_e2e::own_address().to_string())
        .replace(
            "/etc/adit/token",
            &dir.path().join("token").display().to_string(),
        );
    fs::write(dir.path().join("token"), "secret").unwrap();
    let path = dir.path().join("client.yaml");
    fs::write(&path, client).unwrap();
    let state = dir.path().display().to_string();
    let env = [("ADIT__STATE_DIR".to_owned(), state)];
    let args = [
        "--config".to_owned(),
        path.display().to_string(),
        "start".to_owned(),
    ];
    // Port 7000 of this address refuses connections, so the client continues to retry.
    let mut process = Process::spawn("adit", &binary("adit"), &args, &env, dir.path());
    eventually("a first try", PATIENCE, async || {
        let ended = process.has_ended();
        assert!(!ended, "{}", process.stderr());
        process
            .stderr()
            .contains("cannot reach the server")
            .then_some(())
    })
    .await;
}
