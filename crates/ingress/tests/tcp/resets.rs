//! What breaks on one hop is reset on the other.

use std::time::Duration;

use adit_codec::ProtocolType;
use adit_ingress::{Direction, Layer, Session, TcpConfig, Verdict};
use adit_link::{Failure, Reason};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::world::{
    Link, RESET, World, director, echo, read, read_all, reset, service, until, within,
};

#[tokio::test]
async fn p_10_3_a_visitor_that_resets_resets_the_service() {
    let (port, mut told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    world.service_has(5).await;
    reset(visitor);
    assert_eq!(within(told.recv()).await.unwrap().1, RESET);
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::Cancelled), 1);
}

/// The visitor's direction is over and nothing is to be written to it: only its connection can say that it is gone.
#[tokio::test]
async fn p_10_3_a_visitor_that_resets_after_its_end_resets_the_service() {
    let (port, mut told) = service(|mut stream| async move {
        assert_eq!(read_all(&mut stream).await, (b"hello".to_vec(), None));
        stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    visitor.shutdown().await.unwrap();
    world.service_has(5).await;
    reset(visitor);
    within(told.recv()).await.unwrap();
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::Cancelled), 1);
}

/// The service takes nothing, so that nothing is read from the visitor: that it has gone is noticed all the same.
#[tokio::test]
async fn p_10_3_a_visitor_that_resets_while_there_is_no_credit_is_noticed() {
    let (port, mut stalled) = service(|stream| async move { stream }).await;
    let world = World::to(port).await;
    let visitor = world.visit().await;
    let mut service = within(stalled.recv()).await.unwrap();
    fill(&visitor).await;
    assert!(world.links[0].far.stats().waiting_bytes > 0);
    reset(visitor);
    until("the visitor's leave to be noticed", || {
        world.tcp.stats().open == 0
    })
    .await;
    assert_eq!(read_all(&mut service).await.1, RESET);
    world.settled().await;
}

/// Writes until nothing moves any more.
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
    let (port, _) = service(|mut stream| async move {
        assert_eq!(read(&mut stream, 5).await, b"hello");
        reset(stream);
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    // And after the visitor's direction has ended.
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    visitor.shutdown().await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::ServiceAborted), 2);
}

#[tokio::test]
async fn p_10_3_a_lost_link_resets_both_hops() {
    let (port, mut told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    world.service_has(5).await;
    let lost = Failure::new(Reason::LinkLost, "cut");
    world.links[0].near.close(&lost);
    world.links[0].far.close(&lost);
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    assert_eq!(within(told.recv()).await.unwrap().1, RESET);
    until("both to be over", || {
        world.tcp.stats().open + world.egress.as_ref().unwrap().stats().tcp.open == 0
    })
    .await;
    assert_eq!(world.tcp.stats().failed(Reason::LinkLost), 1);
}

#[tokio::test]
async fn p_10_3_dropping_the_future_resets_both_hops() {
    let (port, mut told) = service(|mut stream| async move { read_all(&mut stream).await }).await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    world.service_has(5).await;
    world.serving.lock().unwrap()[0].abort();
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    assert_eq!(within(told.recv()).await.unwrap().1, RESET);
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::Cancelled), 1);
}

#[tokio::test]
async fn p_10_3_dropping_the_future_of_a_half_closed_connection_resets_both_hops() {
    let (port, mut told) = service(|mut stream| async move {
        assert_eq!(read_all(&mut stream).await, (b"hello".to_vec(), None));
        stream.write_all(b"answer").await.unwrap();
        stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    visitor.shutdown().await.unwrap();
    assert_eq!(read(&mut visitor, 6).await, b"answer");
    world.serving.lock().unwrap()[0].abort();
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    within(told.recv()).await.unwrap();
    world.settled().await;
}

#[tokio::test]
async fn p_10_4_a_visitor_that_cannot_be_led_to_a_service_is_reset() {
    // No service.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::DialFailed), 1);
    // A client that does not know the tunnel.
    world
        .egress
        .as_ref()
        .unwrap()
        .set_services(std::collections::HashMap::new());
    let mut visitor = world.visit().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::NoTunnel), 1);
    assert_eq!(world.tcp.stats().retries, 0);
    // No tunnel.
    let nowhere = director(|session, _| {
        assert_eq!(session.protocol, ProtocolType::Tcp);
        Direction::Fail(Failure::new(Reason::NoTunnel, "nobody holds this port"))
    });
    let config = TcpConfig::default();
    let world = World::assemble(config.clone(), Vec::new(), nowhere, Vec::new()).await;
    let mut visitor = world.visit().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::NoTunnel), 1);
    // A layer that says no.
    struct Closed;
    impl Layer for Closed {
        fn on_session(&self, _: &Session) -> Verdict {
            Verdict::Stop(Failure::new(Reason::Limit, "too many"))
        }
    }
    let nobody = director(|_, _| panic!("it was stopped before"));
    let world = World::assemble(config, vec![Box::new(Closed)], nobody, Vec::new()).await;
    let mut visitor = world.visit().await;
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::Limit), 1);
}

