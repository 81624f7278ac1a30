//! The opening handshake over HTTP/1.1.

use std::sync::{Arc, Mutex};

use adit_codec::{ResetCode, WebSocketResponseHead};
use adit_ingress::Direction;
use adit_link::Reason;
use tokio::io::AsyncWriteExt;

use crate::{
    setting::{ACCEPT, Far, Frame, KEY, Setting, UPGRADE, Visitor, accept, gets, send, short},
    world::{
        Link, World, destination, director, head as http_head, read_to_end, read_until,
        standard_layers, within,
    },
};

fn lines(block: &adit_codec::HeaderBlock) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    block.lines().map(|(n, v)| (text(n), text(v))).collect()
}

#[tokio::test]
async fn p_9_1_an_upgrade_crosses_without_the_lines_of_its_hop() {
    let mut setting = Setting::new().await;
    let mut stream = setting.world.connect().await;
    // RFC 6455, 4.2.1: tokens whatever their case, in lists, in any order.
    let request = format!(
        "GET /chat?room=1 HTTP/1.1\r\nHost: a:80\r\nSec-WebSocket-Key: {KEY}\r\nOrigin: http://a\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nCookie: x=1\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nContent-Length: 0\r\n\
         Upgrade: foo, WebSocket\r\nConnection: keep-alive\r\nConnection: x-mine, UPGRADE\r\nX-Mine: 1\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (head, mut exchange) = setting.asked().await;
    assert_eq!(
        (&head.path[..], &head.authority[..]),
        (&b"/chat?room=1"[..], &b"a:80"[..])
    );
    assert_eq!(&*head.open.tunnel, "web");
    let mut crossed = lines(&head.headers);
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
    let answer = read_until(&mut stream, "\r\n\r\n").await;
    let mut got: Vec<_> = answer.trim_end().split("\r\n").skip(1).collect();
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
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(got, expected);
    let mut visitor = Visitor(stream);
    visitor.send(&[Frame::text("up")]).await;
    gets(&mut exchange, &[Frame::text("up")]).await;
    send(&exchange, &[Frame::text("down")]).await;
    visitor.gets(&[Frame::text("down")]).await;
    drop((visitor, exchange));
    setting.world.settle().await;
}

#[tokio::test]
async fn p_9_1_what_is_no_handshake_is_refused_with_a_reason() {
    const K: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const V: &str = "Sec-WebSocket-Version: 13\r\n";
    const U: &str = "Upgrade: websocket\r\n";
    const C: &str = "Connection: Upgrade\r\n";
    let get = |lines: &[&str]| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", lines.concat());
    // Each row: a clause of RFC 6455 or another, a request, the status.
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
    let mut setting = Setting::new().await;
    for (clause, request, status) in &rows {
        let answer = setting.world.raw(request.as_bytes()).await.unwrap();
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{clause}: {answer}"
        );
        assert!(head.contains("adit-reason: bad_request"), "{clause}");
        let offers = head.contains("\r\nsec-websocket-version: 13");
        let upgrade = head.contains("\r\nupgrade: websocket");
        assert_eq!(
            (offers, upgrade),
            (*status == 426, *status == 426),
            "{clause}"
        );
        assert!(setting.is_untouched(), "{clause}");
    }
    let stats = setting.world.http.stats();
    assert_eq!(stats.failed(Reason::BadRequest), rows.len() as u64);
}

#[tokio::test]
async fn what_asks_for_something_else_stays_http() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    let world = World::new(move |head: adit_codec::HttpRequest, exchange| {
        notes
            .lock()
            .unwrap()
            .push(head.headers.first(b"upgrade").is_some());
        async move {
            exchange
                .send
                .respond(http_head(200, &[], b"hello"), true)
                .unwrap();
        }
    })
    .await;
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: upgrade, close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websockets\r\nConnection: upgrade, close\r\n\r\n",
        // RFC 9110, 7.8: in HTTP/1.0 it is ignored.
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ] {
        let answer = world.raw(request.as_bytes()).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.") && answer.ends_with("hello"),
            "{answer}"
        );
    }
    assert_eq!(*seen.lock().unwrap(), [false; 3]);
}

/// Regression: hyper lets go of a connection that was asked to upgrade without shutting it down, and a socket that is
/// closed with unread bytes in it sends a reset, which eats the answer on its way.
#[tokio::test]
async fn the_answer_to_a_refused_upgrade_is_not_eaten_by_what_follows_it() {
    let setting = Setting::new().await;
    let mut stream = setting.world.connect().await;
    let request = UPGRADE.replacen("Version: 13", "Version: 12", 1);
    stream.write_all(request.as_bytes()).await.unwrap();
    // A visitor that does not wait for its answer.
    for _ in 0..64 {
        if stream.write_all(&[b'x'; 16 * 1024]).await.is_err() {
            break;
        }
    }
    let answer = read_to_end(&mut stream).await.expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

#[tokio::test]
async fn p_9_2_a_refusal_crosses_with_its_body_and_the_connection_serves_on() {
    let mut setting = Setting::new().await;
    let mut stream = setting.world.connect().await;
    for status in [200, 401, 403, 426, 500] {
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let (_, exchange) = setting.asked().await;
        let headers = [
            (&b"www-authenticate"[..], &b"Basic"[..]),
            (b"content-length", b"200000"),
        ];
        let head = WebSocketResponseHead { status }
            .encode(headers.into_iter())
            .unwrap();
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
        let mut body = vec![0; 200_000];
        within(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body))
            .await
            .unwrap();
        assert!(body.iter().all(|byte| *byte == b'n'));
        drop(sending.await.unwrap());
        setting.world.settle().await;
    }
    assert_eq!(setting.world.http.stats().connections, 1);
    let failed: u64 = setting.world.http.stats().failures.iter().sum();
    assert_eq!(failed, 0, "a refusal is an answer");
}

