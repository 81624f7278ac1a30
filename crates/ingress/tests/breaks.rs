//! Answers and bodies that break off, through both ends and to real services: what came before arrives, and then the break
//! (P-6.2, P-7.1).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{collections::HashMap, convert::Infallible, future::Future, time::Duration};

use adit_codec::Side;
use adit_egress::{Config, Egress, Protocol, ServiceConfig};
use adit_ingress::{Direction, HttpConfig};
use adit_splice::tcp::Socket;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

mod world;

use world::{Link, World, config, destination, director, read_until, standard_layers, within};

const MEGABYTE: usize = 1_000_000;

/// How a service leaves.
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
                within(Socket::new(stream).reset_after_delivery(Duration::from_secs(15))).await
            }
        }
    }
}

/// A service on this machine, each connection of which `script` serves.
async fn service<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> u16
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    port
}

/// A service that reads a head, says `answer` and leaves.
async fn answering(answer: Vec<u8>, leave: Leave) -> u16 {
    let answer = Bytes::from(answer);
    service(move |mut stream| {
        let answer = answer.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            stream.write_all(&answer).await.unwrap();
            leave.by(stream).await;
        }
    })
    .await
}

async fn world_between(sides: (Side, Side), config: HttpConfig, port: u16) -> World {
    world_of(Protocol::Http1, sides, config, port).await
}

async fn world_of(protocol: Protocol, sides: (Side, Side), config: HttpConfig, port: u16) -> World {
    let egress = Egress::new(Config::default());
    let to = ServiceConfig::new("127.0.0.1", port, protocol);
    egress.set_services(HashMap::from([("web".into(), to)]));
    let link = Link::between(sides.0, sides.1, egress);
    let there = link.clone();
    let director = director(move |_, _| Direction::Go(destination(&there, 1)));
    let mut world = World::assemble(config, standard_layers(), director).await;
    world.links = vec![link];
    world
}

async fn world_to(port: u16) -> World {
    world_between((Side::Server, Side::Client), config(), port).await
}

/// What an HTTP/2 visitor gets of the body of an answer, and whether its end.
async fn over_http2(world: &World) -> (Bytes, bool) {
    let io = TokioIo::new(world.connect().await);
    let (mut send, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), io)
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://a/").body(Empty::new()).unwrap();
    let answer = within(send.send_request(request)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
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

/// What an HTTP/1.1 visitor gets behind the head of an answer that is reset.
async fn over_http1(world: &World) -> String {
    let broken = world.raw(GET).await.expect_err("it looks whole");
    let (head, body) = broken.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

fn with_length(length: usize, bytes: usize) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.extend((b'a'..=b'w').cycle().take(bytes));
    answer
}

#[tokio::test]
async fn p_7_1_a_megabyte_of_an_answer_that_ends_early_arrives() {
    for leave in [Leave::Ends, Leave::Resets] {
        let answer = with_length(MEGABYTE + 1000, MEGABYTE);
        let body = answer[answer.len() - MEGABYTE..].to_vec();
        let world = world_to(answering(answer, leave).await).await;
        assert!(over_http1(&world).await.as_bytes() == body);
        let (got, whole) = over_http2(&world).await;
        assert_eq!((got.len(), whole), (MEGABYTE, false));
        assert!(got == body);
        world.settle().await;
    }
}

#[tokio::test]
async fn p_7_1_a_megabyte_crosses_to_a_visitor_that_begins_late() {
    let answer = with_length(MEGABYTE + 1000, MEGABYTE);
    let world = world_to(answering(answer, Leave::Ends).await).await;
    let mut visitor = world.connect().await;
    visitor.write_all(GET).await.unwrap();
    // All that goes without the visitor has gone: nothing moves.
    let far = world.links[0].far.clone();
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
    let broken = world::read_to_end(&mut visitor).await.unwrap_err();
    let (_, body) = broken.split_once("\r\n\r\n").unwrap();
    assert_eq!(body.len(), MEGABYTE);
}

#[tokio::test]
async fn p_7_1_nine_bytes_of_1009_arrive_with_their_head() {
    for leave in [Leave::Ends, Leave::Resets] {
        for bytes in [9, 0] {
            let world = world_to(answering(with_length(1009, bytes), leave).await).await;
            for _ in 0..10 {
                assert_eq!(over_http1(&world).await.len(), bytes);
                let (got, whole) = over_http2(&world).await;
                assert_eq!((got.len(), whole), (bytes, false));
            }
        }
    }
}

#[tokio::test]
async fn p_7_1_an_answer_without_a_length_that_is_reset_arrives_and_does_not_look_whole() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.extend(vec![b'x'; MEGABYTE]);
    let world = world_to(answering(answer, Leave::Resets).await).await;
    let body = over_http1(&world).await;
    assert_eq!(body.matches('x').count(), MEGABYTE);
    assert!(!body.ends_with("0\r\n\r\n"));
    let (got, whole) = over_http2(&world).await;
    assert_eq!((got.len(), whole), (MEGABYTE, false));
}

