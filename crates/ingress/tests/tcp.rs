//! TCP visitors through both ends of a lane, on real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use adit_codec::{ProtocolType, accepted};
use adit_ingress::{Direction, TcpConfig};
use adit_link::Part;
use bytes::Bytes;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{mpsc, oneshot},
};

#[path = "tcp/breaks.rs"]
mod breaks;
#[path = "tcp/bulk.rs"]
mod bulk;
#[path = "tcp/resets.rs"]
mod resets;
#[path = "tcp/retries.rs"]
mod retries;
#[path = "tcp/world.rs"]
mod world;

use world::{Link, RESET, TUNNEL, World, director, echo, read, read_all, service, within};

#[tokio::test]
async fn p_10_1_what_a_visitor_says_comes_back() {
    let world = World::to(echo().await).await;
    let mut visitor = world.visit().await;
    for said in ["hello", "", "and again"] {
        visitor.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(read(&mut visitor, said.len()).await, said.as_bytes());
    }
    let stats = world.tcp.stats();
    assert_eq!((stats.open, stats.total, stats.refused), (1, 1, 0));
    visitor.shutdown().await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
    world.settled().await;
    let stats = world.tcp.stats();
    assert_eq!((stats.received_bytes, stats.sent_bytes), (14, 14));
    assert_eq!(stats.failures.iter().sum::<u64>(), 0);
}

#[tokio::test]
async fn p_10_1_the_service_may_speak_first() {
    let (port, mut told) = service(|mut stream| async move {
        stream.write_all(b"SSH-2.0-adit\r\n").await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    assert_eq!(read(&mut visitor, 14).await, b"SSH-2.0-adit\r\n");
    visitor.write_all(b"SSH-2.0-visitor\r\n").await.unwrap();
    visitor.shutdown().await.unwrap();
    let said = within(told.recv()).await.unwrap();
    assert_eq!(said, (b"SSH-2.0-visitor\r\n".to_vec(), None));
    assert_eq!(read_all(&mut visitor).await, (Vec::new(), None));
    world.settled().await;
}

/// A director that waits for a word before it directs to `link`.
fn waits(
    link: &Link,
) -> (
    Arc<world::TestDirector>,
    mpsc::UnboundedReceiver<oneshot::Sender<()>>,
) {
    let (ask, asked) = mpsc::unbounded_channel();
    let link = link.clone();
    let director = director(move |_, _| {
        let (go, gone) = oneshot::channel();
        ask.send(go).unwrap();
        let destination = link.destination(1);
        Direction::Wait(Box::pin(async move {
            let _ = gone.await;
            Ok(destination)
        }))
    });
    (director, asked)
}

#[tokio::test]
async fn p_10_1_the_first_bytes_ride_in_the_head() {
    let (link, mut opened) = Link::scripted();
    let (director, mut asked) = waits(&link);
    let config = TcpConfig {
        first_bytes: 8,
        ..TcpConfig::default()
    };
    let world = World::assemble(config, Vec::new(), director, vec![link]).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"0123456789").await.unwrap();
    within(asked.recv()).await.unwrap().send(()).unwrap();
    let (head, mut exchange) = within(opened.recv()).await.unwrap();
    assert_eq!(&*head.open.tunnel, TUNNEL);
    assert_eq!(head.open.revision, 7);
    assert_eq!(
        *head.open.visitor,
        visitor.local_addr().unwrap().to_string()
    );
    assert_eq!(*head.local, world.addr.to_string());
    // The body that rode along is the first part, and the rest comes without waiting for an answer.
    for expected in ["01234567", "89"] {
        match within(exchange.recv.part()).await {
            Some(Ok(Part::Data(data))) => assert_eq!(data.as_ref(), expected.as_bytes()),
            other => panic!("{other:?}"),
        }
    }
    drop(exchange);
    assert_eq!(read_all(&mut visitor).await.1, RESET);
    world.settled().await;
}

/// A connection that is served as soon as it has been accepted: nobody has looked yet whether there is something to
/// read.
#[tokio::test]
async fn p_10_1_the_first_bytes_of_a_connection_that_has_just_come_ride_in_the_head() {
    for (window, expected) in [(None, 8 * 1024), (Some(1000), 500), (Some(264), 8)] {
        let (link, mut opened) = Link::scripted_with(window);
        let entry = adit_ingress::Tcp::new(TcpConfig::default(), admission(&link));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let mut visitor = TcpStream::connect(addr).await.unwrap();
        visitor.write_all(&[1; 20_000]).await.unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        let serving = tokio::spawn(entry.serve(stream, peer, addr));
        let (_, mut exchange) = within(opened.recv()).await.unwrap();
        match within(exchange.recv.part()).await {
            Some(Ok(Part::Data(first))) => assert_eq!(first.as_ref().len(), expected),
            other => panic!("{other:?}"),
        }
        drop(exchange);
        within(serving).await.unwrap();
    }
}

#[tokio::test]
async fn p_10_2_an_end_that_is_there_before_the_connection_is_led_anywhere_goes_with_it() {
    let (link, mut opened) = Link::scripted();
    let (director, mut asked) = waits(&link);
    let world = World::assemble(TcpConfig::default(), Vec::new(), director, vec![link]).await;
    let mut visitor = world.visit().await;
    visitor.shutdown().await.unwrap();
    within(asked.recv()).await.unwrap().send(()).unwrap();
    let (_, mut exchange) = within(opened.recv()).await.unwrap();
    assert!(within(exchange.recv.part()).await.is_none());
    exchange
        .send
        .respond(accepted(ProtocolType::Tcp), false)
        .unwrap();
    exchange
        .send
        .send(Bytes::from_static(b"still here"), true)
        .unwrap();
    drop(exchange);
    assert_eq!(read_all(&mut visitor).await, (b"still here".to_vec(), None));
    world.settled().await;
}

#[tokio::test]
async fn p_10_2_the_visitor_ends_first_and_the_service_goes_on() {
    let (port, _) = service(|mut stream| async move {
        let (said, error) = read_all(&mut stream).await;
        assert_eq!(error, None);
        stream.write_all(&said).await.unwrap();
        stream.write_all(b", and then some").await.unwrap();
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"that is all").await.unwrap();
    visitor.shutdown().await.unwrap();
    let expected = b"that is all, and then some".to_vec();
    assert_eq!(read_all(&mut visitor).await, (expected, None));
    world.settled().await;
}

#[tokio::test]
async fn p_10_2_the_service_ends_first_and_the_visitor_goes_on() {
    let (port, mut told) = service(|mut stream| async move {
        stream.write_all(b"that is all").await.unwrap();
        stream.shutdown().await.unwrap();
        read_all(&mut stream).await
    })
    .await;
    let world = World::to(port).await;
    let mut visitor = world.visit().await;
    let said = read_all(&mut visitor).await;
    assert_eq!(said, (b"that is all".to_vec(), None));
    let rest = vec![7; 300_000];
    visitor.write_all(&rest).await.unwrap();
    visitor.shutdown().await.unwrap();
    assert_eq!(within(told.recv()).await.unwrap(), (rest, None));
    world.settled().await;
}

/// One direction shut, and then silence for longer than anything that is timed.
#[tokio::test]
async fn p_10_2_a_half_closed_connection_may_be_silent_for_ever() {
    let (go, gone) = oneshot::channel::<()>();
    let gone = Mutex::new(Some(gone));
    let (port, _) = service(move |mut stream| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            assert_eq!(read_all(&mut stream).await, (b"ask".to_vec(), None));
            gone.await.unwrap();
            stream.write_all(b"answer").await.unwrap();
        }
    })
    .await;
    let config = TcpConfig {
        accept_timeout: Duration::from_millis(200),
        stall: Duration::from_millis(20),
        ..TcpConfig::default()
    };
    let world = World::with(config, port).await;
    let mut visitor = world.visit().await;
    visitor.write_all(b"ask").await.unwrap();
    visitor.shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    go.send(()).unwrap();
    assert_eq!(read_all(&mut visitor).await, (b"answer".to_vec(), None));
    world.settled().await;
}

