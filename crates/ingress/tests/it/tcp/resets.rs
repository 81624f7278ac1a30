//! A failure of one hop is a reset on the other.

use std::{collections::HashMap, time::Duration};

use adit_codec::ProtocolType;
use adit_ingress::{Layer, NoResponse, Session, TcpConfig, Verdict};
use adit_link::{Failure, Reason};
use adit_testlink::{
    EgressLink, Link, Route, fail,
    http1::send,
    never, next_part,
    tcp::{RESET, echo, read, read_all, reset, service, unused_port},
    until, within,
};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::tcp::{ToService, egress_link};

#[tokio::test]
async fn p_10_3_a_visitor_that_resets_resets_the_service() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    entry.service_has(5).await;
    reset(visitor);
    assert_eq!(within(results.recv()).await.unwrap().1, RESET);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

/// The visitor's direction has ended and nothing is written to it: only the state of its connection reports the reset.
#[tokio::test]
async fn p_10_3_a_visitor_that_resets_after_its_end_resets_the_service() {
    let (port, mut results) = service(|mut stream, _| async move {
        assert_eq!(read_all(&mut stream).await, (b"hello".to_vec(), None));
        stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    visitor.shutdown().await.unwrap();
    entry.service_has(5).await;
    reset(visitor);
    within(results.recv()).await.unwrap();
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

/// The service reads nothing, so nothing is read from the visitor: its reset is detected nevertheless.
#[tokio::test]
async fn p_10_3_a_visitor_that_resets_without_credit_is_noticed() {
    let (port, mut stalled) = service(|stream, _| async move { stream }).await;
    let entry = ToService::new(port);
    let visitor = entry.connect().await;
    let mut service = within(stalled.recv()).await.unwrap();
    fill(&visitor).await;
    assert!(entry.links[0].far.stats().waiting_bytes > 0);
    reset(visitor);
    until("the visitor's leave to be noticed", || {
        entry.stats().open == 0
    })
    .await;
    assert_eq!(read_all(&mut service).await.1, RESET);
    entry.settled().await;
}

/// Writes until no more bytes are accepted.
async fn fill(stream: &TcpStream) {
    let mut full = 0;
    while full < 50 {
        match stream.try_write(&[1; 65536]) {
            Ok(_) => full = 0,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                full += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }
}

#[tokio::test]
async fn p_10_3_a_service_that_resets_resets_the_visitor() {
    let (port, _) = service(|mut stream, _| async move {
        assert_eq!(read(&mut stream, 5).await, b"hello");
        reset(stream);
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    // The service resets after the visitor's direction has ended.
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    visitor.shutdown().await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::ServiceAborted), 2);
}

#[tokio::test]
async fn p_10_3_a_lost_link_resets_both_hops() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    entry.service_has(5).await;
    let lost = Failure::new(Reason::LinkLost, "cut");
    entry.links[0].near.close(&lost);
    entry.links[0].far.close(&lost);
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    assert_eq!(within(results.recv()).await.unwrap().1, RESET);
    until("both to be over", || {
        entry.stats().open + entry.egress.stats().tcp.open == 0
    })
    .await;
    assert_eq!(entry.stats().failures.of(Reason::LinkLost), 1);
}

#[tokio::test]
async fn p_10_3_dropping_the_future_resets_both_hops() {
    let (port, mut results) =
        service(|mut stream, _| async move { read_all(&mut stream).await }).await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    entry.service_has(5).await;
    entry.serving.lock().unwrap()[0].abort();
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    assert_eq!(within(results.recv()).await.unwrap().1, RESET);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

#[tokio::test]
async fn p_10_3_dropping_a_half_closed_connection_resets_both_hops() {
    let (port, mut results) = service(|mut stream, _| async move {
        assert_eq!(read_all(&mut stream).await, (b"hello".to_vec(), None));
        send(&mut stream, b"response").await;
        stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    })
    .await;
    let entry = ToService::new(port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    visitor.shutdown().await.unwrap();
    assert_eq!(read(&mut visitor, 8).await, b"response");
    entry.serving.lock().unwrap()[0].abort();
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    within(results.recv()).await.unwrap();
    entry.settled().await;
}

#[tokio::test]
async fn p_10_4_a_visitor_without_a_service_is_reset() {
    // There is no service.
    let entry = ToService::new(unused_port().await);
    let mut visitor = entry.connect().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::DialFailed), 1);
    // The client does not have the tunnel.
    entry.egress.set_services(HashMap::new());
    let mut visitor = entry.connect().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::NoTunnel), 1);
    assert_eq!(entry.stats().retries, 0);
    // There is no tunnel.
    let nowhere = Route::director(&[], |_, _| fail(Reason::NoTunnel));
    let config = TcpConfig::default();
    let entry = nowhere.tcp(config.clone());
    let mut visitor = entry.connect().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    let sessions = entry.director.sessions.lock().unwrap().clone();
    assert_eq!(sessions[0].protocol, ProtocolType::Tcp);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::NoTunnel), 1);
    // A layer rejects the connection.
    struct Closed;
    impl Layer for Closed {
        fn on_session<'s>(&'s self, _: &'s Session) -> Verdict<'s, NoResponse> {
            Verdict::Reject(Failure::new(Reason::Limit, "too many"))
        }
    }
    let unused = Route::director(&[], |_, _| panic!("the layer stops it"));
    let entry = unused.layer(Closed).tcp(config);
    let mut visitor = entry.connect().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Limit), 1);
}

