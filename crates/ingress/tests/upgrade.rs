//! Visitors who offer to change to another protocol (P-3.7).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::{EncodedHead, HttpRequest, HttpResponseHead, ResetCode, Side};
use adit_ingress::Direction;
use adit_link::{Dispatch, Exchange, IncomingRequest, Part, Reason};
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

mod world;

use world::{
    Link, World, answer, body_of, config, destination, director, read_to_end, read_until,
    standard_layers, within,
};

/// As `docker exec` begins.
const EXEC: &str = "POST /exec/1/start HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

fn switch(upgrade: &str, lines: &[(&str, &str)]) -> EncodedHead {
    let lines = { lines.iter() }.map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    HttpResponseHead::encode_switch(upgrade.as_bytes(), lines).unwrap()
}

/// Payload of the next part; `None` at the end.
async fn next(exchange: &mut Exchange) -> Option<Bytes> {
    match exchange.recv.part().await? {
        Ok(Part::Data(payload)) => Some(payload.bytes().clone()),
        other => panic!("no payload: {other:?}"),
    }
}

/// Says `hello` first, then gives everything back, and `bye` at the end.
async fn changes(request: HttpRequest, mut exchange: Exchange) {
    assert_eq!(&request.upgrade[..], b"tcp");
    assert_eq!(next(&mut exchange).await.unwrap(), "{}");
    let lines = [("content-type", "application/vnd.docker.raw-stream")];
    exchange.send.respond(switch("tcp", &lines), false).unwrap();
    let hello = Bytes::from_static(b"hello");
    exchange.send.send_all(hello, false).await.unwrap();
    while let Some(data) = next(&mut exchange).await {
        exchange.send.send_all(data, false).await.unwrap();
    }
    let bye = Bytes::from_static(b"bye");
    exchange.send.send_all(bye, true).await.unwrap();
}

async fn send(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn p_3_7_bytes_go_both_ways_after_the_switch_with_half_close() {
    let world = World::new(changes).await;
    let mut stream = world.connect().await;
    send(&mut stream, EXEC).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(head.contains("upgrade: tcp\r\n"), "{head}");
    assert!(head.contains("connection: Upgrade\r\n"), "{head}");
    assert!(head.contains("content-type: application/vnd.docker.raw-stream\r\n"));
    assert!(!head.contains("content-length"), "{head}");
    read_until(&mut stream, "hello").await;
    let large = "x".repeat(1 << 20);
    let (mut reading, mut writing) = stream.split();
    let (sent, received) = tokio::join!(
        async {
            writing.write_all(large.as_bytes()).await.unwrap();
            writing.shutdown().await.unwrap();
        },
        async {
            let mut all = Vec::new();
            within(reading.read_to_end(&mut all)).await.unwrap();
            all
        }
    );
    let () = sent;
    assert_eq!(received.len(), large.len() + 3);
    assert!(received.ends_with(b"xbye"));
    world.settle().await;
    assert_eq!(world.http.stats().failures.iter().sum::<u64>(), 0);
}

/// A visitor need not wait for the answer where it knows it.
#[tokio::test]
async fn what_came_behind_the_request_is_carried_first() {
    let world = World::new(changes).await;
    let mut stream = world.connect().await;
    send(&mut stream, &format!("{EXEC}early")).await;
    let all = read_until(&mut stream, "early").await;
    assert!(all.ends_with("\r\n\r\nhelloearly"), "{all}");
}

#[tokio::test]
async fn p_3_7_any_other_answer_is_one_of_http() {
    let world = World::new(|_, mut exchange| async move {
        let body = next(&mut exchange).await.unwrap();
        answer(&exchange, 200, &[], &body);
        // The visitor's direction ends with the offer.
        assert!(exchange.recv.part().await.is_none());
    })
    .await;
    let mut stream = world.connect().await;
    send(&mut stream, EXEC).await;
    let all = read_until(&mut stream, "{}").await;
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
    drop(stream);
    world.settle().await;
    assert_eq!(world.http.stats().failures.iter().sum::<u64>(), 0);
}

#[tokio::test]
async fn p_3_7_only_what_can_be_carried_is_offered() {
    let world = World::new(|request: HttpRequest, mut exchange: Exchange| async move {
        let offered = String::from_utf8(request.upgrade.to_vec()).unwrap();
        assert_eq!(request.headers.first(b"upgrade"), None);
        assert_eq!(request.headers.first(b"connection"), None);
        if offered.is_empty() {
            body_of(&mut exchange).await.unwrap();
        }
        answer(&exchange, 200, &[("x-offered", &offered)], b"");
    })
    .await;
    let get = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    let long = "x".repeat(100_000);
    let table = [
        (get("Connection: Upgrade\r\nUpgrade: tcp\r\n"), "tcp"),
        (
            get("Connection: x, upgrade\r\nUpgrade: TLS/1.0, h2c\r\nUpgrade: foo\r\n"),
            "TLS/1.0, foo",
        ),
        (
            get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"),
            "",
        ),
        (get("Upgrade: tcp\r\n"), ""),
        (get("Connection: Upgrade\r\n"), ""),
        (get("Connection: Upgrade\r\nUpgrade: ,\"a b\"\r\n"), ""),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n".to_owned(),
            "",
        ),
        // The end of such a body could not be told from what follows it.
        (
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"
                .to_owned(),
            "",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                 Content-Length: {}\r\n\r\n{long}",
                long.len()
            ),
            "",
        ),
    ];
    for (request, offered) in table {
        let mut stream = world.connect().await;
        send(&mut stream, &request).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let line = format!("x-offered: {offered}\r\n");
        assert!(head.contains(&line), "{head} {}", &request[..60]);
    }
}