#[tokio::test]
async fn a_failed_handshake_is_an_answer_with_a_reason() {
    let mut setting = Setting::new().await;
    for (code, status, reason) in [
        (ResetCode::DialFailed, 502, "dial_failed"),
        (ResetCode::ServiceTimeout, 504, "service_timeout"),
        (ResetCode::ServiceAborted, 502, "service_aborted"),
        (ResetCode::Limit, 503, "limit"),
    ] {
        let mut stream = setting.world.connect().await;
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let (_, exchange) = setting.asked().await;
        exchange.send.reset(code, "said so");
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains(&format!("adit-reason: {reason}")), "{head}");
    }
    setting.world.settle().await;
}

#[tokio::test]
async fn a_service_that_says_nothing_is_waited_for_no_longer_than_for_any_request() {
    let mut setting = Setting::with(adit_ingress::HttpConfig {
        service_timeout: std::time::Duration::from_millis(100),
        ..short()
    })
    .await;
    let mut stream = setting.world.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, _exchange) = setting.asked().await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
}

#[tokio::test]
async fn a_visitor_who_leaves_during_the_handshake_cancels_it() {
    let mut setting = Setting::with(adit_ingress::HttpConfig {
        half_close_timeout: std::time::Duration::from_millis(50),
        ..short()
    })
    .await;
    let mut stream = setting.world.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let (_, mut exchange) = setting.asked().await;
    drop(stream);
    let failure = crate::setting::frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    drop(exchange);
    setting.world.settle().await;
}

#[tokio::test]
async fn p_6_3_a_client_that_refuses_is_followed_by_another() {
    for code in [ResetCode::Refused, ResetCode::Draining] {
        let (sent, mut opened) = tokio::sync::mpsc::unbounded_channel();
        let links = [(); 2].map(|()| Link::to(Arc::new(Far::to(sent.clone()))));
        let (one, other) = (links[0].clone(), links[1].clone());
        let director = director(move |_, avoid| {
            Direction::Go(if avoid.is_empty() {
                destination(&one, 1)
            } else {
                destination(&other, 2)
            })
        });
        let world = World::assemble(short(), standard_layers(), director.clone()).await;
        let mut stream = world.connect().await;
        stream.write_all(UPGRADE.as_bytes()).await.unwrap();
        let first = within(opened.recv()).await.unwrap();
        first.exchange.send.reset(code, "not here");
        let second = within(opened.recv()).await.unwrap();
        accept(&second.exchange, &[]);
        let head = read_until(&mut stream, "\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert_eq!(*director.asked.lock().unwrap(), [vec![], vec![1]]);
        assert_eq!(world.http.stats().retries, 1);
    }
}

#[tokio::test]
async fn a_visitor_waits_for_a_client_and_passes_the_rules_as_any_other() {
    let (sent, mut opened) = tokio::sync::mpsc::unbounded_channel();
    let link = Link::to(Arc::new(Far::to(sent)));
    let (come, comes) = tokio::sync::watch::channel(false);
    let director = director(move |visit, _| {
        assert_eq!(visit.protocol, adit_codec::ProtocolType::WebSocket);
        assert_eq!((visit.host(), visit.path.path()), ("a", "/chat"));
        let (link, mut comes) = (link.clone(), comes.clone());
        Direction::Wait(Box::pin(async move {
            comes.wait_for(|come| *come).await.unwrap();
            Ok(destination(&link, 1))
        }))
    });
    let world = World::assemble(short(), standard_layers(), director).await;
    let mut stream = world.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let waiting = tokio::spawn(async move { read_until(&mut stream, "\r\n\r\n").await });
    come.send(true).unwrap();
    let there = within(opened.recv()).await.unwrap();
    accept(&there.exchange, &[]);
    assert!(waiting.await.unwrap().starts_with("HTTP/1.1 101 "));
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_not_lost() {
    let mut setting = Setting::new().await;
    let mut stream = setting.world.connect().await;
    let early = [UPGRADE.as_bytes(), &Frame::text("early").masked()[..9]].concat();
    stream.write_all(&early).await.unwrap();
    let mut exchange = setting.accepted().await;
    read_until(&mut stream, "\r\n\r\n").await;
    stream
        .write_all(&Frame::text("early").masked()[9..])
        .await
        .unwrap();
    gets(&mut exchange, &[Frame::text("early")]).await;
}

#[tokio::test]
async fn a_client_that_answers_with_another_protocol_is_not_believed() {
    let (sent, mut opened) = tokio::sync::mpsc::unbounded_channel();
    let link = Link::to(Arc::new(Far::to(sent)));
    let director = director(move |_, _| Direction::Go(destination(&link, 1)));
    let world = World::assemble(short(), standard_layers(), director).await;
    let mut stream = world.connect().await;
    stream.write_all(UPGRADE.as_bytes()).await.unwrap();
    let first = within(opened.recv()).await.unwrap();
    let _ = first
        .exchange
        .send
        .respond(http_head(200, &[], b"hello"), true);
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    assert!(head.contains("adit-reason: protocol_error"), "{head}");
}
