//! Flows of UDP.

use std::time::Duration;

use adit_ingress::UdpConfig;
use adit_link::Reason;
use adit_testlink::{FORWARDED, Link, Recorder, Records, Route, UdpEntry, fail, next_part, udp};
use adit_trace::Phase;

const MINUTE: Duration = Duration::from_secs(60);

fn observed(link: &Link, config: UdpConfig, silence: Duration, ratio: f64) -> (UdpEntry, Records) {
    let (recorder, records) = Recorder::new(ratio);
    let port = Route::to(link).observer(recorder).udp(config, silence);
    (port, records)
}

#[tokio::test]
async fn a_flow_is_recorded_at_its_end() {
    let (link, mut incoming) = Link::scripted();
    let (port, mut records) = observed(&link, UdpConfig::default(), MINUTE, 1.0);
    let visitor = port.visitor().await;
    visitor.send(b"four").await;
    let (head, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "four");
    udp::accept(&service);
    udp::send(&service, "seven..");
    assert_eq!(visitor.recv().await.len(), 7);
    service.send.finish().unwrap();
    drop(service);
    let record = records.next().await;
    assert_eq!(
        (record.protocol, record.request_uuid),
        ("udp", head.open.request_uuid)
    );
    assert_eq!(record.outcome(), (0, None, 4, 7));
    assert_eq!(record.visitor, visitor.addr().to_string());
    assert_eq!(record.port, port.addr.port());
    assert_eq!(record.phases(), FORWARDED);
    assert!(record.responded.is_some());
    record.expect_forwarded();
    record.expect_context(0, &head.open.traceparent);
}

#[tokio::test]
async fn a_silent_flow_ends_without_a_reason() {
    let (link, mut incoming) = Link::scripted();
    let silence = Duration::from_millis(50);
    let (port, mut records) = observed(&link, UdpConfig::default(), silence, 0.0);
    let visitor = port.visitor().await;
    visitor.send(b"four").await;
    let (head, mut service) = incoming.udp().await;
    assert_eq!(&*head.open.traceparent, "");
    assert_eq!(udp::recv(&mut service).await, "four");
    udp::accept(&service);
    assert!(next_part(&mut service.recv).await.is_none());
    service.send.finish().unwrap();
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, None, 4, 0));
    assert!(record.timeline.is_none() && record.responded.is_none());
}

#[tokio::test]
async fn evicted_and_dropped_flows_record_their_reason() {
    let config = UdpConfig {
        max_flows: 1,
        ..UdpConfig::default()
    };
    let (link, mut incoming) = Link::scripted();
    let (port, mut records) = observed(&link, config, MINUTE, 1.0);
    let (evicted, last) = (port.visitor().await, port.visitor().await);
    evicted.send(b"ab").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "ab");
    last.send(b"").await;
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, Some("limit"), 2, 0));
    assert_eq!(record.phases(), FORWARDED[..4]);
    record.expect_forwarded();
    // Flows of a dropped port are cancelled.
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "");
    port.serving.lock().unwrap()[0].abort();
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, Some("cancelled"), 0, 0));
}

#[tokio::test]
async fn a_flow_without_a_destination_records_its_reason() {
    let (recorder, mut records) = Recorder::new(1.0);
    let nowhere = Route::director(&[], |_, _| fail(Reason::NoTunnel));
    let port = nowhere.observer(recorder).udp(UdpConfig::default(), MINUTE);
    port.visitor().await.send(b"abc").await;
    let record = records.next().await;
    assert_eq!(record.outcome(), (0, Some("no_tunnel"), 3, 0));
    assert_eq!(record.phases(), [Phase::Accept, Phase::Queue, Phase::Route]);
    record.expect_not_forwarded();
}
