//! How a WebSocket, a gRPC call and a UDP flow end when client, server, service or visitor is killed. F04, F05, F07,
//! P-8.4, P-9.6, P-11.4; TCP is in `sessions.rs`, HTTP in `recovery.rs`.
//!
//! Needs the interpreter that `ADIT_PYTHON` names, or `target/python/bin/python`, which `ci/test` creates.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Server, Visitor, count, eventually, full, python::PythonService, within,
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Error, Message, error::ProtocolError},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    Client,
    Server,
    Service,
}

struct World {
    client: Client,
    server: Server,
    service: PythonService,
}

impl World {
    async fn start(kind: &str, script: &str) -> Self {
        let service = PythonService::start(script).await;
        let server = Server::plain().await;
        let config = format!(
            "client:\n  tunnels:\n    - {{ name: it, type: {kind}, local_port: {} }}\n",
            service.addr.port()
        );
        let client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
        Self {
            client,
            server,
            service,
        }
    }

    fn kill(&mut self, side: Killed) {
        match side {
            Killed::Client => self.client.kill(),
            Killed::Server => self.server.kill(),
            Killed::Service => self.service.process().kill(),
        }
    }

    /// Starts the killed process again, and waits for the client to be connected.
    async fn restore(&mut self, side: Killed) {
        match side {
            Killed::Client => self.client.restart().await,
            Killed::Server => {
                self.server.restart().await;
                let server = &self.server;
                eventually("the client's return", PATIENCE, async || {
                    let status = server.status().await;
                    (count(&status, "/process/sessions") == 1).then_some(())
                })
                .await;
            }
            Killed::Service => {}
        }
    }

    async fn nothing_is_left(&self) {
        eventually("nothing left of it", PATIENCE, async || {
            let server = self.server.status().await;
            let client = self.client.status().await;
            let left = count(&server, "/process/pending")
                + count(&server, "/process/permits_in_use")
                + count(&client, "/pending");
            (left == 0).then_some(())
        })
        .await;
    }
}

async fn open(server: &Server) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(server.http).await.unwrap();
    let (mut socket, _) = client_async("ws://it.localhost/", stream).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::text("hello")
    );
    socket
}

/// Expects the end of the connection without a close frame.
async fn is_cut(socket: &mut WebSocketStream<TcpStream>) {
    match within("the end", PATIENCE, socket.next()).await {
        Some(Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) | Error::Io(_))) => {}
        other => panic!("not cut: {other:?}"),
    }
}

#[tokio::test]
async fn p_9_6_a_killed_end_cuts_a_websocket_without_a_close_frame() {
    let mut world = World::start("websocket", "ws_service.py").await;
    for side in [Killed::Client, Killed::Server, Killed::Service] {
        let mut socket = open(&world.server).await;
        world.kill(side);
        is_cut(&mut socket).await;
        world.restore(side).await;
        world.nothing_is_left().await;
        if side != Killed::Service {
            drop(open(&world.server).await);
        }
    }
}

#[tokio::test]
async fn p_9_6_a_lost_visitor_is_lost_for_the_service() {
    let world = World::start("websocket", "ws_service.py").await;
    let socket = open(&world.server).await;
    assert_eq!(count(&world.server.status().await, "/process/pending"), 1);
    // The visitor's connection ends with a reset, as that of a killed process.
    let stream = socket.into_inner();
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    world.nothing_is_left().await;
    eventually("the service's connections", PATIENCE, async || {
        let status = world.client.status().await;
        (count(&status, "/service_connections") == 0).then_some(())
    })
    .await;
}

