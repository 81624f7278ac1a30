//! Floods of handshakes leave established visitors and links alone.

use std::net::SocketAddr;

use adit_e2e::{Load, Raw, Service, count, eventually};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream},
};

use super::{Ca, SOON, tunnel, world_with};

/// The start of the first message of TLS, which says that 512 bytes follow.
const HALF_OPEN: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";

/// A connection from this address of this machine, on which a handshake has begun.
async fn half_open(source: [u8; 4], addr: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((source, 0).into()).unwrap();
    let mut stream = socket.connect(addr).await.unwrap();
    let _ = stream.write_all(HALF_OPEN).await;
    stream
}

#[tokio::test]
async fn p_14_5_half_open_handshakes_make_room_for_visitors() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let limits = "  limits: { max_handshakes: 40, max_handshakes_per_address: 20 }\n  \
                  timeouts: { visitor_handshake: 5s }\n";
    let tunnel = tunnel("web", "www.example.com", &service);
    let (_client, server, https) = world_with(&ca.keys("www"), limits, &[tunnel]).await;
    let kept = Load::on(ca.http1(https, "www.example.com").await, "site").await;
    let plain = Load::start(server.http, "www.example.com", "site").await;
    let mut flood = Vec::new();
    for number in 0..200_u8 {
        flood.push(half_open([127, 9, 9, number % 4 + 1], https).await);
    }
    let running = |status: &serde_json::Value| count(status, "/https/handshakes");
    let status = server.status().await;
    assert!(running(&status) <= 40, "{}", running(&status));
    kept.goes_on().await;
    plain.goes_on().await;
    // The oldest handshakes are ended for newer ones.
    let response = eventually("a handshake beside the flood", SOON, async || {
        let stream = ca.connect(https, "www.example.com", &["h2"]).await.ok()?;
        let mut visitor = adit_e2e::Visitor::http2_over(stream, "www.example.com").await;
        Some(visitor.get("/who").await)
    })
    .await;
    assert_eq!(response.text(), "site");
    eventually("the end of all handshakes", SOON, async || {
        (running(&server.status().await) == 0).then_some(())
    })
    .await;
    kept.goes_on().await;
    kept.stop().await;
    plain.stop().await;
    let status = server.status().await;
    assert!(count(&status, "/https/handshakes_failed") >= 200);
    assert_eq!(status["visitors"]["failures"], serde_json::json!({}));
    assert_eq!(status["clients"].as_array().unwrap().len(), 1);
    drop(flood);
}

#[tokio::test]
async fn a_handshake_cut_short_ends_the_connection() {
    let (ca, service) = (Ca::new(), Service::site("site").await);
    ca.issue("www", &["www.example.com"]);
    let tunnel = tunnel("web", "www.example.com", &service);
    let limits = "  timeouts: { visitor_handshake: 300ms }\n";
    let (_client, _server, https) = world_with(&ca.keys("www"), limits, &[tunnel]).await;
    for bytes in [&b""[..], HALF_OPEN, b"\x16\x03\x01\0\x04\x02\0\0\0"] {
        let mut raw = Raw::connect(https).await;
        raw.send(bytes).await;
        raw.read_to_end().await;
    }
}
