//! TCP services behind a lane; the test is the other end.

use std::{io, sync::Arc, time::Duration};

use adit_codec::ResetCode;
use adit_egress::{Config, Protocol, ProxyProtocol, ServiceConfig};
use adit_link::{Exchange, Failure, Part, Reason};
use adit_testlink::{
    EgressLink, TUNNEL, TunnelRequest,
    http1::{self, send},
    next_part,
    tcp::{read_all, service},
    udp::expect_accepted as accepted,
    until, within,
};
use bytes::Bytes;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};

fn to(port: u16, config: Config) -> EgressLink {
    EgressLink::to(ServiceConfig::new("127.0.0.1", port, Protocol::Tcp), config)
}

fn open(link: &EgressLink, body: &[u8], end: bool) -> Exchange {
    link.open(TunnelRequest::default().tcp(body), end)
}

/// Payload up to this many bytes, or to the end.
async fn payload(exchange: &mut Exchange, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut all = Vec::new();
    while all.len() < bytes
        && let Some(part) = next_part(&mut exchange.recv).await
    {
        match part? {
            Part::Data(data) => all.extend_from_slice(data.as_ref()),
            other => panic!("expected payload, got {other:?}"),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn p_10_1_the_accept_precedes_the_first_bytes_of_the_service() {
    let (port, mut results) = service(|mut stream, _| async move {
        send(&mut stream, b"220 ready\r\n").await;
        read_all(&mut stream).await
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 11).await.unwrap(), b"220 ready\r\n");
    assert_eq!(link.egress.stats().tcp.open, 1);
    assert_eq!(link.egress.stats().connections, 1);
    exchange.send.finish().unwrap();
    assert_eq!(within(results.recv()).await.unwrap(), (Vec::new(), None));
    assert_eq!(payload(&mut exchange, 1).await.unwrap(), b"");
    drop(exchange);
    link.settled().await;
    let stats = link.egress.stats();
    assert_eq!((stats.tcp.open, stats.tcp.total, stats.dialled), (0, 1, 1));
    assert_eq!((stats.tcp.received_bytes, stats.tcp.sent_bytes), (11, 0));
}

#[tokio::test]
async fn p_10_1_chunks_may_follow_before_the_response() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"in the head, ", false);
    exchange
        .send
        .send(Bytes::from_static(b"and behind it"), true)
        .unwrap();
    let expected = b"in the head, and behind it".to_vec();
    assert_eq!(within(results.recv()).await.unwrap(), (expected, None));
    accepted(&mut exchange).await.unwrap();
    drop(exchange);
    link.settled().await;
}

#[tokio::test]
async fn p_10_2_a_half_closed_visitor_gets_the_rest() {
    let (port, _) = service(|mut stream, _| async move {
        let (bytes, _) = read_all(&mut stream).await;
        send(&mut stream, &bytes).await;
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"all there is", true);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"all there is");
    assert!(exchange.recv.is_ended());
    drop(exchange);
    link.settled().await;
    assert_eq!(link.egress.stats().tcp.aborted, 0);
}

#[tokio::test]
async fn p_10_2_a_half_closed_service_gets_the_rest() {
    let (port, mut results) = service(|mut stream, _| async move {
        send(&mut stream, b"bye").await;
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"bye");
    assert!(exchange.recv.is_ended());
    let rest = Bytes::from(vec![7; 100_000]);
    exchange.send.send_all(rest.clone(), true).await.unwrap();
    assert_eq!(within(results.recv()).await.unwrap(), (rest.to_vec(), None));
    drop(exchange);
    link.settled().await;
}

#[tokio::test]
async fn p_10_3_a_service_that_resets_is_a_reset() {
    let (port, _) = service(|mut stream, _| async move {
        stream.read_exact(&mut [0; 5]).await.unwrap();
        stream.set_zero_linger().unwrap();
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    let failure = payload(&mut exchange, 1).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    link.settled().await;
    assert_eq!(link.egress.stats().tcp.aborted, 1);
}

/// The service's direction has ended and nothing is written: only the state of the connection reports the reset.
#[tokio::test]
async fn p_10_3_a_service_that_resets_after_its_end_is_a_reset() {
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let (port, _) = service(move |mut stream, _| {
        let gone = gone.clone();
        async move {
            stream.shutdown().await.unwrap();
            gone.notified().await;
            stream.set_zero_linger().unwrap();
        }
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"", false);
    accepted(&mut exchange).await.unwrap();
    assert_eq!(payload(&mut exchange, 1).await.unwrap(), b"");
    go.notify_one();
    let failure = within(std::future::poll_fn(|cx| {
        match exchange.send.poll_ready(cx) {
            std::task::Poll::Ready(Err(failure)) => std::task::Poll::Ready(failure),
            _ => std::task::Poll::Pending,
        }
    }))
    .await;
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    link.settled().await;
}

/// The payload of the service is not read, so nothing is read from it: its reset is detected nevertheless.
#[tokio::test]
async fn p_10_3_a_service_that_resets_without_credit_is_a_reset() {
    let go = Arc::new(Notify::new());
    let gone = go.clone();
    let (port, _) = service(move |mut stream, _| {
        let gone = gone.clone();
        async move {
            let flood = tokio::spawn(async move {
                while stream.write_all(&[1; 65536]).await.is_ok() {
                    tokio::task::yield_now().await;
                }
            });
            gone.notified().await;
            // Bytes that have not been sent yet are discarded, and the direction ends with a reset.
            flood.abort();
        }
    })
    .await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"unread", false);
    let waits = || link.near.stats().waiting_bytes;
    let window = u64::from(link.near.initial_window());
    until("the window is used up", || waits() + 1024 >= window).await;
    assert!(waits() <= window, "{}", waits());
    go.notify_one();
    // Bytes before the reset wait for a visitor that reads later (P-6.2).
    accepted(&mut exchange).await.unwrap();
    let failure = payload(&mut exchange, usize::MAX).await.unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceAborted, "{failure}");
    drop(exchange);
    link.settled().await;
    assert_eq!(link.egress.stats().tcp.aborted, 1);
}

#[tokio::test]
async fn p_10_3_a_visitor_that_leaves_resets_the_service() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    exchange
        .send
        .reset(ResetCode::Cancelled, "the visitor left");
    let (_, error) = within(results.recv()).await.unwrap();
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    drop(exchange.recv);
    link.settled().await;
    assert_eq!(link.egress.stats().tcp.aborted, 0);
}

#[tokio::test]
async fn p_10_3_a_lost_link_resets_the_service() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"hello", true);
    accepted(&mut exchange).await.unwrap();
    let lost = Failure::new(Reason::LinkLost, "cut");
    link.far.close(&lost);
    // All bytes of the visitor had arrived before: its direction has ended in order.
    let (received, _) = within(results.recv()).await.unwrap();
    assert_eq!(received, b"hello");
    drop(exchange);

    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"hello", false);
    accepted(&mut exchange).await.unwrap();
    link.far.close(&lost);
    let (_, error) = within(results.recv()).await.unwrap();
    assert_eq!(error, Some(io::ErrorKind::ConnectionReset));
    until("the connections are counted", || {
        link.egress.stats().tcp.open == 0
    })
    .await;
}