#[tokio::test]
async fn a_visitor_whose_machine_is_gone_is_asked_after() {
    let (link, mut opened) = Link::scripted();
    for (keepalive, expected) in [(None, false), (Some(Duration::from_secs(8)), true)] {
        let config = TcpConfig {
            keepalive,
            ..TcpConfig::default()
        };
        let entry = adit_ingress::Tcp::new(config, admission(&link));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let visitor = TcpStream::connect(addr).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        // Another handle on the same connection.
        let stream = stream.into_std().unwrap();
        let watched = socket2::Socket::from(stream.try_clone().unwrap());
        let stream = TcpStream::from_std(stream).unwrap();
        let serving = tokio::spawn(entry.serve(stream, peer, addr));
        let (_, exchange) = within(opened.recv()).await.unwrap();
        assert_eq!(watched.keepalive().unwrap(), expected);
        if let Some(silence) = keepalive {
            assert_eq!(watched.tcp_keepalive_time().unwrap(), silence);
            assert_eq!(watched.tcp_keepalive_interval().unwrap(), silence / 4);
        }
        drop((visitor, exchange));
        within(serving).await.unwrap();
    }
}

fn admission(link: &Link) -> Arc<adit_ingress::Admission> {
    let link = link.clone();
    let director = director(move |_, _| Direction::Go(link.destination(1)));
    adit_ingress::Admission::new(Vec::new(), director)
}

/// The permit of a silent connection goes to one that waits; one over which bytes have gone keeps its own.
#[tokio::test]
async fn silent_connection_gives_its_permit_to_one_that_waits() {
    let (link, mut opened) = Link::scripted();
    let there = link.clone();
    let directed = director(move |_, _| Direction::Go(there.destination(1)));
    let gate = adit_flow::Gate::new(2, 10);
    let wait = Duration::from_secs(20);
    let permits = adit_ingress::layers::Permits::new(gate, wait);
    let config = TcpConfig {
        shortage_grace: Duration::from_millis(50),
        ..TcpConfig::default()
    };
    let layers: Vec<Box<dyn adit_ingress::Layer>> = vec![Box::new(permits)];
    let world = World::assemble(config, layers, directed, vec![link]).await;
    let mut talks = world.visit().await;
    talks.write_all(b"hello").await.unwrap();
    let (_, talking) = within(opened.recv()).await.unwrap();
    let mut silent = world.visit().await;
    let (_, exchange) = within(opened.recv()).await.unwrap();
    let _waits = world.visit().await;
    let (_, next) = within(opened.recv()).await.unwrap();
    assert!(read_all(&mut silent).await.1.is_some(), "it is reset");
    assert!(
        within(std::future::poll_fn(|cx| exchange.recv.poll_failure(cx)))
            .await
            .reason
            == adit_link::Reason::Stalled
    );
    assert!(talking.send.failure().is_none());
    drop((talks, talking, next));
}
