//! Visitors that offer to change to another protocol (P-3.7).

use std::sync::{Arc, Mutex};

use adit_codec::{EncodedHead, HttpRequest, HttpResponseHead, ResetCode, Side};
use adit_link::{Exchange, Part, Reason};
use adit_testlink::{
    HttpEntry, Incoming, Link, Route,
    exchanges::{body_of, respond},
    http_config,
    http1::{read_to_end, read_until, send},
    lane, lane_config, lane_of,
    tcp::reset,
    until, within,
};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// The first request of `docker exec`.
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

/// Sends `hello` first, then returns all bytes, and sends `bye` at the end.
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

#[tokio::test(start_paused = true)]
async fn p_3_7_bytes_go_both_ways_after_the_switch_with_half_close() {
    let entry = HttpEntry::serving(http_config(), changes);
    let mut stream = entry.connect().await;
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
    let (mut reading, mut writing) = tokio::io::split(&mut stream);
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
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

/// A visitor that knows the response in advance may send data of the new protocol before it receives the response.
#[tokio::test(start_paused = true)]
async fn bytes_behind_the_request_are_carried_first() {
    let entry = HttpEntry::serving(http_config(), changes);
    let mut stream = entry.connect().await;
    send(&mut stream, &format!("{EXEC}early")).await;
    let all = read_until(&mut stream, "early").await;
    assert!(all.ends_with("\r\n\r\nhelloearly"), "{all}");
}

#[tokio::test(start_paused = true)]
async fn p_3_7_any_other_response_is_one_of_http() {
    let entry = HttpEntry::serving(http_config(), |_, mut exchange| async move {
        let body = next(&mut exchange).await.unwrap();
        respond(&exchange, 200, &[], &body);
        // The visitor's direction ends when the offer is not accepted.
        assert!(exchange.recv.part().await.is_none());
    });
    let mut stream = entry.connect().await;
    send(&mut stream, EXEC).await;
    let all = read_until(&mut stream, "{}").await;
    assert!(all.starts_with("HTTP/1.1 200 OK\r\n"), "{all}");
    drop(stream);
    entry.settled().await;
    assert_eq!(entry.stats().failures.total(), 0);
}

#[tokio::test(start_paused = true)]
async fn p_3_7_only_upgrades_of_small_requests_are_offered() {
    let entry = HttpEntry::serving(
        http_config(),
        |request: HttpRequest, mut exchange: Exchange| async move {
            let offered = String::from_utf8(request.upgrade.to_vec()).unwrap();
            assert_eq!(request.headers.first(b"upgrade"), None);
            assert_eq!(request.headers.first(b"connection"), None);
            if offered.is_empty() {
                body_of(&mut exchange).await.unwrap();
            }
            respond(&exchange, 200, &[("x-offered", &offered)], b"");
        },
    );
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
        // The end of such a body cannot be distinguished from the bytes after it.
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
        let mut stream = entry.connect().await;
        send(&mut stream, &request).await;
        let head = read_until(&mut stream, "\r\n\r\n").await;
        let line = format!("x-offered: {offered}\r\n");
        assert!(head.contains(&line), "{head} {}", &request[..60]);
    }
}

#[tokio::test(start_paused = true)]
async fn p_1_2_a_peer_without_the_capability_gets_no_offer() {
    let (dispatch, mut incoming) = Incoming::channel();
    let far = lane(lane_config(Side::Client), dispatch);
    let link = Link::between(lane_of(Side::Server), far);
    let entry = Route::to(&link).http(http_config());
    let mut stream = entry.connect().await;
    send(&mut stream, EXEC).await;
    let (head, exchange) = incoming.http().await;
    assert_eq!(head.upgrade, "");
    assert!(exchange.recv.is_complete());
    respond(&exchange, 204, &[], b"");
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
}

#[tokio::test(start_paused = true)]
async fn a_break_on_one_hop_resets_the_other() {
    let ends: Arc<Mutex<Vec<Reason>>> = Arc::default();
    let reasons = ends.clone();
    let entry = HttpEntry::serving(
        http_config(),
        move |request: HttpRequest, mut exchange: Exchange| {
            let reasons = reasons.clone();
            async move {
                next(&mut exchange).await;
                exchange.send.respond(switch("tcp", &[]), false).unwrap();
                if &request.path[..] == b"/reset" {
                    next(&mut exchange).await;
                    exchange.send.reset(ResetCode::ServiceAborted, "broke off");
                    return;
                }
                let failure = exchange.recv.part().await.unwrap().unwrap_err();
                reasons.lock().unwrap().push(failure.reason);
            }
        },
    );
    let mut stream = entry.connect().await;
    send(&mut stream, &EXEC.replace("/exec/1/start", "/reset")).await;
    read_until(&mut stream, "\r\n\r\n").await;
    send(&mut stream, "x").await;
    read_to_end(&mut stream).await.unwrap_err();

    let mut stream = entry.connect().await;
    send(&mut stream, EXEC).await;
    read_until(&mut stream, "\r\n\r\n").await;
    reset(stream);
    until("the exchange fails", || !ends.lock().unwrap().is_empty()).await;
    assert_eq!(*ends.lock().unwrap(), [Reason::Cancelled]);
    entry.settled().await;
}
