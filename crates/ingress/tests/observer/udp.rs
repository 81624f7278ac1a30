//! Flows of UDP.

use std::{sync::Arc, time::Duration};

use adit_ingress::UdpConfig;
use adit_link::Reason;

use crate::{
    rig::{CARRIED, Records, crossed, recorder},
    udp_world::{Link, Port, SECOND, failure, within},
};

fn port(link: &Link, config: UdpConfig, silence: Duration, ratio: f64) -> (Port, Records) {
    let lane = link.near.clone();
    let (recorder, records) = recorder(ratio);
    let port = Port::observed(config, silence, recorder, move |_| Link::to(&lane));
    (port, records)
}

#[tokio::test]
async fn a_flow_is_told_of_at_its_end() {
    let mut link = Link::new();
    let (port, mut records) = port(&link, UdpConfig::default(), 60 * SECOND, 1.0);
    let visitor = port.visitor().await;
    visitor.say(b"four").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "four");
    service.accept();
    service.say("seven..");
    assert_eq!(visitor.hear().await.len(), 7);
    service.exchange.send.finish().unwrap();
    let head = service.head.open.clone();
    drop(service);
    let told = within(records.recv()).await.unwrap();
    assert_eq!((told.protocol, told.uuid), ("udp", head.request_uuid));
    assert_eq!(told.outcome(), (0, None, 4, 7));
    assert_eq!(told.visitor, visitor.addr().to_string());
    assert_eq!(told.port, port.addr.port());
    assert_eq!(told.phases(), CARRIED);
    assert!(told.answered.is_some());
    told.led_to("dns");
    crossed(&told, 0, &head.traceparent);
}

#[tokio::test]
async fn a_flow_that_is_silent_ended_well() {
    let mut link = Link::new();
    let silence = Duration::from_millis(50);
    let (port, mut records) = port(&link, UdpConfig::default(), silence, 0.0);
    let visitor = port.visitor().await;
    visitor.say(b"four").await;
    let mut service = link.flow().await;
    assert_eq!(&*service.head.open.traceparent, "");
    assert_eq!(service.hear().await, "four");
    service.accept();
    assert_eq!(service.try_hear().await.unwrap(), None);
    service.exchange.send.finish().unwrap();
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, None, 4, 0));
    assert!(told.timeline.is_none() && told.answered.is_none());
}

#[tokio::test]
async fn flows_that_are_ended_for_others_say_so() {
    let config = UdpConfig {
        max_flows: 1,
        ..UdpConfig::default()
    };
    let mut link = Link::new();
    let (port, mut records) = port(&link, config, 60 * SECOND, 1.0);
    let (evicted, last) = (port.visitor().await, port.visitor().await);
    evicted.say(b"ab").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "ab");
    last.say(b"").await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, Some("limit"), 2, 0));
    assert_eq!(told.phases(), CARRIED[..4]);
    told.led_to("dns");
    // What runs when the port goes was given up.
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "");
    port.serves.abort();
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, Some("cancelled"), 0, 0));
}

#[tokio::test]
async fn a_flow_that_is_led_nowhere_says_why() {
    let (recorder, mut records) = recorder(1.0);
    let port = Port::observed(UdpConfig::default(), 60 * SECOND, recorder, |_| {
        failure(Reason::NoTunnel)
    });
    port.visitor().await.say(b"abc").await;
    let told = within(records.recv()).await.unwrap();
    assert_eq!(told.outcome(), (0, Some("no_tunnel"), 3, 0));
    assert_eq!(told.phases(), ["accept", "queue", "route"]);
    told.led_nowhere();
    drop(Arc::clone(&port.udp));
}
