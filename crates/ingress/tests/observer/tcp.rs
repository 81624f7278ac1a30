//! TCP connections.

use std::sync::Arc;

use adit_codec::{ProtocolType, ResetCode, accepted};
use adit_ingress::{Direction, Layer, TcpConfig};
use adit_link::{Failure, Part, Reason};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    rig::{CARRIED, Records, crossed, recorder},
    tcp_world::{Link, TUNNEL, World, director, echo, read, read_all, reset, within},
};

async fn world(config: TcpConfig, links: Vec<Link>, ratio: f64) -> (World, Records) {
    let there = links.clone();
    let director = director(move |_, avoid| {
        let link = u64::try_from(avoid.len()).unwrap();
        match there.get(avoid.len()) {
            Some(to) => Direction::Go(to.destination(link)),
            None => Direction::Fail(Failure::new(Reason::NoTunnel, "nothing is here")),
        }
    });
    let (recorder, records) = recorder(ratio);
    let layers: Vec<Box<dyn Layer>> = Vec::new();
    let world = World::observed(config, layers, director, links, recorder).await;
    (world, records)
}

#[tokio::test]
async fn a_connection_is_told_of_at_its_end() {
    let (link, mut opened) = Link::scripted();
    let (world, mut records) = world(TcpConfig::default(), vec![link], 1.0).await;
    let mut visitor = world.visit().await;
    let addr = visitor.local_addr().unwrap();
    let (head, mut exchange) = within(opened.recv()).await.unwrap();
    visitor.write_all(b"four").await.unwrap();
    let Some(Ok(Part::Data(data))) = within(exchange.recv.part()).await else {
        panic!("no payload");
    };
    assert_eq!(data.as_ref(), b"four");
    exchange
        .send
        .respond(accepted(ProtocolType::Tcp), false)
        .unwrap();
    exchange.send.send_all("hello".into(), true).await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (b"hello".to_vec(), None));
    visitor.shutdown().await.unwrap();
    assert!(within(exchange.recv.part()).await.is_none());
    drop((data, exchange));
    let told = within(records.recv()).await.unwrap();
    assert_eq!((told.protocol, told.uuid), ("tcp", head.open.request_uuid));
    assert_eq!(told.outcome(), (0, None, 4, 5));
    assert_eq!(
        (told.visitor.clone(), told.port),
        (addr.to_string(), world.addr.port())
    );
    assert_eq!((told.asked.0, &told.asked.1[..]), ("", ""));
    assert_eq!(told.phases(), CARRIED);
    assert!(told.answered.is_some());
    told.led_to(TUNNEL);
    crossed(&told, 0, &head.open.traceparent);
}

#[tokio::test]
async fn a_connection_that_breaks_says_who_it_was() {
    for (end, reason) in [
        ("fail", "service_aborted"),
        ("left", "cancelled"),
        ("link", "link_lost"),
    ] {
        let (link, mut opened) = Link::scripted();
        let (world, mut records) = world(TcpConfig::default(), vec![link.clone()], 0.0).await;
        let mut visitor = world.visit().await;
        let (head, exchange) = within(opened.recv()).await.unwrap();
        assert_eq!(&*head.open.traceparent, "");
        let accepted = accepted(ProtocolType::Tcp);
        exchange.send.respond(accepted, false).unwrap();
        exchange.send.send_all("hello".into(), false).await.unwrap();
        assert_eq!(read(&mut visitor, 5).await, b"hello");
        match end {
            "fail" => exchange.send.reset(ResetCode::ServiceAborted, "broke"),
            "left" => reset(visitor),
            _ => link.near.close(&Failure::new(Reason::LinkLost, "cut")),
        }
        let told = within(records.recv()).await.unwrap();
        assert_eq!(told.outcome(), (0, Some(reason), 0, 5));
        assert!(told.timeline.is_none());
        told.led_to(TUNNEL);
    }
}

#[tokio::test]
async fn a_connection_that_is_led_nowhere_says_why() {
    let (world, mut records) = world(TcpConfig::default(), Vec::new(), 1.0).await;
    let mut visitor = world.visit().await;
    read_all(&mut visitor).await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, Some("no_tunnel"), 0, 0));
    assert_eq!(told.phases(), ["accept", "queue", "route"]);
    assert!(told.answered.is_none());
    told.led_nowhere();
}

#[tokio::test]
async fn one_connection_too_many_is_told_of_as_well() {
    let config = TcpConfig {
        max_connections: 1,
        ..TcpConfig::default()
    };
    let (link, mut opened) = Link::scripted();
    let (world, mut records) = world(config, vec![link], 1.0).await;
    let _one: TcpStream = world.visit().await;
    let _held = within(opened.recv()).await.unwrap();
    let mut other = world.visit().await;
    read_all(&mut other).await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, Some("limit"), 0, 0));
    told.led_nowhere();
    assert_eq!(world.tcp.stats().refused, 1);
}

#[tokio::test]
async fn each_try_of_a_connection_has_its_own_phases() {
    let (first, mut opened) = Link::scripted();
    let (second, egress) = Link::to(echo().await);
    let (world, mut records) = world(TcpConfig::default(), vec![first, second], 1.0).await;
    let mut visitor = world.visit().await;
    let (head, exchange) = within(opened.recv()).await.unwrap();
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    visitor.write_all(b"hello").await.unwrap();
    assert_eq!(read(&mut visitor, 5).await, b"hello");
    visitor.shutdown().await.unwrap();
    read_all(&mut visitor).await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!((told.outcome(), told.retries), ((0, None, 5, 5), 1));
    let phases = [
        "accept", "queue", "route", "transit", "route", "transit", "end",
    ];
    assert_eq!(told.phases(), phases);
    crossed(&told, 0, &head.open.traceparent);
    assert_ne!(told.transits()[0], told.transits()[1]);
    drop(Arc::clone(&egress));
}
