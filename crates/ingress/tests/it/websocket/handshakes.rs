//! The opening handshake over HTTP/1.1.

use std::time::Duration;

use adit_codec::ResetCode;
use adit_ingress::{Direction, HttpConfig};
use adit_link::Reason;
use adit_testlink::{
    HttpEntry, Incoming, Link, Route, block_text,
    exchanges::{head as http_head, hello, websocket_head},
    http_config,
    http1::{self, read_to_end, read_until},
    tcp::read,
    websocket::{ACCEPT, Frame, KEY, UPGRADE, Visitor, accept, expect, frame, send},
};
use tokio::io::AsyncWriteExt;

use crate::websocket::short;

#[tokio::test(start_paused = true)]
async fn p_9_1_an_upgrade_crosses_without_the_lines_of_its_hop() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut stream = entry.connect().await;
    // RFC 6455, 4.2.1: tokens are compared without case, in lists, in any order.
    let request = format!(
        "GET /chat?room=1 HTTP/1.1\r\nHost: a:80\r\nSec-WebSocket-Key: {KEY}\r\nOrigin: http://a\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nCookie: x=1\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nContent-Length: 0\r\n\
         Upgrade: foo, WebSocket\r\nConnection: keep-alive\r\nConnection: x-mine, UPGRADE\r\nX-Mine: 1\r\n\r\n"
    );
    http1::send(&mut stream, &request).await;
    let (head, mut exchange) = incoming.websocket().await;
    assert_eq!(
        (&head.path[..], &head.authority[..]),
        (&b"/chat?room=1"[..], &b"a:80"[..])
    );
    assert_eq!(&*head.open.tunnel, "web");
    let mut crossed = block_text(&head.headers);
    crossed.retain(|(name, _)| name != "x-request-id");
    let expected = [
        ("origin", "http://a"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("cookie", "x=1"),
        (
            "sec-websocket-extensions",
            "permessage-deflate; client_max_window_bits",
        ),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "a:80"),
        ("x-forwarded-proto", "http"),
    ];
    assert_eq!(crossed, expected.map(|(n, v)| (n.into(), v.into())));

    accept(
        &exchange,
        &[
            ("sec-websocket-protocol", "chat"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("sec-websocket-accept", "another hop's"),
            ("content-length", "0"),
        ],
    );
    let response = read_until(&mut stream, "\r\n\r\n").await;
    let mut got: Vec<_> = response.trim_end().split("\r\n").skip(1).collect();
    got.retain(|line| !line.starts_with("date: "));
    got.sort_unstable();
    let accept = format!("sec-websocket-accept: {ACCEPT}");
    let expected = [
        "connection: Upgrade",
        &accept,
        "sec-websocket-protocol: chat",
        "set-cookie: a=1",
        "set-cookie: b=2",
        "upgrade: websocket",
    ];
    assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(got, expected);
    let mut visitor = Visitor(stream);
    visitor.send(&[Frame::text("up")]).await;
    expect(&mut exchange, &[Frame::text("up")]).await;
    send(&exchange, &[Frame::text("down")]).await;
    visitor.expect(&[Frame::text("down")]).await;
    drop((visitor, exchange));
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_9_1_an_invalid_handshake_is_refused_with_a_reason() {
    const K: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const V: &str = "Sec-WebSocket-Version: 13\r\n";
    const U: &str = "Upgrade: websocket\r\n";
    const C: &str = "Connection: Upgrade\r\n";
    let get = |lines: &[&str]| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
    // Each row: a clause of RFC 6455 or another RFC, a request, the status.
    #[rustfmt::skip]
    let rows = [
        ("4.2.1, 1: a GET request", get(&[U, C, K, V]).replacen("GET", "POST", 1), 400),
        ("4.2.1, 2: a Host header", get(&[U, C, K, V]).replacen("Host: a\r\n", "", 1), 400),
        ("4.2.1, 4: connection: upgrade", get(&[U, K, V]), 400),
        ("4.2.1, 4: connection: upgrade", get(&[U, "Connection: keep-alive\r\n", K, V]), 400),
        ("4.2.1, 5: a key", get(&[U, C, V]), 400),
        ("4.2.1, 5: a key of 16 bytes", get(&[U, C, "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n", V]), 400),
        ("4.2.1, 5: a key in base64", get(&[U, C, "Sec-WebSocket-Key: dGhlIHNhbXBs!SBub25jZQ==\r\n", V]), 400),
        ("11.3.1: the key once", get(&[U, C, K, K, V]), 400),
        ("4.2.1, 6: a version", get(&[U, C, K]), 400),
        ("4.4: another version", get(&[U, C, K, "Sec-WebSocket-Version: 8\r\n"]), 426),
        ("4.4: another version", get(&[U, C, K, "Sec-WebSocket-Version: 25\r\n"]), 426),
        ("4.4: no number", get(&[U, C, K, "Sec-WebSocket-Version: 013\r\n"]), 426),
        ("11.3.5: the version once", get(&[U, C, K, V, V]), 426),
        ("RFC 9110, 9.3.1: a GET has no body", get(&[U, C, K, V, "Content-Length: 2\r\n"]) + "hi", 400),
        ("RFC 9112, 6.1: nor one in chunks", get(&[U, C, K, V, "Transfer-Encoding: chunked\r\n"]) + "0\r\n\r\n", 400),
    ];
    let (entry, mut incoming) = HttpEntry::scripted(short());
    for (clause, request, status) in &rows {
        let response = entry.raw(request.as_bytes()).await.unwrap();
        let (head, _) = response.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{clause}: {response}"
        );
        assert!(head.contains("adit-reason: bad_request"), "{clause}");
        let offers = head.contains("\r\nsec-websocket-version: 13");
        let upgrade = head.contains("\r\nupgrade: websocket");
        assert_eq!(
            (offers, upgrade),
            (*status == 426, *status == 426),
            "{clause}"
        );
        assert!(incoming.try_next().is_none(), "{clause}");
    }
    let stats = entry.stats();
    assert_eq!(stats.failures.of(Reason::BadRequest), rows.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn other_upgrades_stay_http() {
    let entry = HttpEntry::serving(http_config(), hello);
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websockets\r\nConnection: upgrade, close\r\n\r\n",
        // RFC 9110, 7.8: an upgrade in HTTP/1.0 is ignored.
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let response = entry.raw(request.as_bytes()).await.unwrap();
        assert!(
            response.starts_with("HTTP/1.") && response.ends_with("hello"),
            "{response}"
        );
    }
    let seen = entry.seen();
    let upgrades = seen.iter().map(|head| head.headers.first(b"upgrade"));
    assert_eq!(upgrades.collect::<Vec<_>>(), [None; 3]);
}

/// Regression: hyper drops a connection with an upgrade request without shutting it down, and a socket that is closed
/// with unread bytes sends a reset, which discards the response in transit.
#[tokio::test(start_paused = true)]
async fn the_response_to_a_refused_upgrade_survives_later_bytes() {
    let (entry, _incoming) = HttpEntry::scripted(short());
    let mut stream = entry.connect().await;
    let request = UPGRADE.replacen("Version: 13", "Version: 12", 1);
    http1::send(&mut stream, &request).await;
    // The visitor does not wait for its response.
    for _ in 0..64 {
        if stream.write_all(&[b'x'; 16 * 1024]).await.is_err() {
            break;
        }
    }
    let response = read_to_end(&mut stream).await.expect("no reset");
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
}

#[tokio::test(start_paused = true)]
async fn p_9_2_a_refusal_crosses_with_its_body() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut stream = entry.connect().await;
    for status in [200, 401, 403, 426, 500] {
        http1::send(&mut stream, UPGRADE).await;
        let (_, exchange) = incoming.websocket().await;
        let headers = [("www-authenticate", "Basic"), ("content-length", "200000")];
        let head = websocket_head(status, &headers);
        exchange.send.respond(head, false).unwrap();
        let body = vec![b'n'; 200_000];
        let sending = async move {
            exchange.send.send_all(body.into(), true).await.unwrap();
            exchange
        };
        let sending = tokio::spawn(sending);
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("www-authenticate: Basic") && !head.contains("upgrade:"));
        let body = read(&mut stream, 200_000).await;
        assert!(body.iter().all(|byte| *byte == b'n'));
        drop(sending.await.unwrap());
        entry.settled().await;
    }
    assert_eq!(entry.stats().connections, 1);
    let failed = entry.stats().failures.total();
    assert_eq!(failed, 0, "a refusal is a response");
}

