//! TCP connections.

use adit_codec::{ProtocolType, ResetCode, accepted};
use adit_egress::{Config, Protocol, ServiceConfig};
use adit_ingress::TcpConfig;
use adit_link::{Failure, Reason};
use adit_testlink::{
    EgressLink, FORWARDED, Link, Recorder, Records, Route, TcpEntry,
    exchanges::payload,
    http1::send,
    next_part,
    tcp::{echo, read, read_all, reset},
};
use adit_trace::Phase;
use tokio::io::AsyncWriteExt;

fn observed(config: TcpConfig, links: &[Link], ratio: f64) -> (TcpEntry, Records) {
    let (recorder, records) = Recorder::new(ratio);
    let entry = Route::through(links).observer(recorder).tcp(config);
    (entry, records)
}

#[tokio::test]
async fn a_connection_is_recorded_at_its_end() {
    let (link, mut incoming) = Link::scripted();
    let (entry, mut records) = observed(TcpConfig::default(), &[link], 1.0);
    let mut visitor = entry.connect().await;
    let addr = visitor.local_addr().unwrap();
    let (head, mut exchange) = incoming.tcp().await;
    send(&mut visitor, b"four").await;
    assert_eq!(payload(&mut exchange.recv).await, "four");
    exchange
        .send
        .respond(accepted(ProtocolType::Tcp), false)
        .unwrap();
    exchange.send.send_all("hello".into(), true).await.unwrap();
    assert_eq!(read_all(&mut visitor).await, (b"hello".to_vec(), None));
    visitor.shutdown().await.unwrap();
    assert!(next_part(&mut exchange.recv).await.is_none());
    drop(exchange);
    let record = records.next().await;
    assert_eq!(
        (record.protocol, record.request_uuid),
        ("tcp", head.open.request_uuid)
    );
    assert_eq!(record.outcome(), (0, None, 4, 5));
    assert_eq!(
        (record.visitor, record.port),
        (&*addr.to_string(), entry.addr.port())
    );
    assert_eq!((record.scheme, record.method), ("", ""));
    assert_eq!(record.phases(), FORWARDED);
    assert!(record.responded.is_some());
    record.expect_forwarded();
    record.expect_context(0, &head.open.traceparent);
}

#[tokio::test]
async fn a_broken_connection_records_which_side_failed() {
    for (end, reason) in [
        ("fail", "service_aborted"),
        ("left", "cancelled"),
        ("link", "link_lost"),
    ] {
        let (link, mut incoming) = Link::scripted();
        let (entry, mut records) = observed(TcpConfig::default(), std::slice::from_ref(&link), 0.0);
        let mut visitor = entry.connect().await;
        let (head, exchange) = incoming.tcp().await;
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
        let record = records.next().await;
        assert_eq!(record.outcome(), (0, Some(reason), 0, 5));
        assert!(record.timeline.is_none());
        record.expect_forwarded();
    }
}

#[tokio::test]
async fn a_connection_without_a_destination_records_its_reason() {
    let (entry, mut records) = observed(TcpConfig::default(), &[], 1.0);
    let mut visitor = entry.connect().await;
    read_all(&mut visitor).await;
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, Some("no_client"), 0, 0));
    assert_eq!(record.phases(), [Phase::Accept, Phase::Queue, Phase::Route]);
    assert!(record.responded.is_none());
    record.expect_not_forwarded();
}

#[tokio::test]
async fn a_connection_over_the_limit_is_recorded() {
    let config = TcpConfig {
        max_connections: 1,
        ..TcpConfig::default()
    };
    let (link, mut incoming) = Link::scripted();
    let (entry, mut records) = observed(config, &[link], 1.0);
    let _one = entry.connect().await;
    let _held = incoming.tcp().await;
    let mut other = entry.connect().await;
    read_all(&mut other).await;
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, Some("limit"), 0, 0));
    record.expect_not_forwarded();
    assert_eq!(entry.stats().refused, 1);
}

#[tokio::test]
async fn each_attempt_of_a_connection_has_its_own_phases() {
    let (first, mut incoming) = Link::scripted();
    let service = ServiceConfig::new("127.0.0.1", echo().await, Protocol::Tcp);
    let second = EgressLink::to(service, Config::default()).link;
    let (entry, mut records) = observed(TcpConfig::default(), &[first, second], 1.0);
    let mut visitor = entry.connect().await;
    let (head, exchange) = incoming.tcp().await;
    exchange.send.reset(ResetCode::Refused, "not here");
    drop(exchange.recv);
    send(&mut visitor, b"hello").await;
    assert_eq!(read(&mut visitor, 5).await, b"hello");
    visitor.shutdown().await.unwrap();
    read_all(&mut visitor).await;
    let record = records.next().await;
    assert_eq!((record.outcome(), record.retries), ((0, None, 5, 5), 1));
    let phases = [
        Phase::Accept,
        Phase::Queue,
        Phase::Route,
        Phase::Transit,
        Phase::Route,
        Phase::Transit,
        Phase::End,
    ];
    assert_eq!(record.phases(), phases);
    record.expect_context(0, &head.open.traceparent);
    assert_ne!(record.transits()[0], record.transits()[1]);
}
