//! How flows end: by silence, failures, or draining.

use adit_net::bind_udp;
use std::{collections::VecDeque, sync::Mutex, time::Duration};

use adit_codec::ResetCode;
use adit_ingress::{Direction, UdpConfig};
use adit_link::{Exchange, Failure, Reason};
use adit_testlink::{Link, Route, exchanges::failure_of, fail, next_part, udp, until, within};
use tokio::time::{Instant, sleep};

use crate::udp::SECOND;

#[tokio::test(start_paused = true)]
async fn p_11_4_silence_in_both_directions_ends_a_flow_on_both_sides() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 30 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = incoming.udp().await;
    udp::accept(&service);
    assert_eq!(udp::recv(&mut service).await, "one");
    // A datagram in either direction keeps the flow open.
    sleep(29 * SECOND).await;
    visitor.send(b"two").await;
    assert_eq!(udp::recv(&mut service).await, "two");
    sleep(29 * SECOND).await;
    udp::send(&service, "three");
    assert_eq!(visitor.recv().await, b"three");
    sleep(29 * SECOND).await;
    assert_eq!((port.stats().flows_open, port.stats().flows_silent), (1, 0));
    let before = Instant::now();
    assert!(next_part(&mut service.recv).await.is_none());
    let silence = before.elapsed() + 29 * SECOND;
    assert!(
        silence >= 30 * SECOND && silence < 31 * SECOND,
        "{silence:?}"
    );
    service.send.finish().unwrap();
    drop(service);
    port.until(|stats| stats.flows_open == 0).await;
    link.settled().await;
    // The flow has not failed: it has ended on both sides.
    let stats = port.stats();
    assert_eq!((stats.flows_silent, stats.failures.total()), (1, 0));
    assert_eq!(link.near.stats().pending.completed, 1);
    assert_eq!(link.far.stats().pending.completed, 1);
    // A late datagram opens a new flow.
    visitor.send(b"late").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "late");
    assert_eq!(port.stats().flows, 2);
}

#[tokio::test(start_paused = true)]
async fn p_11_4_a_side_that_does_not_end_its_direction_is_reset() {
    let (link, mut incoming) = Link::scripted();
    let config = UdpConfig {
        end_timeout: 3 * SECOND,
        ..UdpConfig::default()
    };
    let port = Route::to(&link).udp(config, 10 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = incoming.udp().await;
    udp::accept(&service);
    assert_eq!(udp::recv(&mut service).await, "one");
    assert!(next_part(&mut service.recv).await.is_none());
    // A response in transit still reaches the visitor; a late datagram has a flow of its own.
    udp::send(&service, "late response");
    assert_eq!(visitor.recv().await, b"late response");
    visitor.send(b"two").await;
    let (_, mut next) = incoming.udp().await;
    assert_eq!(udp::recv(&mut next).await, "two");
    assert_eq!(port.stats().flows_open, 2);
    let before = Instant::now();
    let lost = failure_of(&service.send).await;
    assert_eq!(lost.reason, Reason::Cancelled);
    assert!(before.elapsed() < 4 * SECOND);
    port.until(|stats| stats.flows_open == 1).await;
    assert_eq!(port.stats().flows_silent, 1);
}

#[tokio::test(start_paused = true)]
async fn p_11_4_flows_end_each_at_its_own_time() {
    let (link, _incoming) = Link::scripted();
    let config = UdpConfig {
        end_timeout: Duration::ZERO,
        ..UdpConfig::default()
    };
    let port = Route::to(&link).udp(config, 10 * SECOND);
    let mut visitors = Vec::new();
    for _ in 0..9 {
        let visitor = port.visitor().await;
        visitor.send(b"x").await;
        visitors.push(visitor);
        sleep(SECOND).await;
    }
    // The first three send again, in the opposite order.
    for visitor in visitors[..3].iter().rev() {
        visitor.send(b"y").await;
        sleep(SECOND / 10).await;
    }
    assert_eq!(port.stats().flows_silent, 0);
    let mut open = VecDeque::new();
    for _ in 0..11 {
        sleep(SECOND).await;
        open.push_back(port.stats().flows_silent);
    }
    // The other six flows end one after the other, the first three together at the end.
    assert_eq!(open, [0, 0, 0, 1, 2, 3, 4, 5, 6, 9, 9]);
    port.until(|stats| stats.flows_open == 0).await;
}

#[tokio::test]
async fn the_next_datagram_of_a_failed_flow_begins_another() {
    let (link, mut incoming) = Link::scripted();
    let there = link.clone();
    let turn = Mutex::new(0);
    let route = Route::director(&[], move |_, _| {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        match *turn {
            1 => fail(Reason::NoTunnel),
            2 => Direction::Wait(Box::pin(async {
                Err(Failure::new(Reason::NoClient, "no client came"))
            })),
            _ => there.direction(1),
        }
    });
    let port = route.udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    for (n, reason) in [(1, Reason::NoTunnel), (2, Reason::NoClient)] {
        visitor.send(b"lost").await;
        port.until(|stats| (stats.flows, stats.flows_open) == (n, 0))
            .await;
        assert_eq!(port.stats().failures.of(reason), 1);
        assert_eq!(port.stats().dropped.undirected, n);
    }
    visitor.send(b"three").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "three");
    service
        .send
        .reset(ResetCode::DialFailed, "connection refused");
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failures.of(Reason::DialFailed), 1);
    visitor.send(b"four").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "four");
    udp::accept(&service);
    udp::send(&service, "at last");
    assert_eq!(visitor.recv().await, b"at last", "and nothing before it");
    assert_eq!(port.stats().flows, 4);
}

