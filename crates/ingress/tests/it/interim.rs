//! Interim responses for visitors (P-3.1), and bodies that wait for one (P-3.5).

use std::{future::poll_fn, sync::Arc, time::Duration};

use adit_testlink::{
    HttpEntry,
    exchanges::{begin, body_of, echo, head, respond},
    http_config,
    http1::{read_until, send},
    http2, until, within,
};
use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderValue, Request, Response};
use tokio::sync::Notify;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nx-b: 1\r\n\r\n";

/// A head of status 103, with lines that are forwarded and lines that are not.
fn hints() -> adit_codec::EncodedHead {
    let lines = [
        ("link", "</a.css>; rel=preload"),
        ("connection", "close"),
        ("content-length", "5"),
        ("x-b", "1"),
    ];
    head(103, &lines, b"")
}

/// The next interim response; `None` when the final one has arrived.
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

/// A body may wait for `100 Continue` for an hour: a test that depends on this timeout hangs.
fn patient() -> adit_ingress::HttpConfig {
    let mut config = http_config();
    config.continue_wait = Duration::from_secs(3_600);
    config.stall_timeout = Duration::from_secs(3_600);
    config.service_timeout = Duration::from_secs(3_600);
    config
}

#[tokio::test(start_paused = true)]
async fn p_3_1_interim_responses_cross_before_the_final_one_is_there() {
    let go_on = Arc::new(Notify::new());
    let service = go_on.clone();
    let entry = HttpEntry::serving(http_config(), move |_, exchange| {
        let go_on = service.clone();
        async move {
            begin(&exchange, 102, &[], b"");
            exchange.send.respond(hints(), false).unwrap();
            go_on.notified().await;
            respond(&exchange, 200, &[], b"ok");
        }
    });
    let mut stream = entry.connect().await;
    for _ in 0..2 {
        send(&mut stream, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let interim = read_until(&mut stream, "x-b: 1\r\n\r\n").await;
        assert_eq!(interim, format!("HTTP/1.1 102 Processing\r\n\r\n{HINTS}"));
        go_on.notify_one();
        let response = read_until(&mut stream, "ok").await;
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn interim_responses_stand_in_front_of_their_own_pipelined_responses() {
    const BODY: usize = 1 << 20;
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        exchange.send.respond(hints(), false).unwrap();
        let length = BODY.to_string();
        let lines = [("content-length", &length[..])];
        begin(&exchange, 200, &lines, b"");
        let body = vec![b'x'; BODY];
        exchange.send.send_all(body.into(), true).await.unwrap();
    });
    let mut stream = entry.connect().await;
    send(
        &mut stream,
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(3).as_bytes(),
    )
    .await;
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
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_visitor_of_http_1_0_gets_no_interim_response() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        exchange.send.respond(hints(), false).unwrap();
        respond(&exchange, 200, &[], b"ok");
    });
    let response = entry.raw(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let response = response.unwrap();
    assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
    assert!(!response.contains("103"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn p_3_1_visitors_of_http_2_get_interim_responses_at_once() {
    let go_on = Arc::new(Notify::new());
    let service = go_on.clone();
    let entry = HttpEntry::serving(http_config(), move |_, exchange| {
        let go_on = service.clone();
        async move {
            begin(&exchange, 102, &[], b"");
            exchange.send.respond(hints(), false).unwrap();
            // No body waits for a `100 Continue`.
            begin(&exchange, 100, &[], b"");
            go_on.notified().await;
            respond(&exchange, 200, &[], b"ok");
        }
    });
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
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
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_3_1_interim_responses_over_http_2_are_bounded() {
    let long = "x".repeat(60_000);
    let entry = HttpEntry::serving(
        http_config(),
        move |request: adit_codec::HttpRequest, exchange| {
            let long = long.clone();
            async move {
                let lines = [("x-long", &long[..])];
                let lines = if &request.path[..] == b"/long" {
                    &lines[..]
                } else {
                    &[]
                };
                for _ in 0..16 {
                    begin(&exchange, 103, lines, b"");
                }
                respond(&exchange, 200, &[], b"ok");
            }
        },
    );
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
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

#[tokio::test(start_paused = true)]
async fn an_unrequested_101_is_a_failure() {
    let entry = HttpEntry::serving(http_config(), |_, exchange| async move {
        begin(&exchange, 101, &[], b"");
        let _ = exchange.send.respond(head(200, &[], b"ok"), true);
    });
    let response = entry
        .raw(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
}

#[tokio::test(start_paused = true)]
async fn interim_responses_cross_while_a_body_is_sent() {
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        exchange.send.respond(hints(), false).unwrap();
        let (body, _) = body_of(&mut exchange).await.unwrap();
        respond(&exchange, 200, &[], &body);
    });
    let mut stream = entry.connect().await;
    send(
        &mut stream,
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    )
    .await;
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, HINTS);
    send(&mut stream, b"0\r\n\r\n").await;
    let response = read_until(&mut stream, "abc").await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
}

#[tokio::test(start_paused = true)]
async fn p_3_5_a_body_sent_with_its_head_needs_no_100() {
    let entry = HttpEntry::serving(patient(), echo);
    for body in [
        "Content-Length: 5\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let mut stream = entry.connect().await;
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{body}");
        send(&mut stream, &request).await;
        read_until(&mut stream, "hello").await;
    }
}

#[tokio::test(start_paused = true)]
async fn p_3_5_a_body_sent_early_needs_no_100() {
    let entry = HttpEntry::serving(patient(), echo);
    let mut stream = entry.connect().await;
    for _ in 0..2 {
        let requests = entry.seen().len();
        send(
            &mut stream,
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
        // The service has the request and sends nothing.
        until("the service has the request", || {
            entry.seen().len() > requests
        })
        .await;
        send(&mut stream, b"hello").await;
        read_until(&mut stream, "hello").await;
    }
    entry.settled().await;
}

/// A request over HTTP/2 with `Expect: 100-continue`, whose body has not been sent.
fn expecting(
    visitor: &mut h2::client::SendRequest<Bytes>,
) -> (ResponseFuture, h2::SendStream<Bytes>) {
    let request = Request::post("http://a/").header("expect", "100-continue");
    visitor
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn p_3_5_the_100_of_a_service_reaches_visitors_of_http_2() {
    let entry = HttpEntry::serving(patient(), |_, mut exchange| async move {
        let lines = [("x-b", "1")];
        begin(&exchange, 100, &lines, b"");
        begin(&exchange, 100, &lines, b"");
        let (body, _) = body_of(&mut exchange).await.unwrap();
        respond(&exchange, 200, &[], &body);
    });
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
    let (mut response, mut send) = expecting(&mut visitor);
    let go_on = interim(&mut response).await.unwrap();
    assert_eq!(
        (go_on.status().as_u16(), &go_on.headers()["x-b"]),
        (100, &HeaderValue::from_static("1"))
    );
    send.send_data("hello".into(), true).unwrap();
    assert!(interim(&mut response).await.is_none(), "it comes once");
    assert_eq!(body(response).await, (200, "hello".into()));
    entry.settled().await;
}

/// Regression: the server never sent a 100, and the request was reset as stalled.
#[tokio::test(start_paused = true)]
async fn p_3_5_http_2_visitors_get_a_100_after_the_wait() {
    let mut config = patient();
    config.continue_wait = Duration::from_millis(50);
    let entry = HttpEntry::serving(config, |_, mut exchange| async move {
        let (body, _) = body_of(&mut exchange).await.unwrap();
        // The service's response is late: the server has sent its own 100.
        begin(&exchange, 100, &[], b"");
        respond(&exchange, 200, &[], &body);
    });
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
    let (mut response, mut send) = expecting(&mut visitor);
    assert_eq!(interim(&mut response).await.unwrap().status(), 100);
    send.send_data("hello".into(), true).unwrap();
    assert!(interim(&mut response).await.is_none(), "it comes once");
    assert_eq!(body(response).await, (200, "hello".into()));
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_3_5_http_2_visitors_may_send_without_a_100() {
    let entry = HttpEntry::serving(patient(), echo);
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
    for comes_late in [false, true] {
        let requests = entry.seen().len();
        let (mut response, mut send) = expecting(&mut visitor);
        if comes_late {
            // The service has the request and sends nothing.
            until("the service has the request", || {
                entry.seen().len() > requests
            })
            .await;
        }
        send.send_data("hel".into(), false).unwrap();
        send.send_data("lo".into(), true).unwrap();
        assert!(interim(&mut response).await.is_none());
        assert_eq!(body(response).await, (200, "hello".into()));
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_3_5_a_final_response_leaves_the_body_of_http_2_unread() {
    let entry = HttpEntry::serving(patient(), |_, exchange| async move {
        respond(&exchange, 417, &[], b"no");
    });
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
    let (mut response, send) = expecting(&mut visitor);
    assert!(interim(&mut response).await.is_none());
    assert_eq!(body(response).await, (417, "no".into()));
    drop(send);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn http_2_visitor_that_resets_before_its_100_is_released() {
    let entry = HttpEntry::serving(patient(), |_, exchange| async move {
        exchange.send.closed().await;
    });
    let mut visitor = http2::frames(entry.connect().await, 65_535).await;
    let (response, mut send) = expecting(&mut visitor);
    entry.opened().await;
    send.send_reset(h2::Reason::CANCEL);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(adit_link::Reason::Cancelled), 1);
    drop(response);
}