/// Begins the call that hangs; its first message has arrived.
async fn hang(server: &Server) -> (Visitor, Response<Incoming>) {
    let mut visitor = Visitor::http2(server.http, "it.localhost").await;
    let path = "/adit.e2e.v1.Echo/Hang";
    let mut request = visitor.request(&Method::POST, path, full(vec![0; 5]));
    let headers = request.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    let mut response = visitor.send(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let first = response.frame().await.unwrap().unwrap();
    assert!(first.is_data());
    (visitor, response)
}

#[tokio::test]
async fn p_8_4_a_call_whose_other_end_is_killed_ends_unavailable() {
    let mut world = World::start("grpc", "grpc_service.py").await;
    for (side, reason) in [
        (Killed::Client, "link_lost"),
        (Killed::Service, "service_aborted"),
    ] {
        let (_visitor, response) = hang(&world.server).await;
        world.kill(side);
        let ended = within("the status", PATIENCE, response.into_body().collect()).await;
        let trailers = ended.unwrap().trailers().cloned().expect("trailers");
        assert_eq!(trailers["grpc-status"], "14", "{trailers:?}");
        assert_eq!(trailers["adit-reason"], reason, "{trailers:?}");
        assert!(trailers.contains_key("adit-request-id"), "{trailers:?}");
        world.restore(side).await;
        world.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_killed_server_aborts_a_call_and_the_next_succeeds() {
    let mut world = World::start("grpc", "grpc_service.py").await;
    let (_visitor, response) = hang(&world.server).await;
    world.kill(Killed::Server);
    let ended = within("the end", PATIENCE, response.into_body().collect()).await;
    assert!(ended.is_err(), "a call that broke off must not look whole");
    world.restore(Killed::Server).await;
    let (visitor, response) = hang(&world.server).await;
    // A visitor that leaves cancels the call (P-8.3).
    drop(response);
    drop(visitor);
    world.nothing_is_left().await;
}

async fn echo_on(addr: SocketAddr) -> tokio::task::JoinHandle<()> {
    let socket = UdpSocket::bind(addr).await.unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 2048];
        loop {
            // An ICMP error is reported here; the next datagram may succeed.
            if let Ok((length, from)) = socket.recv_from(&mut datagram).await {
                let _ = socket.send_to(&datagram[..length], from).await;
            }
        }
    })
}

/// Sends a datagram until it is echoed: datagrams may be lost while a process is down.
async fn until_echoed(visitor: &UdpSocket, what: &str) {
    let mut back = vec![0; 2048];
    eventually(what, PATIENCE, async || {
        visitor.send(what.as_bytes()).await.ok()?;
        let waiting = visitor.recv(&mut back);
        let length = tokio::time::timeout(Duration::from_millis(100), waiting).await;
        let length = length.ok()?.ok()?;
        (&back[..length] == what.as_bytes()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn p_11_4_a_flow_comes_back_whichever_side_was_killed() {
    let reserved = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let service_addr = reserved.local_addr().unwrap();
    drop(reserved);
    let service = echo_on(service_addr).await;
    let mut server = Server::plain().await;
    let config = format!(
        "client:\n  tunnels:\n    - {{ name: it, type: udp, local_port: {}, remote_port: 4003, session_timeout: 1s }}\n",
        service_addr.port()
    );
    let mut client = Client::start(ClientOptions::file(&server, "client-1", &config)).await;
    let visitor = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    visitor.connect((server.tunnel.ip(), 4003)).await.unwrap();
    until_echoed(&visitor, "before").await;

    client.kill();
    client.restart().await;
    until_echoed(&visitor, "after the client").await;

    server.kill();
    server.restart().await;
    until_echoed(&visitor, "after the server").await;

    service.abort();
    let _ = service.await;
    visitor.send(b"into nothing").await.unwrap();
    let service = echo_on(service_addr).await;
    until_echoed(&visitor, "after the service").await;

    // The visitor sends nothing more, and its flow ends by itself.
    drop(visitor);
    eventually("no flow left", PATIENCE, async || {
        let server = server.status().await;
        let client = client.status().await;
        let left = count(&server, "/process/pending") + count(&client, "/pending");
        (left == 0).then_some(())
    })
    .await;
    service.abort();
}
