//! Responses and bodies that break off, through both ends and to real services: the bytes before the break arrive, and
//! then the break (P-6.2, P-7.1).

use std::{convert::Infallible, time::Duration};

use adit_codec::Side;
use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_splice::tcp::Socket;
use adit_testlink::{
    EgressLink, HttpEntry, Route, http_config,
    http1::{read_to_end, read_until, send},
    http2, lane_config,
    tcp::service,
    until, within,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

const MEGABYTE: usize = 1_000_000;

/// How a service ends its connection.
#[derive(Clone, Copy, PartialEq)]
enum Leave {
    Ends,
    Resets,
}

impl Leave {
    async fn by(self, mut stream: TcpStream) {
        match self {
            Self::Ends => {
                stream.shutdown().await.unwrap();
                let _ = stream.read(&mut [0]).await;
            }
            Self::Resets => {
                within(Socket::new(stream).reset_after_delivery(Duration::from_secs(15))).await;
            }
        }
    }
}

/// A service that reads a head, sends `response` and leaves.
async fn responding(response: Vec<u8>, leave: Leave) -> u16 {
    let response = Bytes::from(response);
    let (port, _) = service(move |mut stream, _| {
        let response = response.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            send(&mut stream, &response).await;
            leave.by(stream).await;
        }
    })
    .await;
    port
}

fn entry_of(protocol: Protocol, sides: [Side; 2], port: u16) -> HttpEntry {
    let egress = Egress::new(Config::default());
    let to = EgressLink::with(sides.map(lane_config), egress);
    to.serve(ServiceConfig::new("127.0.0.1", port, protocol));
    Route::to(&to.link).http(http_config())
}

fn entry_to(port: u16) -> HttpEntry {
    entry_of(Protocol::Http1, [Side::Server, Side::Client], port)
}

/// The body of a response that an HTTP/2 visitor receives, and whether it ends.
async fn over_http2(entry: &HttpEntry) -> (Bytes, bool) {
    let mut send = http2::connect(entry.connect_tcp().await).await;
    let request = Request::get("http://a/").body(Empty::new()).unwrap();
    let response = within(send.send_request(request)).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let mut all = Vec::new();
    let whole = loop {
        match within(body.frame()).await {
            None => break true,
            Some(Err(_)) => break false,
            Some(Ok(frame)) => all.extend_from_slice(frame.data_ref().unwrap()),
        }
    };
    (all.into(), whole)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// What an HTTP/1.1 visitor receives after the head of a response that is reset.
async fn over_http1(entry: &HttpEntry) -> String {
    let broken = entry.raw(GET).await.expect_err("it looks whole");
    let (head, body) = broken.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

fn with_length(length: usize, bytes: usize) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    response.extend((b'a'..=b'w').cycle().take(bytes));
    response
}

#[tokio::test]
async fn p_7_1_a_megabyte_of_a_response_that_ends_early_arrives() {
    for leave in [Leave::Ends, Leave::Resets] {
        let response = with_length(MEGABYTE + 1000, MEGABYTE);
        let body = response[response.len() - MEGABYTE..].to_vec();
        let entry = entry_to(responding(response, leave).await);
        assert!(over_http1(&entry).await.as_bytes() == body);
        let (got, whole) = over_http2(&entry).await;
        assert_eq!((got.len(), whole), (MEGABYTE, false));
        assert!(got == body);
        entry.settled().await;
    }
}

#[tokio::test]
async fn p_7_1_a_megabyte_crosses_to_a_visitor_that_begins_late() {
    let response = with_length(MEGABYTE + 1000, MEGABYTE);
    let entry = entry_to(responding(response, Leave::Ends).await);
    let mut visitor = entry.connect_tcp().await;
    send(&mut visitor, GET).await;
    // All bytes that need no window of the visitor have been sent: the count does not change any more.
    let far = entry.links[0].far.clone();
    within(async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let sent = far.mux().stats().bytes_sent;
            if sent > 0 && sent == before {
                break;
            }
            before = sent;
        }
    })
    .await;
    let broken = read_to_end(&mut visitor).await.unwrap_err();
    let (_, body) = broken.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), MEGABYTE);
}

#[tokio::test]
async fn p_7_1_nine_bytes_of_1009_arrive_with_their_head() {
    for leave in [Leave::Ends, Leave::Resets] {
        for bytes in [9, 0] {
            let entry = entry_to(responding(with_length(1009, bytes), leave).await);
            for _ in 0..10 {
                assert_eq!(over_http1(&entry).await.len(), bytes);
                let (got, whole) = over_http2(&entry).await;
                assert_eq!((got.len(), whole), (bytes, false));
            }
        }
    }
}

#[tokio::test]
async fn p_7_1_a_reset_response_without_a_length_is_not_complete() {
    let mut response = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    response.extend(vec![b'x'; MEGABYTE]);
    let entry = entry_to(responding(response, Leave::Resets).await);
    let body = over_http1(&entry).await;
    assert_eq!(body.matches('x').count(), MEGABYTE);
    assert!(!body.ends_with("0\r\n\r\n"));
    let (got, whole) = over_http2(&entry).await;
    assert_eq!((got.len(), whole), (MEGABYTE, false));
}

#[tokio::test]
async fn p_7_1_the_last_event_of_a_stream_that_breaks_off_arrives() {
    let (port, _) = service(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        send(&mut stream, &head).await;
        for n in 0..5 {
            let event = format!("data: {n}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            send(&mut stream, &chunk).await;
            tokio::task::yield_now().await;
        }
        Leave::Ends.by(stream).await;
    })
    .await;
    let entry = entry_to(port);
    for _ in 0..5 {
        assert!(over_http1(&entry).await.contains("data: 4\n\n"));
        let (got, whole) = over_http2(&entry).await;
        assert!(got.ends_with(b"data: 4\n\n") && !whole);
    }
}