#[tokio::test]
async fn p_10_4_a_service_that_is_not_accepted_in_time_resets_the_visitor() {
    let (link, mut opened) = Link::scripted();
    let config = TcpConfig {
        accept_timeout: Duration::from_millis(50),
        ..TcpConfig::default()
    };
    let world = World::through(config, &link).await;
    let mut visitor = world.visit().await;
    let (_, mut exchange) = within(opened.recv()).await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), RESET));
    let failure = within(exchange.recv.part()).await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::ServiceTimeout);
    drop(exchange);
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::ServiceTimeout), 1);
}

#[tokio::test]
async fn p_10_4_connections_over_the_bound_are_reset() {
    let config = TcpConfig {
        max_connections: 1,
        ..TcpConfig::default()
    };
    let world = World::with(config, echo().await).await;
    let mut first = world.visit().await;
    first.write_all(b"a").await.unwrap();
    assert_eq!(read(&mut first, 1).await, b"a");
    let mut second = world.visit().await;
    assert_eq!(read_all(&mut second).await, (Vec::new(), RESET));
    drop(first);
    world.settled().await;
    assert_eq!(world.tcp.stats().refused, 1);
}

#[tokio::test]
async fn a_visitor_that_leaves_before_it_is_led_anywhere_is_noticed() {
    let director = director(|_, _| Direction::Wait(Box::pin(std::future::pending())));
    let config = TcpConfig::default();
    let world = World::assemble(config, Vec::new(), director, Vec::new()).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"unread").await.unwrap();
    until("the visitor to be there", || world.tcp.stats().open == 1).await;
    reset(visitor);
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::Cancelled), 1);
}

#[tokio::test]
async fn a_visitor_that_takes_nothing_for_too_long_is_reset() {
    let (port, mut told) = service(|mut stream| async move {
        let block = vec![1; 65536];
        while stream.write_all(&block).await.is_ok() {}
        read_all(&mut stream).await.1
    })
    .await;
    let config = TcpConfig {
        stall: Duration::from_millis(100),
        ..TcpConfig::default()
    };
    let world = World::with(config, port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"hello").await.unwrap();
    until("the stall to be noticed", || {
        world.tcp.stats().failed(Reason::Stalled) == 1
    })
    .await;
    within(told.recv()).await.unwrap();
    world.settled().await;
    assert_eq!(read_all(&mut visitor).await.1, RESET);
}

#[tokio::test]
async fn a_service_that_takes_nothing_for_too_long_is_reset() {
    let (port, mut stalled) = service(|stream| async move { stream }).await;
    let config = adit_egress::Config {
        tcp_stall_timeout: Duration::from_millis(100),
        ..adit_egress::Config::default()
    };
    let (link, egress) = Link::with(config, port);
    let mut world = World::through(TcpConfig::default(), &link).await;
    world.egress = Some(egress);
    let mut visitor = world.visit().await;
    let mut service = within(stalled.recv()).await.unwrap();
    let flood = vec![1; 64 << 20];
    assert!(within(visitor.write_all(&flood)).await.is_err());
    assert_eq!(read_all(&mut service).await.1, RESET);
    world.settled().await;
    assert_eq!(world.tcp.stats().failed(Reason::ServiceTimeout), 1);
}