struct Older(Arc<Mutex<Vec<Bytes>>>);

impl Dispatch for Older {
    fn dispatch(&self, opened: IncomingRequest) {
        let adit_codec::RequestHead::Http(head) = opened.head else {
            panic!("not an HTTP request");
        };
        self.0.lock().unwrap().push(head.upgrade.clone());
        assert!(opened.exchange.recv.is_complete());
        answer(&opened.exchange, 204, &[], b"");
    }
}

#[tokio::test]
async fn p_1_2_a_peer_without_the_capability_gets_no_offer() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let link = Link::between(Side::Server, Side::Client, Arc::new(Older(seen.clone())));
    let there = link.clone();
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let world = World::assemble(config(), standard_layers(), director).await;
    let mut stream = world.connect().await;
    send(&mut stream, EXEC).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert_eq!(*seen.lock().unwrap(), [Bytes::new()]);
}

#[tokio::test]
async fn what_breaks_on_one_hop_is_reset_on_the_other() {
    let ends: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let told = ends.clone();
    let world = World::new(move |request: HttpRequest, mut exchange: Exchange| {
        let told = told.clone();
        async move {
            next(&mut exchange).await;
            exchange.send.respond(switch("tcp", &[]), false).unwrap();
            if &request.path[..] == b"/reset" {
                next(&mut exchange).await;
                exchange.send.reset(ResetCode::ServiceAborted, "broke off");
                return;
            }
            let failure = exchange.recv.part().await.unwrap().unwrap_err();
            told.lock().unwrap().push(failure.reason);
        }
    })
    .await;
    let mut stream = world.connect().await;
    send(&mut stream, &EXEC.replace("/exec/1/start", "/reset")).await;
    read_until(&mut stream, "\r\n\r\n").await;
    send(&mut stream, "x").await;
    read_to_end(&mut stream).await.unwrap_err();

    let mut stream = world.connect().await;
    send(&mut stream, EXEC).await;
    read_until(&mut stream, "\r\n\r\n").await;
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    within(async {
        while ends.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(*ends.lock().unwrap(), [Reason::Cancelled]);
    world.settle().await;
}
