//! Through both ends: a visitor, the entry, a lane, the egress and a service, each of an independent library.

use std::{sync::Arc, time::Duration};

use adit_egress::{Config, Egress};
use adit_link::{Failure, Reason};
use adit_testlink::{
    EgressLink, HttpEntry, Route, http_service,
    http1::{self, read_until},
    tcp::{read, service},
    until,
    websocket::{Frame, UPGRADE, Visitor, accept_upgrade, read_frame},
    within,
};
use futures_util::{SinkExt, StreamExt};
use proptest::{
    prelude::*,
    test_runner::{Config as PropConfig, TestRunner},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async, client_async,
    tungstenite::{
        Message,
        client::IntoClientRequest,
        handshake::server::{ErrorResponse, Request, Response},
        http,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::websocket::short;

/// An entry, an egress behind it, and a service on this port.
fn through(port: u16) -> (HttpEntry, Arc<Egress>) {
    let config = Config {
        close_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    let to = EgressLink::to(http_service(port), config);
    (Route::to(&to.link).http(short()), to.egress)
}

/// A service of tungstenite that returns what it receives, and chooses the last subprotocol.
async fn tungstenite() -> u16 {
    service(|stream, _| echo(stream)).await.0
}

#[allow(clippy::result_large_err, reason = "the library's")]
async fn echo(stream: TcpStream) {
    let choose = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        if request.uri().path() == "/refused" {
            let mut refusal = ErrorResponse::new(Some("not here".into()));
            *refusal.status_mut() = http::StatusCode::FORBIDDEN;
            return Err(refusal);
        }
        let offered = request.headers().get("sec-websocket-protocol");
        if let Some(last) = offered.and_then(|o| o.to_str().unwrap().split(", ").last()) {
            response
                .headers_mut()
                .insert("sec-websocket-protocol", last.parse().unwrap());
        }
        Ok(response)
    };
    let Ok(mut socket) = accept_hdr_async(stream, choose).await else {
        return;
    };
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) if text == "close 4001" => {
                let close = CloseFrame {
                    code: CloseCode::Library(4001),
                    reason: "as you like".into(),
                };
                socket.close(Some(close)).await.unwrap();
            }
            Message::Text(_) | Message::Binary(_) => socket.send(message).await.unwrap(),
            _ => {}
        }
    }
}

async fn visit(entry: &HttpEntry, path: &str) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://a{path}").into_client_request().unwrap();
    let offered = "chat, superchat".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", offered);
    let (socket, response) = client_async(request, entry.connect_tcp().await)
        .await
        .unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "superchat");
    socket
}

#[tokio::test]
async fn visitors_and_services_of_another_library_meet() {
    let (entry, egress) = through(tungstenite().await);
    let mut socket = visit(&entry, "/").await;
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::binary(vec![7; 100_000]),
    ] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within(socket.next()).await.unwrap().unwrap(), message);
    }
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    let pong = within(socket.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("are you there".into()));
    // The WebSocket is closed by the service, and by the visitor.
    socket.send(Message::text("close 4001")).await.unwrap();
    let closed = within(socket.next()).await.unwrap().unwrap();
    let Message::Close(Some(close)) = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(
        (close.code, &*close.reason),
        (CloseCode::Library(4001), "as you like")
    );
    assert!(within(socket.next()).await.is_none_or(|end| end.is_err()));
    let mut socket = visit(&entry, "/").await;
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within(socket.next()).await {}
    entry.settled().await;
    assert_eq!(egress.stats().websockets, 0);
    let failed = entry.stats().failures.total();
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn p_9_2_a_refusal_of_the_service_reaches_the_visitor() {
    let (entry, _) = through(tungstenite().await);
    let mut stream = entry.connect_tcp().await;
    let request = UPGRADE.replacen("/chat?room=1", "/refused", 1);
    http1::send(&mut stream, &request).await;
    let head = read_until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
}