#[tokio::test]
async fn p_7_1_the_last_event_of_a_stream_that_breaks_off_arrives() {
    let port = service(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        for n in 0..5 {
            let event = format!("data: {n}\n\n");
            let chunk = format!("{:x}\r\n{event}\r\n", event.len());
            stream.write_all(chunk.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        Leave::Ends.by(stream).await;
    })
    .await;
    let world = world_to(port).await;
    for _ in 0..5 {
        assert!(over_http1(&world).await.contains("data: 4\n\n"));
        let (got, whole) = over_http2(&world).await;
        assert!(got.ends_with(b"data: 4\n\n") && !whole);
    }
}

#[tokio::test]
async fn p_7_1_the_same_holds_for_a_clients_entry() {
    let answer = with_length(MEGABYTE + 1000, MEGABYTE);
    let port = answering(answer, Leave::Ends).await;
    let world = world_between((Side::Client, Side::Server), config(), port).await;
    assert_eq!(over_http1(&world).await.len(), MEGABYTE);
    assert_eq!(over_http2(&world).await.0.len(), MEGABYTE);
}

#[tokio::test]
async fn p_7_1_an_answer_to_a_body_that_is_not_read_arrives_before_the_reset() {
    // It closes with unread bytes in its connection, which the system answers with a reset.
    let port = service(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        let answer = "HTTP/1.1 413 Too Large\r\ncontent-length: 1009\r\n\r\ntoo large";
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let world = world_to(port).await;
    for _ in 0..20 {
        let mut visitor = world.connect().await;
        let head = b"POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 300000\r\n\r\n";
        visitor.write_all(head).await.unwrap();
        let (mut from, mut to) = visitor.into_split();
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

/// What a service has read when its connection is reset, or ends.
async fn uploads() -> (World, mpsc::UnboundedReceiver<usize>) {
    let (tell, told) = mpsc::unbounded_channel();
    let port = service(move |mut stream| {
        let tell = tell.clone();
        async move {
            read_until(&mut stream, "\r\n\r\n").await;
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body).await;
            let _ = tell.send(body.iter().filter(|byte| **byte == b'!').count());
        }
    })
    .await;
    (world_to(port).await, told)
}

#[tokio::test]
async fn p_6_2_a_body_before_its_visitors_reset_reaches_the_service() {
    let (world, mut told) = uploads().await;
    for framing in ["content-length: 1001000", "transfer-encoding: chunked"] {
        let mut visitor = world.connect().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
        visitor.write_all(head.as_bytes()).await.unwrap();
        if framing.contains("chunked") {
            let chunk = format!("{:x}\r\n", MEGABYTE + 1000);
            visitor.write_all(chunk.as_bytes()).await.unwrap();
        }
        visitor.write_all(&vec![b'!'; MEGABYTE]).await.unwrap();
        within(Socket::new(visitor).reset_after_delivery(Duration::from_secs(15))).await;
        assert_eq!(within(told.recv()).await, Some(MEGABYTE), "{framing}");
    }
    world.settle().await;
}

/// Regression: a body that fits into the message of its head was waited for, and nothing of it left when it broke off.
#[tokio::test]
async fn p_6_2_a_small_body_before_its_break_reaches_the_service() {
    let (world, mut told) = uploads().await;
    for leave in [Leave::Ends, Leave::Resets] {
        let mut visitor = world.connect().await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 1000\r\n\r\n";
        visitor.write_all(head.as_bytes()).await.unwrap();
        visitor.write_all(&[b'!'; 300]).await.unwrap();
        leave.by(visitor).await;
        assert_eq!(within(told.recv()).await, Some(300));
    }
    world.settle().await;
}

/// The same of a service of HTTP/2, whose connection is made for it.
#[tokio::test]
async fn p_6_2_a_small_body_before_its_break_reaches_an_h2c_service() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let port = service(move |stream| {
        let tell = tell.clone();
        let serve = service_fn(move |request: Request<Incoming>| {
            let tell = tell.clone();
            async move {
                let mut body = request.into_body();
                let mut read = 0;
                let whole = loop {
                    match body.frame().await {
                        None => break true,
                        Some(Err(_)) => break false,
                        Some(Ok(frame)) => read += frame.data_ref().map_or(0, Bytes::len),
                    }
                };
                let _ = tell.send((read, whole));
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        async move {
            let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            drop(http2.serve_connection(TokioIo::new(stream), serve).await);
        }
    })
    .await;
    let config = config();
    let world = world_of(Protocol::Http2, (Side::Server, Side::Client), config, port).await;
    let mut visitor = world.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\ncontent-length: 1000\r\n\r\n";
    visitor.write_all(head.as_bytes()).await.unwrap();
    visitor.write_all(&[b'!'; 300]).await.unwrap();
    Leave::Ends.by(visitor).await;
    assert_eq!(within(told.recv()).await, Some((300, false)));
    world.settle().await;
}

#[tokio::test]
async fn p_6_2_a_body_before_its_streams_reset_reaches_the_service() {
    let (world, mut told) = uploads().await;
    let io = TokioIo::new(world.connect().await);
    let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
        .await
        .unwrap();
    tokio::spawn(connection);
    let (body, chunks) = mpsc::unbounded_channel::<Result<_, std::io::Error>>();
    let chunks = StreamBody::new(tokio_stream::wrappers::UnboundedReceiverStream::new(chunks));
    let request = Request::post("http://a/").body(chunks).unwrap();
    let answer = tokio::spawn(send.send_request(request));
    body.send(Ok(http_body::Frame::data(Bytes::from(vec![b'!'; 5000]))))
        .unwrap();
    // It has left the entry.
    within(async {
        while world.links[0].lane.mux().stats().bytes_sent < 5000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    body.send(Err(std::io::ErrorKind::Other.into())).unwrap();
    assert!(within(answer).await.unwrap().is_err());
    assert_eq!(within(told.recv()).await, Some(5000));
    world.settle().await;
}
