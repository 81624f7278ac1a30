//! Interim answers on their way to visitors (P-3.1), and bodies that wait for one (P-3.5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::AsyncWriteExt, sync::Notify};

mod world;

use world::{World, answer, body_of, config, echo, head, read_until, within};

type Sent = BoxBody<Bytes, Infallible>;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-b: 1\r\n\r\n";

/// A head of status 103 with lines that stay on their hop beside those that cross.
fn hints() -> adit_codec::EncodedHead {
    let lines = [
        ("link", "</a.css>; rel=preload"),
        ("connection", "close"),
        ("content-length", "5"),
        ("x-b", "1"),
    ];
    head(103, &lines, b"")
}

async fn http2(world: &World) -> hyper::client::conn::http2::SendRequest<Sent> {
    let io = TokioIo::new(world.connect().await);
    let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (send, connection) = builder.handshake(io).await.unwrap();
    tokio::spawn(connection);
    send
}

/// A body that waits for `100 Continue` may wait for an hour: a test that waits for it hangs.
fn patient() -> adit_ingress::HttpConfig {
    let mut config = config();
    config.continue_wait = Duration::from_secs(3_600);
    config.stall_timeout = Duration::from_secs(3_600);
    config.service_timeout = Duration::from_secs(3_600);
    config
}

#[tokio::test]
async fn p_3_1_interim_answers_cross_before_the_final_one_is_there() {
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let world = World::new(move |_, exchange| {
        let go_on = told.clone();
        async move {
            exchange.send.answer(head(102, &[], b""), false).unwrap();
            exchange.send.answer(hints(), false).unwrap();
            go_on.notified().await;
            answer(&exchange, 200, &[], b"ok");
        }
    })
    .await;
    let mut stream = world.connect().await;
    for _ in 0..2 {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let interim = read_until(&mut stream, "x-b: 1\r\n\r\n").await;
        assert_eq!(interim, format!("HTTP/1.1 102 Processing\r\n\r\n{HINTS}"));
        go_on.notify_one();
        let answer = read_until(&mut stream, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
    world.settle().await;
}

#[tokio::test]
async fn interim_answers_stand_in_front_of_their_own_pipelined_answers() {
    const BODY: usize = 1 << 20;
    let world = World::new(|_, exchange| async move {
        exchange.send.answer(hints(), false).unwrap();
        let length = BODY.to_string();
        let lines = [("content-length", &length[..])];
        exchange.send.answer(head(200, &lines, b""), false).unwrap();
        let body = vec![b'x'; BODY];
        exchange.send.send_all(body.into(), true).await.unwrap();
    })
    .await;
    let mut stream = world.connect().await;
    stream
        .write_all("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3).as_bytes())
        .await
        .unwrap();
    for _ in 0..3 {
        let interim = read_until(&mut stream, "\r\n\r\n").await;
        assert_eq!(interim, HINTS);
        let start = read_until(&mut stream, "\r\n\r\n").await;
        assert!(start.starts_with("HTTP/1.1 200 OK\r\n"), "{start}");
        let mut body = vec![0; BODY];
        within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body))
            .await
            .unwrap();
        assert!(body.iter().all(|byte| *byte == b'x'));
    }
    world.settle().await;
}

#[tokio::test]
async fn a_visitor_of_http_1_0_gets_no_interim_answer() {
    let world = World::new(|_, exchange| async move {
        exchange.send.answer(hints(), false).unwrap();
        answer(&exchange, 200, &[], b"ok");
    })
    .await;
    let answer = world.raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn interim_answers_to_visitors_of_http_2_are_dropped_and_counted() {
    let world = World::new(|_, exchange| async move {
        exchange.send.answer(hints(), false).unwrap();
        exchange.send.answer(head(102, &[], b""), false).unwrap();
        answer(&exchange, 200, &[], b"ok");
    })
    .await;
    let mut visitor = http2(&world).await;
    let request = Request::get("http://a/")
        .body(Empty::new().boxed())
        .unwrap();
    let answer = within(visitor.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(world.http.stats().interim_dropped, 2);
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_failure() {
    let world = World::new(|_, exchange| async move {
        exchange.send.answer(head(101, &[], b""), false).unwrap();
        let _ = exchange.send.answer(head(200, &[], b"ok"), true);
    })
    .await;
    let answer = world
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test]
async fn interim_answers_cross_while_a_body_is_sent() {
    let world = World::new(|_, mut exchange| async move {
        exchange.send.answer(hints(), false).unwrap();
        let (body, _) = body_of(&mut exchange).await.unwrap();
        answer(&exchange, 200, &[], &body);
    })
    .await;
    let mut stream = world.connect().await;
    stream
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await
        .unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, HINTS);
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = read_until(&mut stream, "abc").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn p_3_5_a_body_that_came_with_its_head_waits_for_no_100() {
    let world = World::with(patient(), echo).await;
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut stream = world.connect().await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut stream, "hello").await;
    }
}

#[tokio::test]
async fn p_3_5_a_body_that_comes_unasked_waits_for_no_100() {
    let world = World::with(patient(), echo).await;
    let mut stream = world.connect().await;
    for _ in 0..2 {
        let requests = world.seen.lock().unwrap().len();
        stream
            .write_all(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
            )
            .await
            .unwrap();
        // It is at the service, which says nothing.
        within(async {
            while world.seen.lock().unwrap().len() == requests {
                tokio::task::yield_now().await;
            }
        })
        .await;
        stream.write_all(b"hello").await.unwrap();
        read_until(&mut stream, "hello").await;
    }
    world.settle().await;
}

#[tokio::test]
async fn p_3_5_a_visitor_of_http_2_sends_its_body_when_it_likes() {
    let world = World::with(patient(), echo).await;
    let mut visitor = http2(&world).await;
    let request = Request::post("http://a/")
        .header("expect", "100-continue")
        .body(Full::new(Bytes::from_static(b"hello")).boxed())
        .unwrap();
    let answer = within(visitor.send_request(request)).await.unwrap();
    let body = within(answer.into_body().collect()).await.unwrap();
    assert_eq!(&body.to_bytes()[..], b"hello");
}
