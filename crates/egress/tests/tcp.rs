//! TCP services behind a lane whose other end is played by the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{future::Future, io, time::Duration};

use adit_codec::{Open, ResetCode, ResponseHead, TcpOpenHead};
use adit_egress::{Config, Protocol, ProxyProtocol, ServiceConfig};
use adit_link::{Exchange, Failure, Part, Reason};
use bytes::Bytes;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
};

mod support;

use support::{Pair, TUNNEL, within};

const VISITOR: &str = "192.0.2.1:4000";
const LOCAL: &str = "198.51.100.7:2222";

fn to(port: u16, config: Config) -> Pair {
    with(ServiceConfig::new("127.0.0.1", port, Protocol::Tcp), config)
}

fn with(service: ServiceConfig, config: Config) -> Pair {
    let pair = Pair::new(config);
    pair.serve(service);
    pair
}

fn open(pair: &Pair, body: &[u8], end: bool) -> Exchange {
    let open: Open = Open {
        tunnel: TUNNEL.into(),
        visitor: VISITOR.into(),
        ..Open::default()
    };
    let head = TcpOpenHead {
        open: &open,
        local: LOCAL,
    };
    pair.server
        .open(head.encode(body).unwrap(), end, None)
        .unwrap()
}

/// A service for one connection, and what its script gives.
async fn service<F, S, T>(script: S) -> (u16, oneshot::Receiver<T>)
where
    S: FnOnce(TcpStream) -> F + Send + 'static,
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let _ = tell.send(script(stream).await);
    });
    (port, told)
}

/// Reads to the end or to the failure.
async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, Option<io::ErrorKind>) {
    let mut all = Vec::new();
    match stream.read_to_end(&mut all).await {
        Ok(_) => (all, None),
        Err(error) => (all, Some(error.kind())),
    }
}

/// The next part, which is to be the answer.
async fn accepted(exchange: &mut Exchange) -> Result<(), Failure> {
    match within(exchange.recv.part()).await {
        Some(Ok(Part::Response(ResponseHead::Accepted))) => Ok(()),
        Some(Err(failure)) => Err(failure),
        other => panic!("no answer: {other:?}"),
    }
}