#[tokio::test]
async fn p_10_4_a_service_that_is_not_there_is_a_failed_dial() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let link = to(port, Config::default());
    let mut exchange = open(&link, b"hello", false);
    let failure = accepted(&mut exchange).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    let why = format!("nothing listens on 127.0.0.1:{port} (connection refused)");
    assert_eq!(failure.detail, why);
    drop(exchange);
    link.settled().await;
    let stats = link.egress.stats();
    assert_eq!((stats.tcp.open, stats.tcp.dials_failed), (0, 1));
}

/// A listener with a full queue: a dial gets no response.
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
async fn p_10_4_a_service_that_accepts_late_is_a_failed_dial() {
    let (_listener, _filling, port) = deaf();
    let config = Config {
        dial_timeout: Duration::from_millis(50),
        ..Config::default()
    };
    let link = to(port, config);
    let mut exchange = open(&link, b"hello", false);
    let failure = accepted(&mut exchange).await.unwrap_err();
    assert_eq!(failure.reason, Reason::DialFailed);
    assert!(failure.detail.contains("no connection to"), "{failure}");
    drop(exchange);
    link.settled().await;
}

#[tokio::test]
async fn a_visitor_that_leaves_during_the_dial_ends_it() {
    let (_listener, _filling, port) = deaf();
    let config = Config {
        dial_timeout: Duration::from_secs(3600),
        ..Config::default()
    };
    let link = to(port, config);
    let exchange = open(&link, b"hello", false);
    until("the connections are counted", || {
        link.egress.stats().tcp.open > 0
    })
    .await;
    drop(exchange);
    link.settled().await;
    until("the connections are counted", || {
        link.egress.stats().tcp.open == 0
    })
    .await;
    assert_eq!(link.egress.stats().tcp.dials_failed, 0);
}