#[tokio::test]
async fn a_message_of_64_mib_is_streamed_both_ways() {
    // The service returns the bytes that it reads, without the mask.
    let port = raw_echo().await;
    let (entry, _) = through(port);
    let mut stream = entry.connect_tcp().await;
    http1::send(&mut stream, UPGRADE).await;
    read_until(&mut stream, "\r\n\r\n").await;
    let length: u64 = 64 << 20;
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let head = [&[0xc2, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
        write.write_all(&head).await.unwrap();
        for number in 0..64 {
            write.write_all(&vec![number; 1 << 20]).await.unwrap();
        }
        write
    });
    let mut head = [0; 10];
    within(read.read_exact(&mut head)).await.unwrap();
    assert_eq!(head[..2], [0xc2, 127]);
    let (lane, far) = (entry.links[0].near.clone(), entry.links[0].far.clone());
    let mut piece = vec![0; 1 << 20];
    for number in 0..64 {
        within(read.read_exact(&mut piece)).await.unwrap();
        assert!(piece.iter().all(|byte| *byte == number));
        for lane in [&lane, &far] {
            let stats = lane.stats();
            assert!(stats.waiting_bytes <= 4 << 20, "{stats:?}");
        }
    }
    drop(sending.await.unwrap());
}

/// Returns the payload of each frame as it arrives, and every byte of a head but the mask.
async fn raw_echo() -> u16 {
    service(|stream, _| echo_bytes(stream)).await.0
}