#[tokio::test]
async fn p_7_1_the_same_holds_for_a_clients_entry() {
    let response = with_length(MEGABYTE + 1000, MEGABYTE);
    let port = responding(response, Leave::Ends).await;
    let entry = entry_of(Protocol::Http1, [Side::Client, Side::Server], port);
    assert_eq!(over_http1(&entry).await.len(), MEGABYTE);
    assert_eq!(over_http2(&entry).await.0.len(), MEGABYTE);
}

#[tokio::test]
async fn p_7_1_a_response_to_an_unread_body_precedes_the_reset() {
    // The service closes a connection with unread bytes, so that the system sends a reset.
    let (port, _) = service(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let response = "HTTP/1.1 413 Too Large\r\ncontent-length: 1009\r\n\r\ntoo large";
        send(&mut stream, &response).await;
    })
    .await;
    let entry = entry_to(port);
    for _ in 0..20 {
        let mut visitor = entry.connect_tcp().await;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 300000\r\n\r\n";
        send(&mut visitor, head).await;
        let (mut from, mut to) = tokio::io::split(visitor);
        let upload = tokio::spawn(async move { to.write_all(&[1; 300_000]).await });
        let mut all = Vec::new();
        let _ = within(from.read_to_end(&mut all)).await;
        assert!(
            all.ends_with(b"too large"),
            "{}",
            String::from_utf8_lossy(&all)
        );
        let _ = within(upload).await;
    }
}

/// An entry, and the number of bytes that its service has read of each body when the connection ends or is reset.
async fn uploads() -> (HttpEntry, mpsc::UnboundedReceiver<usize>) {
    let (port, lengths) = service(|mut stream, _| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let mut body = Vec::new();
        let _ = stream.read_to_end(&mut body).await;
        body.iter().filter(|byte| **byte == b'!').count()
    })
    .await;
    (entry_to(port), lengths)
}

#[tokio::test]
async fn p_6_2_a_body_before_its_visitors_reset_reaches_the_service() {
    let (entry, mut lengths) = uploads().await;
    for framing in ["content-length: 1001000", "transfer-encoding: chunked"] {
        let mut visitor = entry.connect_tcp().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        send(&mut visitor, &head).await;
        if framing.contains("chunked") {
            let chunk = format!("{:x}\r\n", MEGABYTE + 1000);
            send(&mut visitor, &chunk).await;
        }
        send(&mut visitor, &vec![b'!'; MEGABYTE]).await;
        within(Socket::new(visitor).reset_after_delivery(Duration::from_secs(15))).await;
        assert_eq!(within(lengths.recv()).await, Some(MEGABYTE), "{framing}");
    }
    entry.settled().await;
}

/// Regression: the tunnel waited for the whole of a body that fits into the message of its head, and sent none of it
/// when it broke off.
#[tokio::test]
async fn p_6_2_a_small_body_before_its_break_reaches_the_service() {
    let (entry, mut lengths) = uploads().await;
    for leave in [Leave::Ends, Leave::Resets] {
        let mut visitor = entry.connect_tcp().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 1000\r\n\r\n";
        send(&mut visitor, &head).await;
        send(&mut visitor, &[b'!'; 300]).await;
        leave.by(visitor).await;
        assert_eq!(within(lengths.recv()).await, Some(300));
    }
    entry.settled().await;
}

/// A small body before its break reaches a service of HTTP/2, to which a new connection is made.
#[tokio::test]
async fn p_6_2_a_small_body_before_its_break_reaches_an_h2c_service() {
    let (sender, mut read) = mpsc::unbounded_channel();
    let (port, _) = service(move |stream, _| {
        let sender = sender.clone();
        let serve = service_fn(move |request: Request<Incoming>| {
            let sender = sender.clone();
            async move {
                let mut body = request.into_body();
                let mut length = 0;
                let is_whole = loop {
                    match body.frame().await {
                        None => break true,
                        Some(Err(_)) => break false,
                        Some(Ok(frame)) => length += frame.data_ref().map_or(0, Bytes::len),
                    }
                };
                let _ = sender.send((length, is_whole));
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        async move {
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(http2.serve_connection(TokioIo::new(stream), serve).await);
        }
    })
    .await;
    let entry = entry_of(Protocol::Http2, [Side::Server, Side::Client], port);
    let mut visitor = entry.connect_tcp().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 1000\r\n\r\n";
    send(&mut visitor, &head).await;
    send(&mut visitor, &[b'!'; 300]).await;
    Leave::Ends.by(visitor).await;
    assert_eq!(within(read.recv()).await, Some((300, false)));
    entry.settled().await;
}

#[tokio::test]
async fn p_6_2_a_body_before_its_streams_reset_reaches_the_service() {
    let (entry, mut lengths) = uploads().await;
    let mut send = http2::connect(entry.connect_tcp().await).await;
    let (body, chunks) = mpsc::unbounded_channel::<Result<_, std::io::Error>>();
    let chunks = StreamBody::new(tokio_stream::wrappers::UnboundedReceiverStream::new(chunks));
    let request = Request::post("http://a/").body(chunks).unwrap();
    let response = tokio::spawn(send.send_request(request));
    body.send(Ok(http_body::Frame::data(Bytes::from(vec![b'!'; 5000]))))
        .unwrap();
    until("the body has left the entry", || {
        entry.links[0].near.mux().stats().bytes_sent >= 5000
    })
    .await;
    body.send(Err(std::io::ErrorKind::Other.into())).unwrap();
    assert!(within(response).await.unwrap().is_err());
    assert_eq!(within(lengths.recv()).await, Some(5000));
    entry.settled().await;
}
