//! All protocols at once over one data stream, with stalled peers in each: none delays another, and every byte is
//! correct. F04 to F07, F11, P-4.1, P-5.1, P-9.5, P-11.2.

use std::{net::SocketAddr, time::Duration};

use adit_e2e::{
    Client, ClientOptions, Server, Service, Visitor, checked, count, empty, eventually, full,
    piece, procfs, within,
};
use bytes::{Buf, Bytes};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Method, Request};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::{
    accept_async, client_async,
    tungstenite::{Message, protocol::WebSocketConfig},
};

const MIB: u64 = 1 << 20;
const LARGE: u64 = 64 * MIB;
const STALLED: usize = 2;
const WORKERS: u64 = 6;
const ROUNDS: u64 = 30;
const PATIENCE: Duration = Duration::from_secs(120);

/// A datagram that has not returned after this time is sent again.
const LOST_AFTER: Duration = Duration::from_millis(500);

/// `length` bytes of the pattern.
fn bytes(length: u64) -> Vec<u8> {
    let mut all = Vec::new();
    while (all.len() as u64) < length {
        let offset = all.len() as u64;
        all.extend_from_slice(&piece(offset, length - offset));
    }
    all
}

/// The payload of this worker in this round, which differs from all other payloads.
fn payload(protocol: &str, worker: u64, round: u64) -> Vec<u8> {
    let name = format!("{protocol} {worker} {round} ");
    // Sizes around the boundaries of messages and windows.
    let length = [1, 100, 4096, 8192, 40_000, 70_000][usize::try_from(round % 6).unwrap()];
    name.bytes().cycle().take(length).collect()
}

async fn local<T>(bound: std::io::Result<T>) -> T {
    bound.expect("a port")
}

/// A service that reads a length and sends as many bytes of the pattern; for 0 it echoes everything.
async fn tcp_service() -> SocketAddr {
    let listener = local(TcpListener::bind("127.0.0.1:0").await).await;
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let wanted = stream.read_u64().await?;
                let mut offset = 0;
                while offset < wanted {
                    let piece = piece(offset, wanted - offset);
                    stream.write_all(&piece).await?;
                    offset += piece.len() as u64;
                }
                if wanted == 0 {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await?;
                }
                stream.shutdown().await
            });
        }
    });
    addr
}

/// A service that echoes every datagram.
async fn udp_service() -> SocketAddr {
    let socket = local(UdpSocket::bind("127.0.0.1:0").await).await;
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut datagram = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(&datagram[..length], from).await;
        }
    });
    addr
}

fn unbounded() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None)
}

/// A service that echoes every binary message, and responds to a text `N` with N bytes of the pattern.
async fn websocket_service() -> SocketAddr {
    let listener = local(TcpListener::bind("127.0.0.1:0").await).await;
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.ok()?;
                while let Some(Ok(message)) = socket.next().await {
                    let response = match &message {
                        Message::Binary(_) => message,
                        Message::Text(length) => Message::binary(bytes(length.parse().ok()?)),
                        _ => continue,
                    };
                    socket.send(response).await.ok()?;
                }
                Some(())
            });
        }
    });
    addr
}

struct World {
    client: Client,
    server: Server,
    _site: Service,
}

impl World {
    async fn start() -> Self {
        let site = Service::site("site").await;
        let server = Server::plain().await;
        let of = |name: &str, kind: &str, addr: SocketAddr, more: &str| {
            let port = addr.port();
            format!("    - {{ name: {name}, type: {kind}, local_port: {port}{more} }}\n")
        };
        let config = [
            "client:\n  tunnels:\n".to_owned(),
            of("web", "http", site.addr, ""),
            of("rpc", "grpc", site.addr, ""),
            of("ws", "websocket", websocket_service().await, ""),
            of("tcp", "tcp", tcp_service().await, ", remote_port: 4001"),
            of("udp", "udp", udp_service().await, ", remote_port: 4002"),
        ];
        let options = ClientOptions::file(&server, "client-1", &config.concat());
        Self {
            client: Client::start(options).await,
            server,
            _site: site,
        }
    }

