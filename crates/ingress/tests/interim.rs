//! Interim answers on their way to visitors (P-3.1), and bodies that wait for one (P-3.5).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{future::poll_fn, sync::Arc, time::Duration};

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderValue, Request, Response};
use tokio::{io::AsyncWriteExt, sync::Notify};

mod world;

use world::{World, answer, body_of, config, echo, head, read_until, within};

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

async fn http2(world: &World) -> h2::client::SendRequest<Bytes> {
    let (send, connection) = h2::client::handshake(world.connect().await).await.unwrap();
    tokio::spawn(connection);
    send
}

/// The next interim answer. None when the final one is there.
async fn interim(response: &mut ResponseFuture) -> Option<Response<()>> {
    within(poll_fn(|cx| response.poll_informational(cx)))
        .await
        .map(Result::unwrap)
}

async fn body(response: ResponseFuture) -> (u16, String) {
    let response = within(response).await.unwrap();
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut all = Vec::new();
    while let Some(data) = within(body.data()).await {
        all.extend_from_slice(&data.unwrap());
    }
    (status, String::from_utf8(all).unwrap())
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
            exchange.send.respond(head(102, &[], b""), false).unwrap();
            exchange.send.respond(hints(), false).unwrap();
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
        exchange.send.respond(hints(), false).unwrap();
        let length = BODY.to_string();
        let lines = [("content-length", &length[..])];
        exchange
            .send
            .respond(head(200, &lines, b""), false)
            .unwrap();
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
        exchange.send.respond(hints(), false).unwrap();
        answer(&exchange, 200, &[], b"ok");
    })
    .await;
    let answer = world.raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = answer.unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n"), "{answer}");
    assert!(!answer.contains("103"), "{answer}");
}

#[tokio::test]
async fn p_3_1_visitors_of_http_2_get_interim_answers_at_once() {
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let world = World::new(move |_, exchange| {
        let go_on = told.clone();
        async move {
            exchange.send.respond(head(102, &[], b""), false).unwrap();
            exchange.send.respond(hints(), false).unwrap();
            // No request waits for it.
            exchange.send.respond(head(100, &[], b""), false).unwrap();
            go_on.notified().await;
            answer(&exchange, 200, &[], b"ok");
        }
    })
    .await;
    let mut visitor = http2(&world).await;
    for _ in 0..2 {
        let request = Request::get("http://a/").body(()).unwrap();
        let (mut response, _) = visitor.send_request(request, true).unwrap();
        let processing = interim(&mut response).await.unwrap();
        assert_eq!(processing.status(), 102);
        assert!(processing.headers().is_empty());
        let hints = interim(&mut response).await.unwrap();
        assert_eq!(hints.status(), 103);
        let lines: Vec<_> = hints.headers().iter().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(hints.headers()["link"], "</a.css>; rel=preload");
        assert_eq!(hints.headers()["x-b"], "1");
        go_on.notify_one();
        assert!(interim(&mut response).await.is_none());
        assert_eq!(body(response).await, (200, "ok".into()));
    }
    world.settle().await;
}

