//! What another client is tried for, and what it gets.

use std::sync::{Mutex, atomic::Ordering};

use adit_codec::{ProtocolType, ResetCode, TcpOpen, accepted};
use adit_ingress::{Direction, TcpConfig};
use adit_link::{Exchange, Failure, Part, Reason};
use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{mpsc, oneshot},
};

use crate::world::{Link, RESET, World, director, echo, read, read_all, until, within};

/// Two links: a scripted one, which is led to once the test says so, and one to a service that echoes.
struct Two {
    world: World,
    go: oneshot::Sender<()>,
    opened: mpsc::UnboundedReceiver<(TcpOpen, Exchange)>,
}

impl Two {
    async fn new(config: TcpConfig) -> Self {
        let (first, opened) = Link::scripted();
        let (second, egress) = Link::to(echo().await);
        let (go, gone) = oneshot::channel();
        let gone = Mutex::new(Some(gone));
        let links = [first.clone(), second.clone()];
        let director = director(move |_, avoid| {
            if !avoid.is_empty() {
                return Direction::Go(links[1].destination(1));
            }
            let gone = gone.lock().unwrap().take().unwrap();
            let destination = links[0].destination(0);
            Direction::Wait(Box::pin(async move {
                let _ = gone.await;
                Ok(destination)
            }))
        });
        let mut world = World::assemble(config, Vec::new(), director, vec![first, second]).await;
        world.egress = Some(egress);
        Self { world, go, opened }
    }

    /// A visitor that has said this before it is led anywhere, and what the client gets.
    async fn visit(&mut self, said: &[u8], end: bool) -> (TcpStream, Exchange) {
        let mut visitor = self.world.visit().await;
        visitor.write_all(said).await.unwrap();
        if end {
            visitor.shutdown().await.unwrap();
        }
        until("the visitor to be asked for", || {
            !self.world.director.asked.lock().unwrap().is_empty()
        })
        .await;
        let (go, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.go, go).send(());
        let (_, exchange) = within(self.opened.recv()).await.unwrap();
        (visitor, exchange)
    }

    fn asked(&self) -> Vec<Vec<u64>> {
        self.world.director.asked.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn p_6_3_a_refused_connection_goes_to_another_client_with_its_first_bytes() {
    for (code, end) in [
        (ResetCode::Refused, false),
        (ResetCode::Draining, false),
        (ResetCode::Refused, true),
    ] {
        let mut two = Two::new(TcpConfig::default()).await;
        let (mut visitor, mut exchange) = two.visit(b"hello", end).await;
        if end {
            // It is read behind the bytes, and is no reason against another try.
            assert!(within(exchange.recv.part()).await.unwrap().is_ok());
            assert!(within(exchange.recv.part()).await.is_none());
        }
        exchange.send.reset(code, "not here");
        drop(exchange.recv);
        assert_eq!(read(&mut visitor, 5).await, b"hello");
        let _ = visitor.shutdown().await;
        assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
        two.world.settled().await;
        let stats = two.world.tcp.stats();
        assert_eq!((stats.retries, stats.received_bytes), (1, 5));
        assert_eq!(two.asked(), [vec![], vec![0]]);
    }
}

#[tokio::test]
async fn p_6_3_a_connection_that_has_sent_more_is_not_tried_again() {
    let config = TcpConfig {
        first_bytes: 4,
        ..TcpConfig::default()
    };
    let mut two = Two::new(config).await;
    let (mut visitor, mut exchange) = two.visit(b"hello", false).await;
    for expected in [&b"hell"[..], b"o"] {
        match within(exchange.recv.part()).await {
            Some(Ok(Part::Data(data))) => assert_eq!(data.as_ref(), expected),
            other => panic!("{other:?}"),
        }
    }
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    two.world.settled().await;
    assert_eq!(two.asked(), [vec![0; 0]]);
    assert_eq!(two.world.tcp.stats().failed(Reason::Refused), 1);
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
    two.world.settled().await;
    assert_eq!(two.asked(), [vec![0; 0]]);
}

#[tokio::test]
async fn p_6_3_only_what_no_service_has_seen_is_tried_again() {
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
        two.world.settled().await;
        assert_eq!(two.asked(), [vec![0; 0]], "{code:?}");
    }
}

#[tokio::test]
async fn p_7_2_without_a_retry_left_the_visitor_is_reset() {
    let mut two = Two::new(TcpConfig::default()).await;
    two.world.director.retries_left.store(0, Ordering::Relaxed);
    let (mut visitor, exchange) = two.visit(b"hello", false).await;
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    two.world.settled().await;
    let stats = two.world.tcp.stats();
    assert_eq!((stats.retries, stats.failed(Reason::Refused)), (0, 1));
}

/// A lane that is over when it is chosen has carried nothing.
#[tokio::test]
async fn p_6_3_a_lane_that_is_over_is_another_reason_to_go_elsewhere() {
    let (dead, _opened) = Link::scripted();
    dead.near.close(&Failure::new(Reason::LinkLost, "cut"));
    let (alive, egress) = Link::to(echo().await);
    let links = [dead, alive.clone()];
    let director =
        director(move |_, avoid| Direction::Go(links[avoid.len()].destination(avoid.len() as u64)));
    let config = TcpConfig::default();
    let mut world = World::assemble(config, Vec::new(), director, vec![alive]).await;
    world.egress = Some(egress);
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut visitor, 5).await, b"hello");
    drop(visitor);
    world.settled().await;
    assert_eq!(world.tcp.stats().retries, 1);
}

#[tokio::test]
async fn p_6_3_a_connection_is_tried_on_three_clients_at_most() {
    let links: Vec<_> = (0..4).map(|_| Link::scripted()).collect();
    let (links, opened): (Vec<_>, Vec<_>) = links.into_iter().unzip();
    for mut opened in opened {
        tokio::spawn(async move {
            while let Some((_, exchange)) = opened.recv().await {
                exchange.send.reset(ResetCode::Refused, "not here");
            }
        });
    }
    let there = links.clone();
    let director =
        director(move |_, avoid| Direction::Go(there[avoid.len()].destination(avoid.len() as u64)));
    let world = World::assemble(TcpConfig::default(), Vec::new(), director, links).await;
    let mut visitor = world.visit().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    let asked = world.director.asked.lock().unwrap().clone();
    assert_eq!(asked, [vec![], vec![0], vec![0, 1]]);
    let stats = world.tcp.stats();
    assert_eq!((stats.retries, stats.failed(Reason::Refused)), (2, 1));
}