    fn port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.server.tunnel.ip(), port)
    }

    /// A connection with a small receive buffer.
    async fn narrow(&self, addr: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        socket.connect(addr).await.unwrap()
    }
}

fn grpc(request: &mut Request<adit_e2e::Body>) {
    let grpc = HeaderValue::from_static("application/grpc");
    request.headers_mut().insert("content-type", grpc);
    let trailers = HeaderValue::from_static("trailers");
    request.headers_mut().insert("te", trailers);
}

/// The task in which a stalled peer continues to read: returns the number of bytes of the pattern.
type Rest = std::pin::Pin<Box<dyn Future<Output = u64> + Send>>;

async fn stalled(world: &World) -> Vec<(&'static str, Rest)> {
    let mut rests: Vec<(&'static str, Rest)> = Vec::new();
    for _ in 0..STALLED {
        let path = format!("/chunked/{LARGE}");
        let mut http = Visitor::http1(world.server.http, "web.localhost").await;
        let request = http.request(&Method::GET, &path, empty());
        let response = http.send(request).await.unwrap();
        rests.push((
            "http",
            Box::pin(async move {
                let _connection = http;
                checked(response.into_body()).await.unwrap()
            }),
        ));
        let mut rpc = Visitor::http2(world.server.http, "rpc.localhost").await;
        let mut request = rpc.request(&Method::POST, &path, empty());
        grpc(&mut request);
        let response = rpc.send(request).await.unwrap();
        rests.push((
            "grpc",
            Box::pin(async move {
                let _connection = rpc;
                checked(response.into_body()).await.unwrap()
            }),
        ));
        let stream = world.narrow(world.server.http).await;
        let (mut socket, _) = tokio_tungstenite::client_async_with_config(
            "ws://ws.localhost/",
            stream,
            Some(unbounded()),
        )
        .await
        .unwrap();
        socket.send(Message::text(LARGE.to_string())).await.unwrap();
        rests.push((
            "websocket",
            Box::pin(async move {
                let mut message = socket.next().await.unwrap().unwrap().into_data();
                let length = message.len() as u64;
                let mut offset = 0;
                while message.has_remaining() {
                    let expected = piece(offset, message.len() as u64);
                    assert!(message.starts_with(&expected), "near {offset}");
                    offset += expected.len() as u64;
                    message.advance(expected.len());
                }
                length
            }),
        ));
        let mut stream = world.narrow(world.port(4001)).await;
        stream.write_u64(LARGE).await.unwrap();
        rests.push((
            "tcp",
            Box::pin(async move {
                let mut buffer = vec![0; 256 * 1024];
                let mut offset = 0;
                loop {
                    let read = stream.read(&mut buffer).await.unwrap();
                    if read == 0 {
                        return offset;
                    }
                    let mut read = &buffer[..read];
                    while !read.is_empty() {
                        let expected = piece(offset, read.len() as u64);
                        assert!(read.starts_with(&expected), "near {offset}");
                        offset += expected.len() as u64;
                        read = &read[expected.len()..];
                    }
                }
            }),
        ));
    }
    rests
}

async fn http(addr: SocketAddr, worker: u64) {
    let mut visitor = Visitor::http1(addr, "web.localhost").await;
    for round in 0..ROUNDS {
        let sent = payload("http", worker, round);
        let response = visitor.post("/echo", full(sent.clone())).await;
        assert!(response.body == sent, "http {worker} {round}");
    }
}

async fn rpc(addr: SocketAddr, worker: u64) {
    let mut visitor = Visitor::http2(addr, "rpc.localhost").await;
    for round in 0..ROUNDS {
        let sent = payload("grpc", worker, round);
        let mut request = visitor.request(&Method::POST, "/echo", full(sent.clone()));
        grpc(&mut request);
        let response = visitor.send(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(body == sent, "grpc {worker} {round}");
    }
}

async fn websocket(addr: SocketAddr, worker: u64) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket, _) = client_async("ws://ws.localhost/", stream).await.unwrap();
    for round in 0..ROUNDS {
        let sent = Bytes::from(payload("websocket", worker, round));
        socket.send(Message::Binary(sent.clone())).await.unwrap();
        let back = socket.next().await.unwrap().unwrap().into_data();
        assert!(back == sent, "websocket {worker} {round}");
    }
}