#[tokio::test]
async fn p_10_4_a_late_accept_resets_the_visitor() {
    let (link, mut incoming) = Link::scripted();
    let config = TcpConfig {
        accept_timeout: Duration::from_millis(50),
        ..TcpConfig::default()
    };
    let entry = Route::to(&link).tcp(config);
    let mut visitor = entry.connect().await;
    let (_, mut exchange) = incoming.tcp().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    let failure = next_part(&mut exchange.recv).await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    drop(exchange);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::ServiceTimeout), 1);
}

#[tokio::test]
async fn p_10_4_connections_over_the_bound_are_reset() {
    let config = TcpConfig {
        max_connections: 1,
        ..TcpConfig::default()
    };
    let entry = ToService::with(config, echo().await);
    let mut first = entry.connect().await;
    send(&mut first, b"a").await;
    assert_eq!(read(&mut first, 1).await, b"a");
    let mut second = entry.connect().await;
    assert_eq!(read_all(&mut second).await, (Vec::new(), RESET));
    drop(first);
    entry.settled().await;
    assert_eq!(entry.stats().refused, 1);
}

#[tokio::test]
async fn a_visitor_that_resets_while_it_waits_is_noticed() {
    let route = Route::director(&[], |_, _| never());
    let config = TcpConfig::default();
    let entry = route.tcp(config);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"unread").await;
    until("the visitor to be there", || entry.stats().open == 1).await;
    reset(visitor);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::Cancelled), 1);
}

#[tokio::test]
async fn a_visitor_that_reads_nothing_is_reset() {
    let (port, mut results) = service(|mut stream, _| async move {
        let block = vec![1; 65536];
        while stream.write_all(&block).await.is_ok() {}
        read_all(&mut stream).await.1
    })
    .await;
    let config = TcpConfig {
        stall: Duration::from_millis(100),
        ..TcpConfig::default()
    };
    let entry = ToService::with(config, port);
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    until("the stall to be noticed", || {
        entry.stats().failures.of(Reason::Stalled) == 1
    })
    .await;
    within(results.recv()).await.unwrap();
    entry.settled().await;
    assert_eq!(read_all(&mut visitor).await.1, RESET);
}

#[tokio::test]
async fn a_service_that_reads_nothing_is_reset() {
    let (port, mut stalled) = service(|stream, _| async move { stream }).await;
    let config = adit_egress::Config {
        tcp_stall_timeout: Duration::from_millis(100),
        ..adit_egress::Config::default()
    };
    let EgressLink { link, egress } = egress_link(config, port);
    let entry = Route::to(&link).tcp(TcpConfig::default());
    let entry = ToService { entry, egress };
    let mut visitor = entry.connect().await;
    let mut service = within(stalled.recv()).await.unwrap();
    let flood = vec![1; 64 << 20];
    assert!(within(visitor.write_all(&flood)).await.is_err());
    assert_eq!(read_all(&mut service).await.1, RESET);
    entry.settled().await;
    assert_eq!(entry.stats().failures.of(Reason::ServiceTimeout), 1);
}
