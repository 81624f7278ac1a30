//! WebSockets of services (section 9 of the protocol): services scripted byte by byte, and one of another library.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use adit_codec::{
    Open, ResetCode, ResponseHead, WebSocketFrame, WebSocketRequestHead, WebSocketResponse,
};
use adit_egress::{Config, Protocol, ServiceConfig};
use adit_link::{Exchange, Failure, Part, Reason, RecvHalf};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use support::{Pair, TUNNEL, read_head, scripted, within};
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

/// Asks for a WebSocket.
fn ask(pair: &Pair, headers: &[(&str, &str)]) -> Exchange {
    let open: Open = Open {
        tunnel: TUNNEL.into(),
        ..Open::default()
    };
    let head = WebSocketRequestHead {
        open: &open,
        authority: b"visitor.example",
        path: b"/chat?room=1",
    };
    let headers = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()));
    pair.server
        .open(head.encode(headers).unwrap(), false, None)
        .unwrap()
}

async fn answer(exchange: &mut Exchange) -> Result<WebSocketResponse, Failure> {
    match within(exchange.recv.part()).await {
        Some(Ok(Part::Response(ResponseHead::WebSocket(head)))) => Ok(*head),
        Some(Err(failure)) => Err(failure),
        other => panic!("no answer: {other:?}"),
    }
}

/// The head of a service's request, and the answer that accepts it.
async fn upgrade(socket: &mut TcpStream, lines: &str) -> String {
    let head = read_head(socket).await.unwrap();
    let key = header(&head, "sec-websocket-key");
    let accept = adit_websocket::accept(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{lines}\r\n"
    );
    socket.write_all(answer.as_bytes()).await.unwrap();
    head
}

fn header<'h>(head: &'h str, name: &str) -> &'h str {
    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
    let mut values = lines.filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = values
        .next()
        .unwrap_or_else(|| panic!("no {name} in {head}"))
        .1;
    assert!(values.next().is_none(), "{name} twice");
    value
}

/// A service whose connections come to the test, upgraded.
async fn upgraded() -> (u16, mpsc::UnboundedReceiver<TcpStream>) {
    let (send, sockets) = mpsc::unbounded_channel();
    let port = scripted(move |mut socket, _| {
        let send = send.clone();
        async move {
            upgrade(&mut socket, "").await;
            send.send(socket).unwrap();
        }
    })
    .await;
    (port, sockets)
}

/// A WebSocket and its service.
async fn open(
    pair: &Pair,
    sockets: &mut mpsc::UnboundedReceiver<TcpStream>,
) -> (Exchange, TcpStream) {
    let mut exchange = ask(pair, &[]);
    assert_eq!(answer(&mut exchange).await.unwrap().status, 101);
    (exchange, within(sockets.recv()).await.unwrap())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    fin: bool,
    rsv: u8,
    opcode: u8,
    payload: Vec<u8>,
}

fn frame(opcode: u8, payload: impl AsRef<[u8]>) -> Frame {
    Frame {
        fin: true,
        rsv: 0,
        opcode,
        payload: payload.as_ref().to_vec(),
    }
}

fn close(code: u16) -> Frame {
    frame(8, code.to_be_bytes())
}

impl Frame {
    fn head(&self) -> WebSocketFrame {
        WebSocketFrame {
            fin: self.fin,
            rsv: self.rsv,
            opcode: self.opcode,
            length: self.payload.len() as u64,
        }
    }