#[tokio::test(start_paused = true)]
async fn a_failed_handshake_is_a_response_with_a_reason() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    for (code, status, reason) in [
        (ResetCode::DialFailed, 502, "dial_failed"),
        (ResetCode::ServiceTimeout, 504, "service_timeout"),
        (ResetCode::ServiceAborted, 502, "service_aborted"),
        (ResetCode::Limit, 503, "limit"),
    ] {
        let mut stream = entry.connect().await;
        http1::send(&mut stream, UPGRADE).await;
        let (_, exchange) = incoming.websocket().await;
        exchange.send.reset(code, "not here");
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains(&format!("adit-reason: {reason}")), "{head}");
    }
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_handshake_has_the_service_timeout_of_any_request() {
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        service_timeout: Duration::from_millis(100),
        ..short()
    });
    let mut stream = entry.connect().await;
    http1::send(&mut stream, UPGRADE).await;
    let (_, _exchange) = incoming.websocket().await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_visitor_that_leaves_during_the_handshake_cancels_it() {
    let (entry, mut incoming) = HttpEntry::scripted(HttpConfig {
        half_close_timeout: Duration::from_millis(50),
        ..short()
    });
    let mut stream = entry.connect().await;
    http1::send(&mut stream, UPGRADE).await;
    let (_, mut exchange) = incoming.websocket().await;
    drop(stream);
    let failure = frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    entry.settled().await;
}

