//! WebSockets of services (section 9 of the protocol): services scripted byte by byte, and one of another library.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use adit_codec::{ResetCode, ResponseHead, WebSocketFrame, WebSocketResponse};
use adit_egress::{Config, Protocol, ServiceConfig};
use adit_link::{Exchange, Failure, Part, Reason};
use adit_testlink::{
    EgressLink, TunnelRequest, block_text, http_service,
    http1::{self, read_head, values},
    next_part, pass,
    tcp::{serve, service},
    until,
    websocket::{self, Frame, accept_upgrade, read_masked},
    within,
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

fn short() -> Config {
    Config {
        close_timeout: Duration::from_millis(300),
        ..Config::default()
    }
}

/// Opens a WebSocket.
fn open_websocket(link: &EgressLink, headers: &[(&str, &str)]) -> Exchange {
    let request = TunnelRequest::new("GET", "/chat?room=1", headers);
    link.open(request.websocket(), false)
}

async fn response(exchange: &mut Exchange) -> Result<WebSocketResponse, Failure> {
    match next_part(&mut exchange.recv).await {
        Some(Ok(Part::Response(ResponseHead::WebSocket(head)))) => Ok(*head),
        Some(Err(failure)) => Err(failure),
        other => panic!("expected a response, got {other:?}"),
    }
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    match values(head, name)[..] {
        [value] => value,
        _ => panic!("expected {name} once in {head}"),
    }
}

/// A service that passes its connections to the test after the upgrade.
async fn upgraded() -> (u16, mpsc::UnboundedReceiver<TcpStream>) {
    service(|mut socket, _| async move {
        accept_upgrade(&mut socket, "").await;
        socket
    })
    .await
}

/// A WebSocket and its service.
async fn open(
    link: &EgressLink,
    sockets: &mut mpsc::UnboundedReceiver<TcpStream>,
) -> (Exchange, TcpStream) {
    let mut exchange = open_websocket(link, &[]);
    assert_eq!(response(&mut exchange).await.unwrap().status, 101);
    (exchange, within(sockets.recv()).await.unwrap())
}

async fn service_gets(socket: &mut TcpStream, frames: &[Frame]) {
    for expected in frames {
        let frame = read_masked(socket).await.map(|(frame, _)| frame);
        assert_eq!(frame.as_ref(), Some(expected));
    }
}

async fn service_sends(socket: &mut TcpStream, frames: &[Frame]) {
    for frame in frames {
        http1::send(socket, frame.bytes(None)).await;
    }
}

/// Waits until nothing is open on either side.
async fn settled(link: &EgressLink) {
    link.settled().await;
    until("the egress has no WebSocket", || {
        link.egress.stats().websockets == 0
    })
    .await;
    assert_eq!(link.egress.stats().connections, 0);
}

#[tokio::test]
async fn p_9_1_a_handshake_is_written_as_a_service_expects_it() {
    let (send, mut heads) = mpsc::unbounded_channel();
    let port = serve(move |mut socket, _| {
        let send = send.clone();
        async move {
            let lines = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                         Keep-Alive: 5\r\nContent-Length: 0\r\n";
            let head = accept_upgrade(&mut socket, lines).await;
            send.send(head).unwrap();
            let _ = socket.read_u8().await;
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), short());
    let headers = [
        ("origin", "http://a"),
        ("host", "other.example"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        // Lines that a server which does not follow P-9.1 might send.
        ("sec-websocket-key", "theirs"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-accept", "theirs"),
        ("connection", "upgrade, x-hop"),
        ("x-hop", "1"),
        ("upgrade", "h2c"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("content-length", "5"),
        ("x-a", "1"),
        ("x-a", "2"),
    ];
    let mut exchange = open_websocket(&link, &headers);
    let head = response(&mut exchange).await.unwrap();
    let written = within(heads.recv()).await.unwrap();
    let key = header(&written, "sec-websocket-key").to_owned();
    assert!(adit_websocket::is_key(key.as_bytes()));
    let expected = format!(
        "GET /chat?room=1 HTTP/1.1\r\nhost: visitor.example\r\norigin: http://a\r\n\
         sec-websocket-protocol: chat, superchat\r\nsec-websocket-extensions: permessage-deflate\r\n\
         x-a: 1\r\nx-a: 2\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: {key}\r\n\r\n"
    );
    assert_eq!(written, expected);
    let lines = block_text(&head.headers);
    let crossed = [
        ("sec-websocket-protocol", "chat"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ];
    assert_eq!(lines, crossed.map(|(n, v)| (n.into(), v.into())));

    // The handshake has the lines of an HTTP request, and each handshake has its own key.
    let mut service = http_service(port);
    service.host_rewrite = Some("inner".into());
    service.custom_headers = vec![
        ("X-A".into(), "mine".into()),
        ("sec-websocket-key".into(), "mine".into()),
    ];
    link.serve(service);
    let mut exchange = open_websocket(&link, &[("x-a", "1")]);
    response(&mut exchange).await.unwrap();
    let written = within(heads.recv()).await.unwrap();
    assert_eq!(header(&written, "host"), "inner");
    assert_eq!(header(&written, "x-a"), "mine");
    assert_ne!(header(&written, "sec-websocket-key"), key);
    assert_eq!(link.egress.stats().dialled, 2, "a connection for each");
}

#[tokio::test]
async fn invalid_handshake_responses_are_rejected() {
    const U: &str = "Upgrade: websocket\r\n";
    const C: &str = "Connection: upgrade\r\n";
    // Each row: a clause of RFC 6455, a response with ACCEPT in place of the correct value, a part of the error.
    #[rustfmt::skip]
    let rows = [
        ("4.1, 2: an upgrade header", format!("HTTP/1.1 101 X\r\n{C}Sec-WebSocket-Accept: ACCEPT\r\n\r\n"), "other than WebSocket"),
        ("4.1, 2: of websocket", format!("HTTP/1.1 101 X\r\nUpgrade: h2c\r\n{C}Sec-WebSocket-Accept: ACCEPT\r\n\r\n"), "other than WebSocket"),
        ("4.1, 3: a connection header", format!("HTTP/1.1 101 X\r\n{U}Sec-WebSocket-Accept: ACCEPT\r\n\r\n"), "other than WebSocket"),
        ("4.1, 3: of upgrade", format!("HTTP/1.1 101 X\r\n{U}Connection: close\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), "other than WebSocket"),
        ("4.1, 4: an accept header", format!("HTTP/1.1 101 X\r\n{U}{C}\r\n"), "Sec-WebSocket-Accept"),
        ("4.1, 4: of the key", format!("HTTP/1.1 101 X\r\n{U}{C}Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"), "Sec-WebSocket-Accept"),
        ("11.3.3: once", format!("HTTP/1.1 101 X\r\n{U}{C}Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n"), "Sec-WebSocket-Accept"),
        ("no HTTP", "SSH-2.0-OpenSSH\r\n".into(), "invalid HTTP/1 response"),
        ("nothing", String::new(), "closed the connection"),
        ("half of a head", "HTTP/1.1 101 X\r\nUpgrade: webso".into(), "closed the connection"),
        ("too many interim responses", "HTTP/1.1 103 X\r\n\r\n".repeat(40), "too many interim responses"),
    ];
    for (clause, row, part) in rows {
        let port = serve(move |mut socket, _| {
            let row = row.clone();
            async move {
                let head = read_head(&mut socket).await.unwrap();
                let accept = adit_websocket::accept(header(&head, "sec-websocket-key").as_bytes());
                let response = row.replace("ACCEPT", &accept);
                let _ = socket.write_all(response.as_bytes()).await;
            }
        })
        .await;
        let link = EgressLink::to(http_service(port), short());
        let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted, "{clause}");
        assert!(failure.detail.contains(part), "{clause}: {failure}");
        settled(&link).await;
    }
}

#[tokio::test]
async fn p_9_2_a_refusal_is_passed_on_with_its_body() {
    let big = "n".repeat(300_000);
    for (responses, body) in [
        ("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n".into(), "no!".into()),
        ("HTTP/1.1 500 No\r\nConnection: close\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n".into(), String::new()),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 204 OK\r\n\r\n".into(), String::new()),
        (format!("HTTP/1.1 500 No\r\nContent-Length: 300000\r\n\r\n{big}"), big),
    ] {
        let bytes = responses.clone();
        let port = serve(move |mut socket, _| {
            let bytes = bytes.clone();
            async move {
                read_head(&mut socket).await.unwrap();
                // The response is sent in two pieces, so that the second one has to be read.
                let (start, rest) = bytes.split_at(bytes.len() - bytes.len() / 3);
                http1::send(&mut socket, &start).await;
                tokio::task::yield_now().await;
                let _ = socket.write_all(rest.as_bytes()).await;
            }
        })
        .await;
        let link = EgressLink::to(http_service(port), short());
        let mut exchange = open_websocket(&link, &[]);
        let head = response(&mut exchange).await.unwrap();
        let status = responses.lines().find_map(|line| {
            let status: u16 = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().unwrap();
            (status >= 200).then_some(status)
        });
        assert_eq!(Some(head.status), status);
        let mut got = Vec::new();
        while let Some(part) = next_part(&mut exchange.recv).await {
            match part.unwrap() {
                Part::Data(data) => got.extend_from_slice(data.bytes()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, body.as_bytes());
        drop(exchange);
        settled(&link).await;
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_does_not_look_whole() {
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        let response = b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nno!";
        http1::send(&mut socket, response).await;
    })
    .await;
    let link = EgressLink::to(http_service(port), short());
    let mut exchange = open_websocket(&link, &[]);
    // The head of the response may have been dropped by then.
    let failure = loop {
        match next_part(&mut exchange.recv).await {
            Some(Ok(_)) => {}
            Some(Err(failure)) => break failure,
            None => panic!("it looks whole"),
        }
    };
    assert_eq!(failure.reason, Reason::ServiceAborted);
}

#[tokio::test]
async fn p_9_3_frames_cross_and_each_is_masked_anew() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    let frames = [
        Frame::of(false, 0, 1, "one "),
        Frame::new(9, "ping"),
        Frame::of(false, 5, 0, ""),
        Frame::new(0, "two"),
        Frame::new(2, vec![7; 126]),
        Frame::new(2, vec![8; 65_535]),
        Frame::new(2, vec![9; 300_000]),
        Frame::of(true, 4, 7, "reserved"),
    ];
    // Both directions run at once, because the large frames need their credit returned.
    let (read, write) = service.split();
    let sending = websocket::send(&exchange, &frames);
    let mut keys = Vec::new();
    let mut stream = read;
    let reading = async {
        for expected in &frames {
            let (got, key) = read_masked(&mut stream).await.unwrap();
            assert_eq!(&got, expected);
            keys.push(key);
        }
    };
    tokio::join!(sending, reading);
    // RFC 6455, 5.3 and 10.3: keys are new for each frame, and unpredictable.
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), frames.len());
    let mut write = write;
    let sending = async {
        for frame in &frames {
            write.write_all(&frame.bytes(None)).await.unwrap();
        }
    };
    tokio::join!(sending, websocket::expect(&mut exchange, &frames));
}

#[tokio::test]
async fn frames_that_come_with_the_response_are_not_lost() {
    let port = serve(|mut socket, _| async move {
        let head = read_head(&mut socket).await.unwrap();
        let accept = adit_websocket::accept(header(&head, "sec-websocket-key").as_bytes());
        let mut bytes = format!(
            "HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend(Frame::new(1, "early").bytes(None));
        bytes.extend(&Frame::new(1, "split").bytes(None)[..4]);
        http1::send(&mut socket, &bytes).await;
        tokio::task::yield_now().await;
        http1::send(&mut socket, &Frame::new(1, "split").bytes(None)[4..]).await;
        let _ = socket.read_u8().await;
    })
    .await;
    let link = EgressLink::to(http_service(port), short());
    let mut exchange = open_websocket(&link, &[]);
    response(&mut exchange).await.unwrap();
    websocket::expect(
        &mut exchange,
        &[Frame::new(1, "early"), Frame::new(1, "split")],
    )
    .await;
}

/// Each row: a clause of RFC 6455, and bytes that no server may send.
#[tokio::test]
async fn p_9_3_an_invalid_frame_of_the_service_ends_it() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    #[rustfmt::skip]
    let rows: [(&str, &[u8]); 9] = [
        ("5.1: a mask", &[0x81, 0x82, 1, 2, 3, 4, 0, 0]),
        ("5.1: a mask on a close frame", &[0x88, 0x80, 1, 2, 3, 4]),
        ("5.2: 125 bytes in 16 bits", &[0x82, 126, 0, 125]),
        ("5.2: 65535 bytes in 64 bits", &[0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff]),
        ("5.2: a length of 2^63", &[0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("5.5: a ping of 126 bytes", &[0x89, 126, 0, 126]),
        ("5.5: a close frame in 64 bits", &[0x88, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ("5.5: a ping in fragments", &[0x09, 0]),
        ("5.5: a close frame in fragments", &[0x08, 2, 3, 232]),
    ];
    for (clause, bytes) in rows {
        let (mut exchange, mut service) = open(&link, &mut sockets).await;
        service_sends(&mut service, &[Frame::new(1, "fine")]).await;
        websocket::expect(&mut exchange, &[Frame::new(1, "fine")]).await;
        http1::send(&mut service, bytes).await;
        let failure = websocket::frame(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted, "{clause}");
        service_gets(&mut service, &[Frame::close(1002)]).await;
        assert!(read_masked(&mut service).await.is_none(), "{clause}");
        drop((exchange, service));
    }
    settled(&link).await;
}

#[tokio::test]
async fn p_9_6_both_close_frames_cross_and_then_all_is_over() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    for service_first in [true, false] {
        let (mut exchange, mut service) = open(&link, &mut sockets).await;
        if service_first {
            service_sends(&mut service, &[Frame::close(4000)]).await;
            websocket::expect(&mut exchange, &[Frame::close(4000)]).await;
            websocket::send(
                &exchange,
                &[Frame::new(1, "last words"), Frame::close(1000)],
            )
            .await;
            exchange.send.finish().unwrap();
            service_gets(
                &mut service,
                &[Frame::new(1, "last words"), Frame::close(1000)],
            )
            .await;
        } else {
            websocket::send(&exchange, &[Frame::close(1000)]).await;
            service_gets(&mut service, &[Frame::close(1000)]).await;
            service_sends(
                &mut service,
                &[Frame::new(1, "last words"), Frame::close(4000)],
            )
            .await;
            websocket::expect(
                &mut exchange,
                &[Frame::new(1, "last words"), Frame::close(4000)],
            )
            .await;
            exchange.send.finish().unwrap();
        }
        assert_eq!(
            websocket::frame(&mut exchange.recv).await.unwrap(),
            None,
            "a clean end"
        );
        assert!(read_masked(&mut service).await.is_none());
        drop((exchange, service));
        settled(&link).await;
    }
    let pending = link.far.stats().pending;
    assert_eq!((pending.cancelled, pending.failed), (0, 0), "{pending:?}");
}

/// RFC 6455, 7.1.1: a loss is reported without a close frame. Earlier frames arrive.
#[tokio::test]
async fn p_9_6_a_lost_service_is_an_end_or_a_reset() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    // The service ends between two frames.
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    let frames: Vec<_> = (0..50).map(|n| Frame::new(1, n.to_string())).collect();
    service_sends(&mut service, &frames).await;
    drop(service);
    websocket::expect(&mut exchange, &frames).await;
    assert_eq!(websocket::frame(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    settled(&link).await;
    // The service ends within a frame.
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    http1::send(&mut service, &[0x82, 5, b'h']).await;
    let part = next_part(&mut exchange.recv).await;
    assert!(matches!(part, Some(Ok(Part::Frame(..)))));
    drop((part, service));
    let part = next_part(&mut exchange.recv).await;
    assert!(
        matches!(&part, Some(Err(failure)) if failure.reason == Reason::ServiceAborted),
        "{part:?}"
    );
    drop(exchange);
    // The service ends with a reset.
    let (mut exchange, service) = open(&link, &mut sockets).await;
    service.set_zero_linger().unwrap();
    drop(service);
    let failure = websocket::frame(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted);
    drop(exchange);
    settled(&link).await;
}

#[tokio::test]
async fn p_9_6_a_lost_visitor_ends_without_a_close_frame() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    // The visitor's side ends between two frames: the earlier ones arrive.
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    websocket::send(&exchange, &[Frame::new(1, "last words")]).await;
    exchange.send.finish().unwrap();
    service_gets(&mut service, &[Frame::new(1, "last words")]).await;
    assert!(read_masked(&mut service).await.is_none());
    assert_eq!(websocket::frame(&mut exchange.recv).await.unwrap(), None);
    drop((exchange, service));
    // The visitor's side ends with a reset.
    let (exchange, mut service) = open(&link, &mut sockets).await;
    exchange.send.reset(ResetCode::Cancelled, "left");
    assert!(read_masked(&mut service).await.is_none());
    // The link is lost.
    let (_exchange, mut service) = open(&link, &mut sockets).await;
    link.far.close(&Failure::new(Reason::LinkLost, "cut"));
    assert!(read_masked(&mut service).await.is_none());
    until("the connections are counted", || {
        link.egress.stats().websockets == 0
    })
    .await;
}

#[tokio::test]
async fn p_9_6_a_draining_client_sends_1001_to_both_sides() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    link.egress.set_draining(true);
    service_gets(&mut service, &[Frame::close(1001)]).await;
    websocket::expect(&mut exchange, &[Frame::close(1001)]).await;
    // After the close frames nothing is forwarded: the close frames of the peers are replies to them.
    service_sends(
        &mut service,
        &[Frame::new(1, "too late"), Frame::close(1001)],
    )
    .await;
    websocket::send(&exchange, &[Frame::new(1, "too late"), Frame::close(1001)]).await;
    exchange.send.finish().unwrap();
    assert_eq!(websocket::frame(&mut exchange.recv).await.unwrap(), None);
    assert!(read_masked(&mut service).await.is_none());
    drop((exchange, service));
    settled(&link).await;
    // P-6.6: new requests are refused.
    let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Draining);
    link.egress.set_draining(false);
    // A service that does not respond ends the WebSocket after a bounded time.
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    let began = Instant::now();
    link.egress.close_websockets();
    service_gets(&mut service, &[Frame::close(1001)]).await;
    websocket::expect(&mut exchange, &[Frame::close(1001)]).await;
    assert!(read_masked(&mut service).await.is_none());
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "it was waited"
    );
    drop(exchange);
    settled(&link).await;
}

#[tokio::test]
async fn p_9_5_a_service_that_takes_nothing_stops_its_own_frames_only() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    let (stalled, mut stuck) = open(&link, &mut sockets).await;
    let (mut other, mut service) = open(&link, &mut sockets).await;
    let length = 32 << 20;
    let head = WebSocketFrame {
        length,
        ..Frame::new(2, "").head
    };
    stalled.send.send_frame(head, Bytes::new()).unwrap();
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let mut sent = 0;
    while let Ok(allowed) =
        tokio::time::timeout(Duration::from_millis(500), stalled.send.ready()).await
    {
        let part = chunk.slice(..allowed.unwrap().min(chunk.len()));
        sent += part.len() as u64;
        stalled.send.send(part, false).unwrap();
    }
    assert!(sent < length, "it was stopped");
    assert!(link.far.stats().waiting_bytes <= 4 << 20);
    for _ in 0..100 {
        websocket::send(&other, &[Frame::new(1, "ping")]).await;
        service_gets(&mut service, &[Frame::new(1, "ping")]).await;
        service_sends(&mut service, &[Frame::new(1, "pong")]).await;
        websocket::expect(&mut other, &[Frame::new(1, "pong")]).await;
    }
    // The transfer continues where it stopped.
    let rest = async {
        while sent < length {
            let allowed = within(stalled.send.ready()).await.unwrap() as u64;
            let part = allowed.min(length - sent).min(chunk.len() as u64);
            sent += part;
            stalled
                .send
                .send(chunk.slice(..usize::try_from(part).unwrap()), false)
                .unwrap();
        }
    };
    let reading = async {
        let (got, _) = read_masked(&mut stuck).await.unwrap();
        assert!(got.payload.len() as u64 == length && got.payload.iter().all(|byte| *byte == 7));
    };
    tokio::join!(rest, reading);
}

#[tokio::test]
async fn p_9_5_a_visitor_that_reads_nothing_stops_its_own_service() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(http_service(port), short());
    let (mut stalled, mut busy) = open(&link, &mut sockets).await;
    let (mut other, mut service) = open(&link, &mut sockets).await;
    let long = Frame::new(2, vec![7; 16 << 20]);
    let bytes = long.bytes(None);
    let sending = tokio::spawn(async move {
        busy.write_all(&bytes).await.unwrap();
        busy
    });
    let waiting = || link.near.stats().waiting_bytes;
    let window = u64::from(link.near.initial_window());
    until("the window is used up", || waiting() + 1024 >= window).await;
    for _ in 0..100 {
        service_sends(&mut service, &[Frame::new(1, "ping")]).await;
        websocket::expect(&mut other, &[Frame::new(1, "ping")]).await;
    }
    assert!(!sending.is_finished(), "the service is not read");
    assert!(waiting() <= window, "{}", waiting());
    websocket::expect(&mut stalled, &[long]).await;
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_service_that_reads_nothing_for_session_stall_is_reset() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(
        http_service(port),
        Config {
            tcp_stall_timeout: Duration::from_millis(200),
            ..short()
        },
    );
    let (exchange, _stuck) = open(&link, &mut sockets).await;
    let head = WebSocketFrame {
        length: 1 << 40,
        ..Frame::new(2, "").head
    };
    exchange.send.send_frame(head, Bytes::new()).unwrap();
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    let failure = loop {
        match within(exchange.send.ready()).await {
            Ok(allowed) => drop(
                exchange
                    .send
                    .send(chunk.slice(..allowed.min(chunk.len())), false),
            ),
            Err(failure) => break failure,
        }
    };
    assert_eq!(failure.reason, Reason::ServiceTimeout, "{failure}");
    drop(exchange);
    settled(&link).await;
}

/// A WebSocket may be silent for days: no timeout of HTTP applies to it.
#[tokio::test]
async fn a_silent_websocket_stays_open() {
    let (port, mut sockets) = upgraded().await;
    let moment = Duration::from_millis(100);
    let link = EgressLink::to(
        http_service(port),
        Config {
            response_timeout: moment * 10,
            idle_timeout: moment,
            stall_timeout: moment,
            early_response_timeout: moment,
            close_timeout: moment,
            ..Config::default()
        },
    );
    let (mut exchange, mut service) = open(&link, &mut sockets).await;
    pass(moment * 15).await;
    websocket::send(&exchange, &[Frame::new(9, "")]).await;
    service_gets(&mut service, &[Frame::new(9, "")]).await;
    service_sends(&mut service, &[Frame::new(10, "")]).await;
    websocket::expect(&mut exchange, &[Frame::new(10, "")]).await;
}

#[tokio::test]
async fn failed_handshakes_are_reported_with_their_reason() {
    // No service listens.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let link = EgressLink::to(http_service(port), short());
    let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    settled(&link).await;
    // The service does not respond.
    let port = serve(|mut socket, _| async move {
        read_head(&mut socket).await;
        let _ = socket.read_u8().await;
    })
    .await;
    let link = EgressLink::to(
        http_service(port),
        Config {
            response_timeout: Duration::from_millis(100),
            ..short()
        },
    );
    let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    settled(&link).await;
    // The service has another protocol.
    let link = EgressLink::new(short());
    link.serve(ServiceConfig::new("127.0.0.1", port, Protocol::Tcp));
    let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
}

#[tokio::test]
async fn a_visitor_that_leaves_during_the_handshake_closes_the_connection() {
    let left = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (Arc::new(tokio::sync::Notify::new()), left.clone());
    let notified = seen.clone();
    let port = serve(move |mut socket, _| {
        let (notified, count) = (notified.clone(), count.clone());
        async move {
            read_head(&mut socket).await.unwrap();
            notified.notify_one();
            assert!(socket.read_u8().await.is_err());
            count.fetch_add(1, Ordering::Relaxed);
            notified.notify_one();
        }
    })
    .await;
    let link = EgressLink::to(http_service(port), short());
    let exchange = open_websocket(&link, &[]);
    within(seen.notified()).await;
    drop(exchange);
    within(seen.notified()).await;
    assert_eq!(left.load(Ordering::Relaxed), 1);
    settled(&link).await;
}

#[tokio::test]
async fn the_connections_of_a_service_are_bounded() {
    let (port, mut sockets) = upgraded().await;
    let link = EgressLink::to(
        http_service(port),
        Config {
            max_connections: 2,
            ..short()
        },
    );
    let one = open(&link, &mut sockets).await;
    let _two = open(&link, &mut sockets).await;
    assert_eq!(link.egress.stats().websockets, 2);
    let failure = response(&mut open_websocket(&link, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    drop(one);
    until("the connections are counted", || {
        link.egress.stats().websockets <= 1
    })
    .await;
    let _three = open(&link, &mut sockets).await;
}

/// A service of another library, which generates its own frames and closes.
#[tokio::test]
async fn a_service_of_tungstenite_is_understood() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_text() || message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    });
    let link = EgressLink::to(http_service(port), short());
    let mut exchange = open_websocket(&link, &[]);
    response(&mut exchange).await.unwrap();
    websocket::send(&exchange, &[Frame::new(1, "hello")]).await;
    websocket::expect(&mut exchange, &[Frame::new(1, "hello")]).await;
    websocket::send(
        &exchange,
        &[
            Frame::of(false, 0, 2, [1; 300]),
            Frame::new(9, "ping"),
            Frame::new(0, [2; 300]),
        ],
    )
    .await;
    let whole = [[1; 300], [2; 300]].concat();
    websocket::expect(
        &mut exchange,
        &[Frame::new(10, "ping"), Frame::new(2, whole)],
    )
    .await;
    websocket::send(&exchange, &[Frame::close(1000)]).await;
    websocket::expect(&mut exchange, &[Frame::close(1000)]).await;
    exchange.send.finish().unwrap();
    assert_eq!(websocket::frame(&mut exchange.recv).await.unwrap(), None);
    drop(exchange);
    settled(&link).await;
}