#[tokio::test]
async fn p_11_4_a_flow_ended_by_the_other_side_is_over() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = incoming.udp().await;
    udp::accept(&service);
    assert_eq!(udp::recv(&mut service).await, "one");
    // The egress does this after a silence.
    let Exchange { send, recv } = service;
    send.finish().unwrap();
    drop((recv, send));
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failures.total(), 0);
    link.settled().await;
    assert_eq!(link.near.stats().pending.completed, 1);
    visitor.send(b"two").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "two");
}

#[tokio::test]
async fn p_6_4_a_datagram_after_a_lost_link_takes_another_link() {
    let ((first, mut at_first), (second, mut at_second)) = (Link::scripted(), Link::scripted());
    let (one, two) = (first.clone(), second.clone());
    let route = Route::director(&[], move |_, _| {
        let link = if one.near.is_closed() { &two } else { &one };
        link.direction(1)
    });
    let port = route.udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = at_first.udp().await;
    assert_eq!(udp::recv(&mut service).await, "one");
    first.near.close(&Failure::new(Reason::LinkLost, "cut"));
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failures.of(Reason::LinkLost), 1);
    visitor.send(b"two").await;
    let (_, service) = at_second.udp().await;
    tokio::spawn(udp::echo(service, b'!'));
    assert_eq!(visitor.recv().await, b"two!");
}

#[tokio::test]
async fn a_drained_port_ends_with_its_last_flow() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = incoming.udp().await;
    udp::accept(&service);
    assert_eq!(udp::recv(&mut service).await, "one");
    port.drain.send_replace(true);
    let late = port.visitor().await;
    loop {
        // The drain and the datagram take different paths, so their order is unknown.
        late.send(b"late").await;
        sleep(Duration::from_millis(1)).await;
        if port.stats().dropped.draining > 0 {
            break;
        }
        assert!(port.stats().flows <= 2, "a flow began while draining");
        if port.stats().flows == 2 {
            let (_, exchange) = incoming.udp().await;
            exchange.send.reset(ResetCode::Refused, "");
        }
    }
    visitor.send(b"two").await;
    assert_eq!(udp::recv(&mut service).await, "two");
    udp::send(&service, "three");
    assert_eq!(visitor.recv().await, b"three");
    assert!(!port.serving.lock().unwrap()[0].is_finished());
    service.send.finish().unwrap();
    drop(service);
    let serving = port.serving.lock().unwrap().remove(0);
    within(serving).await.unwrap();
    assert_eq!(port.stats().flows_open, 0);
}

#[tokio::test]
async fn a_port_that_is_dropped_cancels_its_flows() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    visitor.send(b"one").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "one");
    port.serving.lock().unwrap()[0].abort();
    let failure = next_part(&mut service.recv).await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    port.until(|stats| stats.flows_open == 0).await;
    drop(service);
    link.settled().await;
    // The port is free again.
    until("the port is free", || bind_udp(port.addr).is_ok()).await;
}