/// Payload until there is as much, or the end.
async fn payload(exchange: &mut Exchange, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while all.len() < bytes
        && let Some(part) = within(exchange.recv.part()).await
    {
        match part? {
            Part::Data(data) => all.extend_from_slice(data.as_ref()),
            other => panic!("no payload: {other:?}"),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn p_10_1_the_answer_comes_before_what_the_service_says_first() {
    let (port, told) = service(|mut stream| async move {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 11).await.unwrap(), b"220 ready\r\n");
    assert_eq!(pair.egress.stats().tcp.open, 1);
    assert_eq!(pair.egress.stats().connections, 1);
    exchange.send.finish().unwrap();
    assert_eq!(within(told).await.unwrap(), (Vec::new(), None));
    assert_eq!(payload(&mut exchange, 1).await.unwrap(), b"");
    drop(exchange);
    pair.settled().await;
    let stats = pair.egress.stats();
    assert_eq!((stats.tcp.open, stats.tcp.total, stats.dialled), (0, 1, 1));
    assert_eq!((stats.tcp.received_bytes, stats.tcp.sent_bytes), (11, 0));
}

#[tokio::test]
async fn p_10_1_chunks_may_follow_before_the_answer() {
    let (port, told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"in the head, ", false);
    exchange
        .send
        .send(Bytes::from_static(b"and behind it"), true)
        .unwrap();
    let expected = b"in the head, and behind it".to_vec();
    assert_eq!(within(told).await.unwrap(), (expected, None));
    accepted(&mut exchange).await.unwrap();
    drop(exchange);
    pair.settled().await;
}

#[tokio::test]
async fn p_10_2_a_visitor_that_has_said_all_still_gets_the_answer() {
    let (port, _) = service(|mut stream| async move {
        let (said, _) = read_all(&mut stream).await;
        stream.write_all(&said).await.unwrap();
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"all there is", true);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"all there is");
    assert!(exchange.recv.is_ended());
    drop(exchange);
    pair.settled().await;
    assert_eq!(pair.egress.stats().tcp.aborted, 0);
}

#[tokio::test]
async fn p_10_2_a_service_that_has_said_all_still_gets_the_rest() {
    let (port, told) = service(|mut stream| async move {
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"bye");
    assert!(exchange.recv.is_ended());
    let rest = Bytes::from(vec![7; 100_000]);
    exchange.send.send_all(rest.clone(), true).await.unwrap();
    assert_eq!(within(told).await.unwrap(), (rest.to_vec(), None));
    drop(exchange);
    pair.settled().await;
}

#[tokio::test]
async fn p_10_3_a_service_that_resets_is_a_reset() {
    let (port, _) = service(|mut stream| async move {
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    let failure = payload(&mut exchange, 1).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    pair.settled().await;
    assert_eq!(pair.egress.stats().tcp.aborted, 1);
}

/// The service's direction is over and nothing is to be written: only the connection itself can say that it is gone.
#[tokio::test]
async fn p_10_3_a_service_that_resets_after_its_end_is_a_reset() {
    let (go, gone) = oneshot::channel();
    let (port, _) = service(|mut stream| async move {
        stream.shutdown().await.unwrap();
        gone.await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 1).await.unwrap(), b"");
    go.send(()).unwrap();
    let failure = within(std::future::poll_fn(|cx| {
        match exchange.send.poll_ready(cx) {
            std::task::Poll::Ready(Err(failure)) => std::task::Poll::Ready(failure),
            _ => std::task::Poll::Pending,
        }
    }))
    .await;
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    pair.settled().await;
}

/// Nobody takes what the service sends, so that nothing is read from it: it is noticed all the same.
#[tokio::test]
async fn p_10_3_a_service_that_resets_while_there_is_no_credit_is_a_reset() {
    let (go, gone) = oneshot::channel();
    let (port, _) = service(|mut stream| async move {
        let flood = tokio::spawn(async move {
            while stream.write_all(&[1; 65536]).await.is_ok() {
                tokio::task::yield_now().await;
            }
        });
        gone.await.unwrap();
        // What has not been sent yet goes with it, and the end is a reset.
        flood.abort();
    })
    .await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"unread", false);
    let waits = || pair.server.stats().waiting_bytes;
    let window = u64::from(pair.server.initial_window());
    within(async {
        while waits() + 1024 < window {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(waits() <= window, "{}", waits());
    go.send(()).unwrap();
    // What came before it waits for a visitor that reads on (P-6.2).
    accepted(&mut exchange).await.unwrap();
    let failure = payload(&mut exchange, usize::MAX).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    pair.settled().await;
    assert_eq!(pair.egress.stats().tcp.aborted, 1);
}

#[tokio::test]
async fn p_10_3_a_visitor_that_leaves_resets_the_service() {
    let (port, told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    exchange
        .send
        .reset(ResetCode::Cancelled, "the visitor left");
    let (_, error) = within(told).await.unwrap();
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    drop(exchange.recv);
    pair.settled().await;
    assert_eq!(pair.egress.stats().tcp.aborted, 0);
}

#[tokio::test]
async fn p_10_3_a_lost_link_resets_the_service() {
    let (port, told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"hello", true);
    accepted(&mut exchange).await.unwrap();
    let lost = Failure::new(Reason::LinkLost, "cut");
    pair.client.close(&lost);
    // All of the visitor's had come before: that is an end, and stands.
    let (said, _) = within(told).await.unwrap();
    assert_eq!(said, b"hello");
    drop(exchange);

    let (port, told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    pair.client.close(&lost);
    let (_, error) = within(told).await.unwrap();
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    within(async {
        while pair.egress.stats().tcp.open > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn p_10_4_a_service_that_is_not_there_is_a_failed_dial() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let pair = to(port, Config::default());
    let mut exchange = open(&pair, b"hello", false);
    let failure = accepted(&mut exchange).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    let why = format!("nothing listens on 127.0.0.1:{port} (connection refused)");
    assert_eq!(failure.detail, why);
    drop(exchange);
    pair.settled().await;
    let stats = pair.egress.stats();
    assert_eq!((stats.tcp.open, stats.tcp.dials_failed), (0, 1));
}

/// A listener whose queue is full: who dials gets no answer.
fn deaf() -> (Socket, Vec<Socket>, u16) {
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let listener = socket();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any.into()).unwrap();
    listener.listen(0).unwrap();
    let addr: SockAddr = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    loop {
        let one = socket();
        let full = one
            .connect_timeout(&addr, Duration::from_millis(200))
            .is_err();
        filling.push(one);
        if full {
            return (listener, filling, addr.as_socket().unwrap().port());
        }
    }
}

#[tokio::test]
async fn p_10_4_a_service_that_does_not_answer_in_time_is_a_failed_dial() {
    let (_listener, _filling, port) = deaf();
    let config = Config {
        dial_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let pair = to(port, config);
    let mut exchange = open(&pair, b"hello", false);
    let failure = accepted(&mut exchange).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    assert!(failure.detail.contains("no connection to"), "{failure}");
    drop(exchange);
    pair.settled().await;
}

#[tokio::test]
async fn a_visitor_that_leaves_during_the_dial_ends_it() {
    let (_listener, _filling, port) = deaf();
    let config = Config {
        dial_timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    let pair = to(port, config);
    let exchange = open(&pair, b"hello", false);
    within(async {
        while pair.egress.stats().tcp.open == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    drop(exchange);
    pair.settled().await;
    within(async {
        while pair.egress.stats().tcp.open > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(pair.egress.stats().tcp.dials_failed, 0);
}

#[tokio::test]
async fn p_10_5_the_service_hears_who_the_visitor_is_before_anything_else() {
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 4000 2222\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 1, 198, 51, 100, 7, 0x0f, 0xa0, 0x08, 0xae]);
    for (version, header) in [(ProxyProtocol::V1, v1), (ProxyProtocol::V2, v2)] {
        let (port, told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
        let mut service = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
        service.proxy_protocol = Some(version);
        let pair = with(service, Config::default());
        let exchange = open(&pair, b"first", false);
        exchange
            .send
            .send(Bytes::from_static(b" second"), true)
            .unwrap();
        let expected = [&header[..], b"first second"].concat();
        assert_eq!(within(told).await.unwrap(), (expected, None), "{version:?}");
        drop(exchange);
        pair.settled().await;
    }
}

/// A service that waits for the header before it speaks gets it although the visitor says nothing.
#[tokio::test]
async fn p_10_5_the_header_does_not_wait_for_the_visitor() {
    let (port, _) = service(|mut stream| async move {
        let mut line = [0; 45];
        stream.read_exact(&mut line).await.unwrap();
        stream.write_all(&line).await.unwrap();
    })
    .await;
    let mut service = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
    service.proxy_protocol = Some(ProxyProtocol::V1);
    let pair = with(service, Config::default());
    let mut exchange = open(&pair, b"", false);
    accepted(&mut exchange).await.unwrap();
    let line = payload(&mut exchange, 45).await.unwrap();
    assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.7 4000 2222\r\n");
    exchange.send.finish().unwrap();
    drop(exchange);
    pair.settled().await;
}

#[tokio::test]
async fn more_connections_than_a_service_may_have_are_refused_with_limit() {
    let (port, _) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let pair = to(port, config);
    let mut first = open(&pair, b"", false);
    accepted(&mut first).await.unwrap();
    let mut second = open(&pair, b"", false);
    let failure = accepted(&mut second).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit, "{failure}");
    assert_eq!(pair.egress.stats().tcp.open, 1);
    drop((first, second));
    pair.settled().await;
}

#[tokio::test]
async fn a_service_of_another_protocol_is_not_reached_by_tcp() {
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Udp] {
        let pair = with(
            ServiceConfig::new("127.0.0.1", 9, protocol),
            Config::default(),
        );
        let mut exchange = open(&pair, b"", false);
        let failure = accepted(&mut exchange).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ProtocolError, "{failure}");
        drop(exchange);
        pair.settled().await;
    }
}

/// A service that takes nothing holds one window of the visitor's bytes, and what the system takes for it.
#[tokio::test]
async fn a_stalled_service_holds_a_window_and_stops_nobody_else() {
    let (port, told) = service(|stream| async move { stream }).await;
    let pair = to(port, Config::default());
    let Exchange { send, recv } = open(&pair, b"", false);
    let flood = Bytes::from(vec![1; 64 << 20]);
    let sending = tokio::spawn(async move { send.send_all(flood, true).await });
    let _stream = within(told).await.unwrap();
    within(async {
        while pair.client.stats().waiting_bytes == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    for _ in 0..8 {
        let (port, _) = service(|mut stream| async move {
            let (said, _) = read_all(&mut stream).await;
            stream.write_all(&said).await.unwrap();
        })
        .await;
        pair.egress.set_services(
            [(
                TUNNEL.into(),
                ServiceConfig::new("127.0.0.1", port, Protocol::Tcp),
            )]
            .into(),
        );
        let mut exchange = open(&pair, b"quick", true);
        accepted(&mut exchange).await.unwrap();
        assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"quick");
        let waiting = pair.client.stats().waiting_bytes;
        assert!((1..=adit_flow::MAX_WINDOW).contains(&waiting), "{waiting}");
    }
    assert!(!sending.is_finished());
    sending.abort();
    let _ = sending.await;
    drop(recv);
    pair.settled().await;
}