#[tokio::test(start_paused = true)]
async fn p_6_3_a_client_that_refuses_is_followed_by_another() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        let (dispatch, mut incoming) = Incoming::channel();
        let links = [(); 2].map(|()| Link::to(dispatch.clone()));
        let entry = Route::through(&links).http(short());
        let mut stream = entry.connect().await;
        http1::send(&mut stream, UPGRADE).await;
        let (_, first) = incoming.websocket().await;
        first.send.reset(code, "not here");
        let (_, second) = incoming.websocket().await;
        accept(&second, &[]);
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(*entry.director.avoided.lock().unwrap(), [vec![], vec![0]]);
        assert_eq!(entry.stats().retries, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_waits_for_a_client_as_any_request() {
    let (link, mut incoming) = Link::scripted();
    let (come, comes) = tokio::sync::watch::channel(false);
    let route = Route::director(&[], move |visit, _| {
        let visit = visit.unwrap();
        assert_eq!(visit.protocol, adit_codec::ProtocolType::WebSocket);
        assert_eq!((visit.host(), visit.path.path()), ("a", "/chat"));
        let (link, mut comes) = (link.clone(), comes.clone());
        Direction::Wait(Box::pin(async move {
            comes.wait_for(|come| *come).await.unwrap();
            Ok(link.destination(1))
        }))
    });
    let entry = route.http(short());
    let mut stream = entry.connect().await;
    http1::send(&mut stream, UPGRADE).await;
    let waiting = tokio::spawn(async move { read_until(&mut stream, "\r\n\r\n").await });
    come.send(true).unwrap();
    let (_, exchange) = incoming.websocket().await;
    accept(&exchange, &[]);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 101 "));
}

#[tokio::test(start_paused = true)]
async fn frames_behind_the_handshake_are_not_lost() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut stream = entry.connect().await;
    let early = [UPGRADE.as_bytes(), &Frame::text("early").masked()[..9]].concat();
    http1::send(&mut stream, &early).await;
    let (_, mut exchange) = incoming.websocket().await;
    accept(&exchange, &[]);
    read_until(&mut stream, "\r\n\r\n").await;
    http1::send(&mut stream, &Frame::text("early").masked()[9..]).await;
    expect(&mut exchange, &[Frame::text("early")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_responds_with_another_protocol_gets_502() {
    let (entry, mut incoming) = HttpEntry::scripted(short());
    let mut stream = entry.connect().await;
    http1::send(&mut stream, UPGRADE).await;
    let (_, exchange) = incoming.websocket().await;
    let _ = exchange.send.respond(http_head(200, &[], b"hello"), true);
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("adit-reason: protocol_error"), "{head}");
}