#[tokio::test]
async fn p_3_1_interim_answers_over_http_2_are_bounded() {
    let long = "x".repeat(60_000);
    let world = World::new(move |request: adit_codec::HttpRequest, exchange| {
        let long = long.clone();
        async move {
            let lines = [("x-long", &long[..])];
            let lines = if &request.path[..] == b"/long" {
                &lines[..]
            } else {
                &[]
            };
            for _ in 0..16 {
                exchange.send.respond(head(103, lines, b""), false).unwrap();
            }
            answer(&exchange, 200, &[], b"ok");
        }
    })
    .await;
    let mut visitor = http2(&world).await;
    for (path, expected) in [("/", 16), ("/long", 1)] {
        let request = Request::get(format!("http://a{path}")).body(()).unwrap();
        let (mut response, _) = visitor.send_request(request, true).unwrap();
        let mut count = 0;
        while interim(&mut response).await.is_some() {
            count += 1;
        }
        assert_eq!(count, expected, "{path}");
        assert_eq!(body(response).await, (200, "ok".into()));
    }
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_a_failure() {
    let world = World::new(|_, exchange| async move {
        exchange.send.respond(head(101, &[], b""), false).unwrap();
        let _ = exchange.send.respond(head(200, &[], b"ok"), true);
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
        exchange.send.respond(hints(), false).unwrap();
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

/// A request over HTTP/2 that asks for `100 Continue`, and whose body has not been sent.
fn expecting(
    visitor: &mut h2::client::SendRequest<Bytes>,
) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let request = Request::post("http://a/").header("expect", "100-continue");
    visitor
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

#[tokio::test]
async fn p_3_5_the_100_of_a_service_reaches_visitors_of_http_2() {
    let world = World::with(patient(), |_, mut exchange| async move {
        let lines = [("x-b", "1")];
        exchange
            .send
            .respond(head(100, &lines, b""), false)
            .unwrap();
        exchange
            .send
            .respond(head(100, &lines, b""), false)
            .unwrap();
        let (body, _) = body_of(&mut exchange).await.unwrap();
        answer(&exchange, 200, &[], &body);
    })
    .await;
    let mut visitor = http2(&world).await;
    let (mut response, mut send) = expecting(&mut visitor);
    let go_on = interim(&mut response).await.unwrap();
    assert_eq!(
        (go_on.status().as_u16(), &go_on.headers()["x-b"]),
        (100, &HeaderValue::from_static("1"))
    );
    send.send_data("hello".into(), true).unwrap();
    assert!(interim(&mut response).await.is_none(), "it comes once");
    assert_eq!(body(response).await, (200, "hello".into()));
    world.settle().await;
}

/// Regression: it was never told to go on, and its request was given up as stalled.
#[tokio::test]
async fn p_3_5_a_silent_service_costs_visitors_of_http_2_the_wait() {
    let mut config = patient();
    config.continue_wait = Duration::from_millis(50);
    let world = World::with(config, |_, mut exchange| async move {
        let (body, _) = body_of(&mut exchange).await.unwrap();
        // Late: the server has sent one.
        exchange.send.respond(head(100, &[], b""), false).unwrap();
        answer(&exchange, 200, &[], &body);
    })
    .await;
    let mut visitor = http2(&world).await;
    let (mut response, mut send) = expecting(&mut visitor);
    assert_eq!(interim(&mut response).await.unwrap().status(), 100);
    send.send_data("hello".into(), true).unwrap();
    assert!(interim(&mut response).await.is_none(), "it comes once");
    assert_eq!(body(response).await, (200, "hello".into()));
    world.settle().await;
}

#[tokio::test]
async fn p_3_5_visitors_of_http_2_may_send_unasked() {
    let world = World::with(patient(), echo).await;
    let mut visitor = http2(&world).await;
    for comes_late in [false, true] {
        let requests = world.seen.lock().unwrap().len();
        let (mut response, mut send) = expecting(&mut visitor);
        if comes_late {
            // It is at the service, which says nothing.
            within(async {
                while world.seen.lock().unwrap().len() == requests {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
        send.send_data("hel".into(), false).unwrap();
        send.send_data("lo".into(), true).unwrap();
        assert!(interim(&mut response).await.is_none());
        assert_eq!(body(response).await, (200, "hello".into()));
    }
    world.settle().await;
}

#[tokio::test]
async fn p_3_5_a_final_answer_leaves_the_body_of_http_2_unread() {
    let world = World::with(patient(), |_, exchange| async move {
        answer(&exchange, 417, &[], b"no");
    })
    .await;
    let mut visitor = http2(&world).await;
    let (mut response, send) = expecting(&mut visitor);
    assert!(interim(&mut response).await.is_none());
    assert_eq!(body(response).await, (417, "no".into()));
    drop(send);
    world.settle().await;
}

#[tokio::test]
async fn a_visitor_of_http_2_that_leaves_before_its_100_is_released() {
    let world = World::with(patient(), |_, exchange| async move {
        exchange.send.closed().await;
    })
    .await;
    let mut visitor = http2(&world).await;
    let (response, mut send) = expecting(&mut visitor);
    within(async {
        while world.links[0].far.open_requests() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    send.send_reset(h2::Reason::CANCEL);
    world.settle().await;
    assert_eq!(world.http.stats().failed(adit_link::Reason::Cancelled), 1);
    drop(response);
}