async fn echo_bytes(mut stream: TcpStream) {
    accept_upgrade(&mut stream, "").await;
    let (read, mut write) = stream.split();
    let mut read = tokio::io::BufReader::new(read);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(first) = read.read_u8().await {
        let second = read.read_u8().await.unwrap();
        assert_eq!(second & 0x80, 0x80, "masked");
        let mut head = vec![first, second & 0x7f];
        let extra = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut long = vec![0; extra];
        read.read_exact(&mut long).await.unwrap();
        let mut left = match extra {
            0 => u64::from(second & 0x7f),
            _ => long.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        head.extend(long);
        let mut key = [0; 4];
        read.read_exact(&mut key).await.unwrap();
        if write.write_all(&head).await.is_err() {
            return;
        }
        while left > 0 {
            let most = usize::try_from(left.min(64 * 1024)).unwrap();
            let count = read.read(&mut buffer[..most]).await.unwrap();
            if count == 0 {
                return;
            }
            left -= count as u64;
            for (at, byte) in buffer[..count].iter_mut().enumerate() {
                *byte ^= key[at % 4];
            }
            key.rotate_left(count % 4);
            if write.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }
}

#[tokio::test]
async fn compressed_frames_come_back_byte_for_byte() {
    let (entry, _) = through(raw_echo().await);
    let mut stream = entry.connect_tcp().await;
    http1::send(&mut stream, UPGRADE).await;
    read_until(&mut stream, "\r\n\r\n").await;
    // RFC 7692, 7.2.3.2: "Hello" twice, the second a reference to the first.
    let frames = [
        Frame::of(true, 4, 1, [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]),
        Frame::of(true, 4, 1, [0xf2, 0x00, 0x11, 0x00, 0x00]),
    ];
    let mut visitor = Visitor(stream);
    visitor.send(&frames).await;
    visitor.expect(&frames).await;
}

fn frames() -> impl Strategy<Value = Vec<Frame>> {
    let length = prop_oneof![0_usize..20, 120_usize..135, 65_530_usize..65_540];
    let frame =
        (any::<bool>(), 0_u8..8, 0_u8..16, length).prop_map(|(fin, rsv, opcode, length)| {
            // A close frame would end the WebSocket.
            let opcode = if opcode == 8 { 9 } else { opcode };
            let control = opcode >= 8;
            let length = if control { length.min(125) } else { length };
            Frame::of(fin || control, rsv, opcode, vec![opcode; length])
        });
    prop::collection::vec(frame, 0..12)
}

/// The property of `adit-websocket`, with all parts of a tunnel between the two ends.
#[test]
fn p_9_3_any_frames_cut_anywhere_come_back_unchanged() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (entry, _egress) = runtime.block_on(async { through(raw_echo().await) });
    let config = PropConfig {
        cases: 24,
        failure_persistence: None,
        ..PropConfig::default()
    };
    let strategy = (frames(), prop::collection::vec(1_usize..40_000, 1..10));
    TestRunner::new(config)
        .run(&strategy, |(frames, cuts)| {
            runtime.block_on(async {
                let mut stream = entry.connect_tcp().await;
                http1::send(&mut stream, UPGRADE).await;
                read_until(&mut stream, "\r\n\r\n").await;
                let (mut read, mut write) = tokio::io::split(stream);
                let bytes: Vec<u8> = frames.iter().flat_map(Frame::masked).collect();
                let sending = async {
                    let mut bytes = &bytes[..];
                    for cut in cuts.iter().cycle() {
                        let (now, rest) = bytes.split_at((*cut).min(bytes.len()));
                        write.write_all(now).await.unwrap();
                        tokio::task::yield_now().await;
                        bytes = rest;
                        if bytes.is_empty() {
                            return;
                        }
                    }
                };
                let reading = async {
                    for expected in &frames {
                        assert_eq!(within(read_frame(&mut read)).await.as_ref(), Some(expected));
                    }
                };
                tokio::join!(sending, reading);
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn p_9_6_a_loss_at_one_end_is_one_at_the_other() {
    // The service breaks off within a frame.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (entry, egress) = through(listener.local_addr().unwrap().port());
    let accept = || async {
        let (mut stream, _) = listener.accept().await.unwrap();
        accept_upgrade(&mut stream, "").await;
        stream
    };
    let open = || async {
        let mut visitor = entry.connect_tcp().await;
        http1::send(&mut visitor, UPGRADE).await;
        let service = accept().await;
        read_until(&mut visitor, "\r\n\r\n").await;
        (Visitor(visitor), service)
    };
    let (mut visitor, mut service) = within(open()).await;
    http1::send(&mut service, &[0x82, 5, b'h']).await;
    read(&mut visitor.0, 3).await;
    drop(service);
    assert_eq!(visitor.frame().await, None);
    // The service breaks off between frames.
    let (mut visitor, mut service) = within(open()).await;
    http1::send(&mut service, &Frame::text("last words").bytes(None)).await;
    drop(service);
    visitor.expect(&[Frame::text("last words")]).await;
    assert_eq!(visitor.frame().await, None);
    // The visitor leaves.
    let (mut visitor, mut service) = within(open()).await;
    visitor.send(&[Frame::text("last words")]).await;
    drop(visitor);
    let mut all = Vec::new();
    within(service.read_to_end(&mut all)).await.unwrap();
    assert_eq!(
        (all.len(), all[0]),
        (2 + 4 + 10, 0x81),
        "one frame and no close frame"
    );
    // The link is lost.
    let (mut visitor, mut service) = within(open()).await;
    entry.links[0]
        .near
        .close(&Failure::new(Reason::LinkLost, "cut"));
    assert_eq!(visitor.frame().await, None);
    let mut all = Vec::new();
    let _ = within(service.read_to_end(&mut all)).await;
    assert!(all.is_empty(), "no close frame");
    entry.settled().await;
    until("the egress has no WebSocket", || {
        egress.stats().websockets == 0
    })
    .await;
}

#[tokio::test]
async fn p_9_6_a_draining_client_sends_1001_to_both_sides() {
    let (entry, egress) = through(tungstenite().await);
    let mut socket = visit(&entry, "/").await;
    egress.close_websockets();
    let closed = within(socket.next()).await.unwrap().unwrap();
    let Message::Close(Some(close)) = closed else {
        panic!("{closed:?}");
    };
    assert_eq!(close.code, CloseCode::Away);
    assert!(within(socket.next()).await.is_none_or(|end| end.is_err()));
    entry.settled().await;
    assert_eq!(egress.stats().websockets, 0);
    let failed = entry.stats().failures.total();
    assert_eq!(failed, 0);
}