async fn tcp(addr: SocketAddr, worker: u64) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_u64(0).await.unwrap();
    for round in 0..ROUNDS {
        let sent = payload("tcp", worker, round);
        stream.write_all(&sent).await.unwrap();
        let mut back = vec![0; sent.len()];
        stream.read_exact(&mut back).await.unwrap();
        assert!(back == sent, "tcp {worker} {round}");
    }
}

async fn udp(addr: SocketAddr, worker: u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(addr).await.unwrap();
    let mut back = vec![0; 65_536];
    let payload_of = |round| {
        let mut sent = payload("udp", worker, round);
        sent.truncate(65_507);
        sent
    };
    for round in 0..ROUNDS {
        let expected = payload_of(round);
        // The kernel may drop a datagram when a buffer is full. A datagram that arrives is complete and from this
        // worker, but may have been requested twice.
        'asked: loop {
            socket.send(&expected).await.unwrap();
            while let Ok(length) = timeout(LOST_AFTER, socket.recv(&mut back)).await {
                let got = &back[..length.unwrap()];
                if got == expected {
                    break 'asked;
                }
                let is_late = (0..round).any(|round| payload_of(round) == got);
                assert!(is_late, "udp {worker} {round}: {} other bytes", got.len());
            }
        }
    }
}

#[tokio::test]
async fn all_protocols_at_once_beside_stalled_peers_of_each() {
    procfs::allow_descriptors(4_000);
    let world = World::start().await;
    let visitors = world.server.http;
    let (tcp_port, udp_port) = (world.port(4001), world.port(4002));
    let stalled = within("stalled peers", PATIENCE, stalled(&world)).await;
    // A flow whose visitor sends and never reads.
    let deaf = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..200 {
        deaf.send_to(&bytes(1200), udp_port).await.unwrap();
    }
    let waiting = async || {
        let status = world.server.status().await;
        count(&status, "/clients/0/waiting_bytes")
    };
    eventually("stalled peers", PATIENCE, async || {
        (waiting().await > 0).then_some(())
    })
    .await;

    let mut fast = JoinSet::new();
    for worker in 0..WORKERS {
        fast.spawn(http(visitors, worker));
        fast.spawn(rpc(visitors, worker));
        fast.spawn(websocket(visitors, worker));
        fast.spawn(tcp(tcp_port, worker));
        fast.spawn(udp(udp_port, worker));
    }
    within("everybody beside the stalled", PATIENCE, async {
        while let Some(done) = fast.join_next().await {
            done.unwrap();
        }
    })
    .await;
    assert!(waiting().await > 0, "they are stalled still");

    // All protocols used one data stream.
    let status = world.server.status().await;
    assert_eq!(count(&status, "/clients/0/lanes"), 1, "{status}");

    // Peers that continue to read receive everything.
    let mut going_on = JoinSet::new();
    for (protocol, rest) in stalled {
        going_on.spawn(async move { (protocol, rest.await) });
    }
    within("what the stalled had asked for", PATIENCE, async {
        while let Some(done) = going_on.join_next().await {
            let (protocol, length) = done.unwrap();
            assert_eq!(length, LARGE, "{protocol}");
        }
    })
    .await;
    eventually("no request but flows", PATIENCE, async || {
        let status = world.server.status().await;
        (count(&status, "/process/permits_in_use") == 0).then_some(())
    })
    .await;
    drop(world.client);
}
