//! Connections that are retried on another client.

use std::sync::{Mutex, atomic::Ordering};

use adit_codec::{ProtocolType, ResetCode, accepted};
use adit_ingress::{Direction, TcpConfig};
use adit_link::{Exchange, Failure, Reason};
use adit_testlink::{
    EgressLink, Incoming, Link, Route,
    exchanges::payload,
    http1::send,
    next_part,
    tcp::{RESET, echo, read, read_all},
    until,
};
use bytes::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::oneshot};

use crate::tcp::{ToService, egress_link};

/// Two links: a scripted one, which receives the connection when the test notifies it, and one to a service that
/// echoes.
struct Two {
    entry: ToService,
    go: oneshot::Sender<()>,
    incoming: Incoming,
}

impl Two {
    async fn new(config: TcpConfig) -> Self {
        let (first, incoming) = Link::scripted();
        let EgressLink {
            link: second,
            egress,
        } = egress_link(Default::default(), echo().await);
        let (go, gone) = oneshot::channel();
        let gone = Mutex::new(Some(gone));
        let links = [first, second];
        let there = links.clone();
        let route = Route::director(&links, move |_, avoid| {
            if !avoid.is_empty() {
                return there[1].direction(1);
            }
            let gone = gone.lock().unwrap().take().unwrap();
            let destination = there[0].destination(0);
            Direction::Wait(Box::pin(async move {
                let _ = gone.await;
                Ok(destination)
            }))
        });
        let entry = route.tcp(config);
        let entry = ToService { entry, egress };
        Self {
            entry,
            go,
            incoming,
        }
    }

    /// A visitor that has sent `bytes` before its connection has a destination, and the exchange of the first client.
    async fn visit(&mut self, bytes: &[u8], end: bool) -> (TcpStream, Exchange) {
        let mut visitor = self.entry.connect().await;
        send(&mut visitor, bytes).await;
        if end {
            visitor.shutdown().await.unwrap();
        }
        until("the connection is directed", || {
            self.entry.director.calls() > 0
        })
        .await;
        let (go, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.go, go).send(());
        (visitor, self.incoming.tcp().await.1)
    }

    fn avoided(&self) -> Vec<Vec<u64>> {
        self.entry.director.avoided.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn p_6_3_a_refused_connection_is_retried_with_its_first_bytes() {
    for (code, end) in [
        (ResetCode::Refused, false),
        (ResetCode::Draining, false),
        (ResetCode::Refused, true),
    ] {
        let mut two = Two::new(TcpConfig::default()).await;
        let (mut visitor, mut exchange) = two.visit(b"hello", end).await;
        if end {
            // The end is read after the bytes, and does not prevent a retry.
            assert!(next_part(&mut exchange.recv).await.unwrap().is_ok());
            assert!(next_part(&mut exchange.recv).await.is_none());
        }
        exchange.send.reset(code, "not here");
        drop(exchange.recv);
        assert_eq!(read(&mut visitor, 5).await, b"hello");
        let _ = visitor.shutdown().await;
        assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
        two.entry.settled().await;
        let stats = two.entry.stats();
        assert_eq!((stats.retries, stats.received_bytes), (1, 5));
        assert_eq!(two.avoided(), [vec![], vec![0]]);
    }
}

#[tokio::test]
async fn p_6_3_a_connection_that_sent_more_is_not_retried() {
    let config = TcpConfig {
        first_bytes: 4,
        ..TcpConfig::default()
    };
    let mut two = Two::new(config).await;
    let (mut visitor, mut exchange) = two.visit(b"hello", false).await;
    for expected in [&b"hell"[..], b"o"] {
        let data = payload(&mut exchange.recv).await;
        assert_eq!(data, expected);
    }
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    two.entry.settled().await;
    assert_eq!(two.avoided(), [vec![0; 0]]);
    assert_eq!(two.entry.stats().failures.of(Reason::Refused), 1);
}

#[tokio::test]
async fn p_6_3_a_connection_that_was_accepted_is_not_tried_again() {
    let mut two = Two::new(TcpConfig::default()).await;
    let (mut visitor, exchange) = two.visit(b"hello", false).await;
    let accepted = accepted(ProtocolType::Tcp);
    exchange.send.respond(accepted, false).unwrap();
    exchange.send.send(Bytes::from_static(b"x"), false).unwrap();
    assert_eq!(read(&mut visitor, 1).await, b"x");
    exchange.send.reset(ResetCode::Refused, "too late");
    drop(exchange.recv);
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    two.entry.settled().await;
    assert_eq!(two.avoided(), [vec![0; 0]]);
}

#[tokio::test]
async fn p_6_3_only_refused_connections_are_retried() {
    for code in [
        ResetCode::DialFailed,
        ResetCode::NoTunnel,
        ResetCode::ServiceAborted,
        ResetCode::Internal,
    ] {
        let mut two = Two::new(TcpConfig::default()).await;
        let (mut visitor, exchange) = two.visit(b"hello", false).await;
        exchange.send.reset(code, "no");
        drop(exchange.recv);
        assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
        two.entry.settled().await;
        assert_eq!(two.avoided(), [vec![0; 0]], "{code:?}");
    }
}

#[tokio::test]
async fn p_7_2_without_a_retry_left_the_visitor_is_reset() {
    let mut two = Two::new(TcpConfig::default()).await;
    two.entry.director.retries_left.store(0, Ordering::Relaxed);
    let (mut visitor, exchange) = two.visit(b"hello", false).await;
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    two.entry.settled().await;
    let stats = two.entry.stats();
    assert_eq!((stats.retries, stats.failures.of(Reason::Refused)), (0, 1));
}

/// A lane that is closed when it is chosen has carried nothing.
#[tokio::test]
async fn p_6_3_a_closed_lane_makes_connections_go_elsewhere() {
    let (dead, _incoming) = Link::scripted();
    dead.near.close(&Failure::new(Reason::LinkLost, "cut"));
    let EgressLink {
        link: alive,
        egress,
    } = egress_link(Default::default(), echo().await);
    let entry = Route::through(&[dead, alive]).tcp(TcpConfig::default());
    let entry = ToService { entry, egress };
    let mut visitor = entry.connect().await;
    send(&mut visitor, b"hello").await;
    assert_eq!(read(&mut visitor, 5).await, b"hello");
    drop(visitor);
    entry.settled().await;
    assert_eq!(entry.stats().retries, 1);
}

#[tokio::test]
async fn p_6_3_a_connection_is_tried_on_three_clients_at_most() {
    let (dispatch, mut incoming) = Incoming::channel();
    let links = [(); 4].map(|()| Link::to(dispatch.clone()));
    tokio::spawn(async move {
        loop {
            let (_, exchange) = incoming.tcp().await;
            exchange.send.reset(ResetCode::Refused, "not here");
        }
    });
    let entry = Route::through(&links).tcp(TcpConfig::default());
    let mut visitor = entry.connect().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    entry.settled().await;
    let avoided = entry.director.avoided.lock().unwrap().clone();
    assert_eq!(avoided, [vec![], vec![0], vec![0, 1]]);
    let stats = entry.stats();
    assert_eq!((stats.retries, stats.failures.of(Reason::Refused)), (2, 1));
}
