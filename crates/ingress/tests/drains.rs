//! Connections without a request when the entry drains.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use adit_ingress::HttpConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

mod world;

use world::{World, config, head, hello, read_until, within};

/// No time but that of the drain ends a connection.
fn patient() -> HttpConfig {
    let hour = Duration::from_secs(3600);
    HttpConfig {
        head_timeout: hour,
        idle_timeout: hour,
        stall_timeout: hour,
        release_timeout: hour,
        ..config()
    }
}

async fn closed(world: &World) {
    within(async {
        while world.http.stats().connections_open > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn connection_without_a_request_is_closed_by_a_drain() {
    const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let half = "GET / HTTP/1.1\r\nHo";
    let both = format!("{get}{half}");
    // Neither sends an answer to the ping that comes before the end of HTTP/2.
    for (sent, end) in [
        ("", ""),
        (half, ""),
        (get, "hello"),
        (&both, "hello"),
        (PREFACE, ""),
        ("PRI * HT", ""),
    ] {
        let world = World::with(patient(), hello).await;
        let mut stream = world.connect().await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        if end.is_empty() {
            within(async {
                while world.http.stats().connections_open == 0 {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        } else {
            read_until(&mut stream, end).await;
        }
        world.drain.send(true).unwrap();
        closed(&world).await;
    }
}

/// The request is over and its answer waits for a visitor who reads late.
#[tokio::test]
async fn end_of_an_answer_is_not_cut_by_a_drain() {
    const LENGTH: usize = 16 << 20;
    let world = World::with(patient(), |_, exchange| async move {
        exchange.send.respond(head(200, &[], b""), false).unwrap();
        let _ = exchange
            .send
            .send_all(vec![b'x'; LENGTH].into(), true)
            .await;
    })
    .await;
    let mut stream = world.connect().await;
    let get = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(get.as_bytes()).await.unwrap();
    read_until(&mut stream, "\r\n\r\n").await;
    world.drain.send(true).unwrap();
    let mut got = 0;
    let mut buffer = vec![0; 256 * 1024];
    within(async {
        loop {
            // Slower than the looks at a connection that drains.
            if got > LENGTH - (1 << 20) {
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
            match stream.read(&mut buffer).await.unwrap() {
                0 => break,
                count => got += count,
            }
        }
    })
    .await;
    assert!(got > LENGTH, "{got}: with the lines of its chunks");
}

/// The same over HTTP/2: what is left lies in hyper, and the socket could take it.
#[tokio::test]
async fn end_of_an_http2_answer_is_not_cut_by_a_drain() {
    const LENGTH: usize = 16 * 1024;
    let world = World::with(patient(), |_, exchange| async move {
        exchange.send.respond(head(200, &[], b""), false).unwrap();
        let _ = exchange
            .send
            .send_all(vec![b'x'; LENGTH].into(), true)
            .await;
    })
    .await;
    let (requests, connection) = h2::client::Builder::new()
        .initial_window_size(1_000)
        .handshake::<_, bytes::Bytes>(world.connect().await)
        .await
        .unwrap();
    tokio::spawn(connection);
    let mut requests = within(requests.ready()).await.unwrap();
    let get = http::Request::get("http://a/").body(()).unwrap();
    let (answer, _) = requests.send_request(get, true).unwrap();
    let mut body = within(answer).await.unwrap().into_body();
    within(async {
        while world.http.stats().requests_open > 0 && world.links[0].far.open_requests() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    world.drain.send(true).unwrap();
    // Several looks at the connection pass.
    tokio::time::sleep(Duration::from_millis(900)).await;
    let mut got = 0;
    within(async {
        while let Some(data) = body.data().await {
            let data = data.unwrap();
            body.flow_control().release_capacity(data.len()).unwrap();
            got += data.len();
        }
    })
    .await;
    assert_eq!(got, LENGTH);
}