#[tokio::test]
async fn p_10_5_the_proxy_header_precedes_all_bytes() {
    let v1 = b"PROXY TCP4 192.0.2.1 198.51.100.7 4000 2222\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend([192, 0, 2, 1, 198, 51, 100, 7, 0x0f, 0xa0, 0x08, 0xae]);
    for (version, header) in [(ProxyProtocol::V1, v1), (ProxyProtocol::V2, v2)] {
        let (port, mut results) =
            service(|mut stream, _| async move { read_all(&mut stream).await }).await;
        let mut service = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
        service.proxy_protocol = Some(version);
        let link = EgressLink::to(service, Config::default());
        let exchange = open(&link, b"first", false);
        exchange
            .send
            .send(Bytes::from_static(b" second"), true)
            .unwrap();
        let expected = [&header[..], b"first second"].concat();
        assert_eq!(
            within(results.recv()).await.unwrap(),
            (expected, None),
            "{version:?}"
        );
        drop(exchange);
        link.settled().await;
    }
}

/// A service that waits for the header before it sends receives it even while the visitor is silent.
#[tokio::test]
async fn p_10_5_the_header_does_not_wait_for_the_visitor() {
    let (port, _) = service(|mut stream, _| async move {
        let mut line = [0; 45];
        stream.read_exact(&mut line).await.unwrap();
        send(&mut stream, &line).await;
    })
    .await;
    let mut service = ServiceConfig::new("127.0.0.1", port, Protocol::Tcp);
    service.proxy_protocol = Some(ProxyProtocol::V1);
    let link = EgressLink::to(service, Config::default());
    let mut exchange = open(&link, b"", false);
    accepted(&mut exchange).await.unwrap();
    let line = payload(&mut exchange, 45).await.unwrap();
    assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.7 4000 2222\r\n");
    exchange.send.finish().unwrap();
    drop(exchange);
    link.settled().await;
}

#[tokio::test]
async fn connections_over_the_limit_are_refused() {
    let (port, _) = service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let config = Config {
        max_connections: 1,
        ..Config::default()
    };
    let link = to(port, config);
    let mut first = open(&link, b"", false);
    accepted(&mut first).await.unwrap();
    let mut second = open(&link, b"", false);
    let failure = accepted(&mut second).await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit, "{failure}");
    assert_eq!(link.egress.stats().tcp.open, 1);
    drop((first, second));
    link.settled().await;
}

#[tokio::test]
async fn a_service_of_another_protocol_is_not_reached_by_tcp() {
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Udp] {
        let link = EgressLink::to(
            ServiceConfig::new("127.0.0.1", 9, protocol),
            Config::default(),
        );
        let mut exchange = open(&link, b"", false);
        let failure = accepted(&mut exchange).await.unwrap_err();
        assert_eq!(failure.reason, Reason::ProtocolError, "{failure}");
        drop(exchange);
        link.settled().await;
    }
}

/// A service that reads nothing holds one window of the visitor's bytes, and those in the system's buffers.
#[tokio::test]
async fn a_stalled_service_holds_one_window_and_delays_no_other() {
    let (port, mut results) = service(|stream, _| async move { stream }).await;
    let link = to(port, Config::default());
    let Exchange { send, recv } = open(&link, b"", false);
    let flood = Bytes::from(vec![1; 64 << 20]);
    let sending = tokio::spawn(async move { send.send_all(flood, true).await });
    let _stream = within(results.recv()).await.unwrap();
    until("bytes wait", || link.far.stats().waiting_bytes > 0).await;
    for _ in 0..8 {
        let (port, _) = service(|mut stream, _| async move {
            let (bytes, _) = read_all(&mut stream).await;
            http1::send(&mut stream, &bytes).await;
        })
        .await;
        link.egress.set_services(
            [(
                TUNNEL.into(),
                ServiceConfig::new("127.0.0.1", port, Protocol::Tcp),
            )]
            .into(),
        );
        let mut exchange = open(&link, b"quick", true);
        accepted(&mut exchange).await.unwrap();
        assert_eq!(payload(&mut exchange, 99).await.unwrap(), b"quick");
        let waiting = link.far.stats().waiting_bytes;
        assert!((1..=adit_flow::MAX_WINDOW).contains(&waiting), "{waiting}");
    }
    assert!(!sending.is_finished());
    sending.abort();
    let _ = sending.await;
    drop(recv);
    link.settled().await;
}