    /// As a service writes it.
    fn bytes(&self) -> Vec<u8> {
        let mut out = vec![u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode];
        match self.payload.len() {
            length @ 0..126 => out.push(u8::try_from(length).unwrap()),
            length @ 126..65_536 => {
                out.push(126);
                out.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                out.push(127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(&self.payload);
        out
    }
}

/// The next frame that reaches the service, and its mask; `None` when the connection ends.
async fn read_frame(socket: &mut TcpStream) -> Option<(Frame, [u8; 4])> {
    within(async {
        let first = socket.read_u8().await.ok()?;
        let second = socket.read_u8().await.ok()?;
        assert_eq!(second & 0x80, 0x80, "masked");
        let length = match second & 0x7f {
            126 => u64::from(socket.read_u16().await.ok()?),
            127 => socket.read_u64().await.ok()?,
            length => u64::from(length),
        };
        let mut key = [0; 4];
        socket.read_exact(&mut key).await.ok()?;
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        socket.read_exact(&mut payload).await.ok()?;
        for (at, byte) in payload.iter_mut().enumerate() {
            *byte ^= key[at % 4];
        }
        let frame = Frame {
            fin: first & 0x80 != 0,
            rsv: first >> 4 & 7,
            opcode: first & 15,
            payload,
        };
        Some((frame, key))
    })
    .await
}

async fn service_gets(socket: &mut TcpStream, frames: &[Frame]) {
    for expected in frames {
        assert_eq!(
            read_frame(socket).await.map(|(frame, _)| frame).as_ref(),
            Some(expected)
        );
    }
}

async fn service_sends(socket: &mut TcpStream, frames: &[Frame]) {
    for frame in frames {
        within(socket.write_all(&frame.bytes())).await.unwrap();
    }
}

async fn sends(exchange: &Exchange, frames: &[Frame]) {
    for frame in frames {
        let mut payload = Bytes::from(frame.payload.clone());
        let allowed = within(exchange.send.ready()).await.unwrap();
        let start = payload.split_to(allowed.min(payload.len()));
        exchange.send.send_frame(frame.head(), start).unwrap();
        within(exchange.send.send_all(payload, false))
            .await
            .unwrap();
    }
}

/// The next frame from the service; `None` at the end of the direction.
async fn next(recv: &mut RecvHalf) -> Result<Option<Frame>, Failure> {
    let (head, mut payload) = match within(recv.part()).await {
        None => return Ok(None),
        Some(Ok(Part::Frame(head, payload))) => (head, payload.bytes().to_vec()),
        Some(Ok(other)) => panic!("no frame: {other:?}"),
        Some(Err(failure)) => return Err(failure),
    };
    while (payload.len() as u64) < head.length {
        match within(recv.part()).await {
            Some(Ok(Part::Data(data))) => payload.extend_from_slice(data.bytes()),
            Some(Err(failure)) => return Err(failure),
            other => panic!("no more payload: {other:?}"),
        }
    }
    Ok(Some(Frame {
        fin: head.fin,
        rsv: head.rsv,
        opcode: head.opcode,
        payload,
    }))
}

async fn gets(exchange: &mut Exchange, frames: &[Frame]) {
    for expected in frames {
        assert_eq!(
            next(&mut exchange.recv).await.unwrap().as_ref(),
            Some(expected)
        );
    }
}

/// Nothing is left open anywhere.
async fn settled(pair: &Pair) {
    pair.settled().await;
    within(async {
        while pair.egress.stats().websockets > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(pair.egress.stats().connections, 0);
}

#[tokio::test]
async fn p_9_1_a_handshake_is_written_as_a_service_expects_it() {
    let (send, mut heads) = mpsc::unbounded_channel();
    let port = scripted(move |mut socket, _| {
        let send = send.clone();
        async move {
            let lines = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
                         Keep-Alive: 5\r\nContent-Length: 0\r\n";
            let head = upgrade(&mut socket, lines).await;
            send.send(head).unwrap();
            let _ = socket.read_u8().await;
        }
    })
    .await;
    let pair = Pair::to(port, short());
    let headers = [
        ("origin", "http://a"),
        ("host", "other.example"),
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate"),
        // What a server that does not know P-9.1 might let cross.
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
    let mut exchange = ask(&pair, &headers);
    let head = answer(&mut exchange).await.unwrap();
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
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let lines: Vec<_> = head
        .headers
        .lines()
        .map(|(n, v)| (text(n), text(v)))
        .collect();
    let crossed = [
        ("sec-websocket-protocol", "chat"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
    ];
    assert_eq!(lines, crossed.map(|(n, v)| (n.into(), v.into())));

    // As for HTTP; and a key of its own for each.
    let mut service = support::service(port);
    service.host_rewrite = Some("inner".into());
    service.custom_headers = vec![
        ("X-A".into(), "mine".into()),
        ("sec-websocket-key".into(), "mine".into()),
    ];
    pair.serve(service);
    let mut exchange = ask(&pair, &[("x-a", "1")]);
    answer(&mut exchange).await.unwrap();
    let written = within(heads.recv()).await.unwrap();
    assert_eq!(header(&written, "host"), "inner");
    assert_eq!(header(&written, "x-a"), "mine");
    assert_ne!(header(&written, "sec-websocket-key"), key);
    assert_eq!(pair.egress.stats().dialled, 2, "a connection for each");
}

#[tokio::test]
async fn what_does_not_accept_the_handshake_is_not_believed() {
    const U: &str = "Upgrade: websocket\r\n";
    const C: &str = "Connection: upgrade\r\n";
    // Each row: a clause of RFC 6455, an answer with ACCEPT in the place of the right sum, what is said of it.
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
        ("interim answers without end", "HTTP/1.1 103 X\r\n\r\n".repeat(40), "too many interim responses"),
    ];
    for (clause, row, said) in rows {
        let port = scripted(move |mut socket, _| {
            let row = row.clone();
            async move {
                let head = read_head(&mut socket).await.unwrap();
                let accept = adit_websocket::accept(header(&head, "sec-websocket-key").as_bytes());
                let answer = row.replace("ACCEPT", &accept);
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let pair = Pair::to(port, short());
        let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted, "{clause}");
        assert!(failure.detail.contains(said), "{clause}: {failure}");
        settled(&pair).await;
    }
}

#[tokio::test]
async fn p_9_2_a_refusal_is_passed_on_with_its_body() {
    let big = "n".repeat(300_000);
    for (answers, body) in [
        ("HTTP/1.1 401 No\r\nWWW-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n".into(), "no!".into()),
        ("HTTP/1.1 500 No\r\nConnection: close\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 426 No\r\nContent-Length: 0\r\n\r\n".into(), String::new()),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nno!".into(), "no!".into()),
        ("HTTP/1.1 204 OK\r\n\r\n".into(), String::new()),
        (format!("HTTP/1.1 500 No\r\nContent-Length: 300000\r\n\r\n{big}"), big),
    ] {
        let bytes = answers.clone();
        let port = scripted(move |mut socket, _| {
            let bytes = bytes.clone();
            async move {
                read_head(&mut socket).await.unwrap();
                // In two pieces, so that the second one has to be read.
                let (start, rest) = bytes.split_at(bytes.len() - bytes.len() / 3);
                socket.write_all(start.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
                let _ = socket.write_all(rest.as_bytes()).await;
            }
        })
        .await;
        let pair = Pair::to(port, short());
        let mut exchange = ask(&pair, &[]);
        let head = answer(&mut exchange).await.unwrap();
        let status = answers.lines().find_map(|line| {
            let status: u16 = line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().unwrap();
            (status >= 200).then_some(status)
        });
        assert_eq!(Some(head.status), status);
        let mut got = Vec::new();
        while let Some(part) = within(exchange.recv.part()).await {
            match part.unwrap() {
                Part::Data(data) => got.extend_from_slice(data.bytes()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(got, body.as_bytes());
        drop(exchange);
        settled(&pair).await;
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_does_not_look_whole() {
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await.unwrap();
        let answer = b"HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nno!";
        socket.write_all(answer).await.unwrap();
    })
    .await;
    let pair = Pair::to(port, short());
    let mut exchange = ask(&pair, &[]);
    // Its head may have been overtaken by then.
    let failure = loop {
        match within(exchange.recv.part()).await {
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
    let pair = Pair::to(port, short());
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    let frames = [
        Frame {
            fin: false,
            ..frame(1, "one ")
        },
        frame(9, "ping"),
        Frame {
            fin: false,
            rsv: 5,
            ..frame(0, "")
        },
        frame(0, "two"),
        frame(2, vec![7; 126]),
        frame(2, vec![8; 65_535]),
        frame(2, vec![9; 300_000]),
        Frame {
            rsv: 4,
            ..frame(7, "reserved")
        },
    ];
    // Both directions at once: the large ones need their credit back.
    let (read, write) = service.split();
    let sending = sends(&exchange, &frames);
    let mut keys = Vec::new();
    let mut stream = read;
    let reading = async {
        for expected in &frames {
            let (got, key) = read_from(&mut stream).await;
            assert_eq!(&got, expected);
            keys.push(key);
        }
    };
    tokio::join!(sending, reading);
    // RFC 6455, 5.3 and 10.3: fresh, and not to be guessed.
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), frames.len());
    let mut write = write;
    let sending = async {
        for frame in &frames {
            write.write_all(&frame.bytes()).await.unwrap();
        }
    };
    tokio::join!(sending, gets(&mut exchange, &frames));
}

async fn read_from(stream: &mut (impl AsyncReadExt + Unpin)) -> (Frame, [u8; 4]) {
    let first = stream.read_u8().await.unwrap();
    let length = match stream.read_u8().await.unwrap() & 0x7f {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        length => u64::from(length),
    };
    let mut key = [0; 4];
    stream.read_exact(&mut key).await.unwrap();
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[at % 4];
    }
    let frame = Frame {
        fin: first & 0x80 != 0,
        rsv: first >> 4 & 7,
        opcode: first & 15,
        payload,
    };
    (frame, key)
}

#[tokio::test]
async fn frames_that_come_with_the_answer_are_not_lost() {
    let port = scripted(|mut socket, _| async move {
        let head = read_head(&mut socket).await.unwrap();
        let accept = adit_websocket::accept(header(&head, "sec-websocket-key").as_bytes());
        let mut bytes = format!(
            "HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend(frame(1, "early").bytes());
        bytes.extend(&frame(1, "split").bytes()[..4]);
        socket.write_all(&bytes).await.unwrap();
        tokio::task::yield_now().await;
        socket.write_all(&frame(1, "split").bytes()[4..]).await.unwrap();
        let _ = socket.read_u8().await;
    })
    .await;
    let pair = Pair::to(port, short());
    let mut exchange = ask(&pair, &[]);
    answer(&mut exchange).await.unwrap();
    gets(&mut exchange, &[frame(1, "early"), frame(1, "split")]).await;
}

/// Each row: a clause of RFC 6455 and what no server may send.
#[tokio::test]
async fn p_9_3_what_a_service_may_not_send_ends_it() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
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
        let (mut exchange, mut service) = open(&pair, &mut sockets).await;
        service_sends(&mut service, &[frame(1, "fine")]).await;
        gets(&mut exchange, &[frame(1, "fine")]).await;
        service.write_all(bytes).await.unwrap();
        let failure = next(&mut exchange.recv).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ServiceAborted, "{clause}");
        service_gets(&mut service, &[close(1002)]).await;
        assert!(read_frame(&mut service).await.is_none(), "{clause}");
        drop((exchange, service));
    }
    settled(&pair).await;
}

#[tokio::test]
async fn p_9_6_both_close_frames_cross_and_then_all_is_over() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    for service_first in [true, false] {
        let (mut exchange, mut service) = open(&pair, &mut sockets).await;
        if service_first {
            service_sends(&mut service, &[close(4000)]).await;
            gets(&mut exchange, &[close(4000)]).await;
            sends(&exchange, &[frame(1, "last words"), close(1000)]).await;
            exchange.send.finish().unwrap();
            service_gets(&mut service, &[frame(1, "last words"), close(1000)]).await;
        } else {
            sends(&exchange, &[close(1000)]).await;
            service_gets(&mut service, &[close(1000)]).await;
            service_sends(&mut service, &[frame(1, "last words"), close(4000)]).await;
            gets(&mut exchange, &[frame(1, "last words"), close(4000)]).await;
            exchange.send.finish().unwrap();
        }
        assert_eq!(next(&mut exchange.recv).await.unwrap(), None, "a clean end");
        assert!(read_frame(&mut service).await.is_none());
        drop((exchange, service));
        settled(&pair).await;
    }
    let pending = pair.client.stats().pending;
    assert_eq!((pending.cancelled, pending.failed), (0, 0), "{pending:?}");
}

/// RFC 6455, 7.1.1. What was said before is heard.
#[tokio::test]
async fn p_9_6_a_service_that_is_lost_is_an_end_or_a_reset() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    // Between two frames.
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    let said: Vec<_> = (0..50).map(|n| frame(1, n.to_string())).collect();
    service_sends(&mut service, &said).await;
    drop(service);
    gets(&mut exchange, &said).await;
    assert_eq!(next(&mut exchange.recv).await.unwrap(), None);
    exchange.send.finish().unwrap();
    drop(exchange);
    settled(&pair).await;
    // Within one.
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    service.write_all(&[0x82, 5, b'h']).await.unwrap();
    let part = within(exchange.recv.part()).await;
    assert!(matches!(part, Some(Ok(Part::Frame(..)))));
    drop((part, service));
    let part = within(exchange.recv.part()).await;
    assert!(
        matches!(&part, Some(Err(failure)) if failure.reason == Reason::ServiceAborted),
        "{part:?}"
    );
    drop(exchange);
    // With a reset.
    let (mut exchange, service) = open(&pair, &mut sockets).await;
    service.set_zero_linger().unwrap();
    drop(service);
    let failure = next(&mut exchange.recv).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted);
    drop(exchange);
    settled(&pair).await;
}

#[tokio::test]
async fn p_9_6_a_visitor_that_is_lost_ends_the_connection_without_a_close_frame() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    // Between two frames: all that it had said is heard.
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    sends(&exchange, &[frame(1, "last words")]).await;
    exchange.send.finish().unwrap();
    service_gets(&mut service, &[frame(1, "last words")]).await;
    assert!(read_frame(&mut service).await.is_none());
    assert_eq!(next(&mut exchange.recv).await.unwrap(), None);
    drop((exchange, service));
    // With a reset.
    let (exchange, mut service) = open(&pair, &mut sockets).await;
    exchange.send.reset(ResetCode::Cancelled, "left");
    assert!(read_frame(&mut service).await.is_none());
    // With the link.
    let (_exchange, mut service) = open(&pair, &mut sockets).await;
    pair.client.close(&Failure::new(Reason::LinkLost, "cut"));
    assert!(read_frame(&mut service).await.is_none());
    within(async {
        while pair.egress.stats().websockets > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn p_9_6_a_client_that_drains_says_1001_to_both() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    pair.egress.set_draining(true);
    service_gets(&mut service, &[close(1001)]).await;
    gets(&mut exchange, &[close(1001)]).await;
    // Only the answers are for anybody yet.
    service_sends(&mut service, &[frame(1, "too late"), close(1001)]).await;
    sends(&exchange, &[frame(1, "too late"), close(1001)]).await;
    exchange.send.finish().unwrap();
    assert_eq!(next(&mut exchange.recv).await.unwrap(), None);
    assert!(read_frame(&mut service).await.is_none());
    drop((exchange, service));
    settled(&pair).await;
    // P-6.6: nothing new.
    let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Draining);
    pair.egress.set_draining(false);
    // One that does not answer is not waited for without end.
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    let began = Instant::now();
    pair.egress.close_websockets();
    service_gets(&mut service, &[close(1001)]).await;
    gets(&mut exchange, &[close(1001)]).await;
    assert!(read_frame(&mut service).await.is_none());
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "it was waited"
    );
    drop(exchange);
    settled(&pair).await;
}

#[tokio::test]
async fn p_9_5_a_service_that_takes_nothing_stops_its_own_frames_only() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    let (stalled, mut stuck) = open(&pair, &mut sockets).await;
    let (mut other, mut service) = open(&pair, &mut sockets).await;
    let length = 32 << 20;
    let head = WebSocketFrame {
        length,
        ..frame(2, "").head()
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
    assert!(pair.client.stats().waiting_bytes <= 4 << 20);
    for _ in 0..100 {
        sends(&other, &[frame(1, "ping")]).await;
        service_gets(&mut service, &[frame(1, "ping")]).await;
        service_sends(&mut service, &[frame(1, "pong")]).await;
        gets(&mut other, &[frame(1, "pong")]).await;
    }
    // It goes on where it stopped.
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
        let (got, _) = read_from(&mut stuck).await;
        assert!(got.payload.len() as u64 == length && got.payload.iter().all(|byte| *byte == 7));
    };
    tokio::join!(rest, reading);
}

#[tokio::test]
async fn p_9_5_a_visitor_who_takes_nothing_stops_its_own_service_only() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(port, short());
    let (mut stalled, mut busy) = open(&pair, &mut sockets).await;
    let (mut other, mut service) = open(&pair, &mut sockets).await;
    let long = frame(2, vec![7; 16 << 20]);
    let bytes = long.bytes();
    let sending = tokio::spawn(async move {
        busy.write_all(&bytes).await.unwrap();
        busy
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sending.is_finished(), "it was stopped");
    let waiting = pair.server.stats().waiting_bytes;
    assert!(waiting <= 40 * 1024, "within its first window: {waiting}");
    for _ in 0..100 {
        service_sends(&mut service, &[frame(1, "ping")]).await;
        gets(&mut other, &[frame(1, "ping")]).await;
    }
    gets(&mut stalled, &[long]).await;
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_service_that_takes_nothing_for_the_session_stall_is_given_up() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(
        port,
        Config {
            tcp_stall_timeout: Duration::from_millis(200),
            ..short()
        },
    );
    let (exchange, _stuck) = open(&pair, &mut sockets).await;
    let head = WebSocketFrame {
        length: 1 << 40,
        ..frame(2, "").head()
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
    settled(&pair).await;
}

/// For days: no time of HTTP counts on an open WebSocket.
#[tokio::test]
async fn a_silent_websocket_stays_open() {
    let (port, mut sockets) = upgraded().await;
    let moment = Duration::from_millis(100);
    let pair = Pair::to(
        port,
        Config {
            response_timeout: moment * 10,
            idle_timeout: moment,
            stall_timeout: moment,
            early_response_timeout: moment,
            close_timeout: moment,
            ..Config::default()
        },
    );
    let (mut exchange, mut service) = open(&pair, &mut sockets).await;
    tokio::time::sleep(moment * 15).await;
    sends(&exchange, &[frame(9, "")]).await;
    service_gets(&mut service, &[frame(9, "")]).await;
    service_sends(&mut service, &[frame(10, "")]).await;
    gets(&mut exchange, &[frame(10, "")]).await;
}

#[tokio::test]
async fn what_keeps_a_websocket_from_being_there_is_said() {
    // Nobody listens.
    let free = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let pair = Pair::to(port, short());
    let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    settled(&pair).await;
    // Nobody answers.
    let port = scripted(|mut socket, _| async move {
        read_head(&mut socket).await;
        let _ = socket.read_u8().await;
    })
    .await;
    let pair = Pair::to(
        port,
        Config {
            response_timeout: Duration::from_millis(100),
            ..short()
        },
    );
    let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    settled(&pair).await;
    // A service of another kind.
    let pair = Pair::new(short());
    pair.serve(ServiceConfig::new("127.0.0.1", port, Protocol::Tcp));
    let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
}

#[tokio::test]
async fn a_visitor_who_leaves_during_the_handshake_closes_the_connection() {
    let left = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (Arc::new(tokio::sync::Notify::new()), left.clone());
    let told = seen.clone();
    let port = scripted(move |mut socket, _| {
        let (told, count) = (told.clone(), count.clone());
        async move {
            read_head(&mut socket).await.unwrap();
            told.notify_one();
            assert!(socket.read_u8().await.is_err());
            count.fetch_add(1, Ordering::Relaxed);
            told.notify_one();
        }
    })
    .await;
    let pair = Pair::to(port, short());
    let exchange = ask(&pair, &[]);
    within(seen.notified()).await;
    drop(exchange);
    within(seen.notified()).await;
    assert_eq!(left.load(Ordering::Relaxed), 1);
    settled(&pair).await;
}

#[tokio::test]
async fn the_connections_of_a_service_are_bounded() {
    let (port, mut sockets) = upgraded().await;
    let pair = Pair::to(
        port,
        Config {
            max_connections: 2,
            ..short()
        },
    );
    let one = open(&pair, &mut sockets).await;
    let _two = open(&pair, &mut sockets).await;
    assert_eq!(pair.egress.stats().websockets, 2);
    let failure = answer(&mut ask(&pair, &[])).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    drop(one);
    within(async {
        while pair.egress.stats().websockets > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let _three = open(&pair, &mut sockets).await;
}

/// A service of another library, whose frames and closes are its own.
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
    let pair = Pair::to(port, short());
    let mut exchange = ask(&pair, &[]);
    answer(&mut exchange).await.unwrap();
    sends(&exchange, &[frame(1, "hello")]).await;
    gets(&mut exchange, &[frame(1, "hello")]).await;
    sends(
        &exchange,
        &[
            Frame {
                fin: false,
                ..frame(2, [1; 300])
            },
            frame(9, "ping"),
            frame(0, [2; 300]),
        ],
    )
    .await;
    let whole = [[1; 300], [2; 300]].concat();
    gets(&mut exchange, &[frame(10, "ping"), frame(2, whole)]).await;
    sends(&exchange, &[close(1000)]).await;
    gets(&mut exchange, &[close(1000)]).await;
    exchange.send.finish().unwrap();
    assert_eq!(next(&mut exchange.recv).await.unwrap(), None);
    drop(exchange);
    settled(&pair).await;
}
