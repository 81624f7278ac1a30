//! How flows end: by silence, by failures, by draining.

use std::{collections::VecDeque, sync::Mutex, time::Duration};

use adit_codec::ResetCode;
use adit_ingress::{Direction, UdpConfig, listener::bind_udp};
use adit_link::{Exchange, Failure, Reason};
use tokio::time::{Instant, sleep};

use crate::world::{Link, Port, SECOND, failure, until, within};

#[tokio::test(start_paused = true)]
async fn p_11_4_silence_in_both_directions_ends_a_flow_on_both_sides() {
    let mut link = Link::new();
    let lane = link.near.clone();
    let port = Port::new(UdpConfig::default(), 30 * SECOND, move |_| Link::to(&lane));
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = link.flow().await;
    service.accept();
    assert_eq!(service.hear().await, "one");
    // Either direction keeps it.
    sleep(29 * SECOND).await;
    visitor.say(b"two").await;
    assert_eq!(service.hear().await, "two");
    sleep(29 * SECOND).await;
    service.say("three");
    assert_eq!(visitor.hear().await, b"three");
    sleep(29 * SECOND).await;
    assert_eq!((port.stats().flows_open, port.stats().flows_silent), (1, 0));
    let before = Instant::now();
    assert_eq!(service.try_hear().await.unwrap(), None);
    let silence = before.elapsed() + 29 * SECOND;
    assert!(
        silence >= 30 * SECOND && silence < 31 * SECOND,
        "{silence:?}"
    );
    service.exchange.send.finish().unwrap();
    drop(service);
    port.until(|stats| stats.flows_open == 0).await;
    until(|| link.near.open_requests() + link.far.open_requests() == 0).await;
    // It has not failed: it is over, on both sides.
    let stats = port.stats();
    assert_eq!(
        (stats.flows_silent, stats.failures),
        (1, [0; Reason::ALL.len()])
    );
    assert_eq!(link.near.stats().pending.completed, 1);
    assert_eq!(link.far.stats().pending.completed, 1);
    // What comes late opens a new one.
    visitor.say(b"late").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "late");
    assert_eq!(port.stats().flows, 2);
}

#[tokio::test(start_paused = true)]
async fn p_11_4_a_side_that_does_not_end_its_direction_is_reset() {
    let mut link = Link::new();
    let lane = link.near.clone();
    let config = UdpConfig {
        end_timeout: 3 * SECOND,
        ..UdpConfig::default()
    };
    let port = Port::new(config, 10 * SECOND, move |_| Link::to(&lane));
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = link.flow().await;
    service.accept();
    assert_eq!(service.hear().await, "one");
    assert_eq!(service.try_hear().await.unwrap(), None);
    // An answer that was under way still reaches the visitor; a late datagram has its own flow already.
    service.say("late answer");
    assert_eq!(visitor.hear().await, b"late answer");
    visitor.say(b"two").await;
    let mut next = link.flow().await;
    assert_eq!(next.hear().await, "two");
    assert_eq!(port.stats().flows_open, 2);
    let before = Instant::now();
    let lost = within(async {
        loop {
            if let Err(failure) = service.exchange.send.ready().await {
                return failure;
            }
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(lost.await.reason, Reason::Cancelled);
    assert!(before.elapsed() < 4 * SECOND);
    port.until(|stats| stats.flows_open == 1).await;
    assert_eq!(port.stats().flows_silent, 1);
}

#[tokio::test(start_paused = true)]
async fn p_11_4_flows_end_each_at_its_own_time() {
    let link = Link::new();
    let lane = link.near.clone();
    let config = UdpConfig {
        end_timeout: Duration::ZERO,
        ..UdpConfig::default()
    };
    let port = Port::new(config, 10 * SECOND, move |_| Link::to(&lane));
    let mut visitors = Vec::new();
    for _ in 0..9 {
        let visitor = port.visitor().await;
        visitor.say(b"x").await;
        visitors.push(visitor);
        sleep(SECOND).await;
    }
    // The first three speak again, in the opposite order.
    for visitor in visitors[..3].iter().rev() {
        visitor.say(b"y").await;
        sleep(SECOND / 10).await;
    }
    assert_eq!(port.stats().flows_silent, 0);
    let mut open = VecDeque::new();
    for _ in 0..11 {
        sleep(SECOND).await;
        open.push_back(port.stats().flows_silent);
    }
    // The other six one after the other, the first three together at the end.
    assert_eq!(open, [0, 0, 0, 1, 2, 3, 4, 5, 6, 9, 9]);
    port.until(|stats| stats.flows_open == 0).await;
}

#[tokio::test]
async fn a_flow_that_fails_is_silent_and_the_next_datagram_begins_anew() {
    let mut link = Link::new();
    let lane = link.near.clone();
    let turn = Mutex::new(0);
    let port = Port::new(UdpConfig::default(), 60 * SECOND, move |_| {
        let mut turn = turn.lock().unwrap();
        *turn += 1;
        match *turn {
            1 => failure(Reason::NoTunnel),
            2 => Direction::Wait(Box::pin(async {
                Err(Failure::new(Reason::NoClient, "nobody came"))
            })),
            _ => Link::to(&lane),
        }
    });
    let visitor = port.visitor().await;
    for (n, reason) in [(1, Reason::NoTunnel), (2, Reason::NoClient)] {
        visitor.say(b"lost").await;
        port.until(|stats| (stats.flows, stats.flows_open) == (n, 0))
            .await;
        assert_eq!(port.stats().failed(reason), 1);
        assert_eq!(port.stats().dropped.undirected, n);
    }
    visitor.say(b"three").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "three");
    service
        .exchange
        .send
        .reset(ResetCode::DialFailed, "nobody listens");
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failed(Reason::DialFailed), 1);
    visitor.say(b"four").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "four");
    service.accept();
    service.say("at last");
    assert_eq!(visitor.hear().await, b"at last", "and nothing before it");
    assert_eq!(port.stats().flows, 4);
}

#[tokio::test]
async fn p_11_4_a_flow_that_the_other_side_has_ended_takes_no_more() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = link.flow().await;
    service.accept();
    assert_eq!(service.hear().await, "one");
    // As the egress does when it has heard nothing for too long.
    let Exchange { send, recv } = service.exchange;
    send.finish().unwrap();
    drop((recv, send));
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failures, [0; Reason::ALL.len()]);
    until(|| link.near.open_requests() + link.far.open_requests() == 0).await;
    assert_eq!(link.near.stats().pending.completed, 1);
    visitor.say(b"two").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "two");
}

#[tokio::test]
async fn p_6_4_a_lost_link_ends_its_flows_and_the_next_datagram_takes_another() {
    let (first, mut second) = (Link::new(), Link::new());
    let mut first = first;
    let (one, two) = (first.near.clone(), second.near.clone());
    let port = Port::new(UdpConfig::default(), 60 * SECOND, move |_| {
        Link::to(if one.is_closed() { &two } else { &one })
    });
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = first.flow().await;
    assert_eq!(service.hear().await, "one");
    first.near.close(&Failure::new(Reason::LinkLost, "cut"));
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().failed(Reason::LinkLost), 1);
    visitor.say(b"two").await;
    let service = second.flow().await;
    tokio::spawn(service.echo(b'!'));
    assert_eq!(visitor.hear().await, b"two!");
}

#[tokio::test]
async fn a_drained_port_begins_no_flow_and_ends_with_its_last_one() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = link.flow().await;
    service.accept();
    assert_eq!(service.hear().await, "one");
    port.drain.send(true).unwrap();
    let late = port.visitor().await;
    loop {
        // The word and the datagram come by different ways.
        late.say(b"late").await;
        sleep(Duration::from_millis(1)).await;
        if port.stats().dropped.draining > 0 {
            break;
        }
        assert!(port.stats().flows <= 2, "a flow began while draining");
        if port.stats().flows == 2 {
            link.flow()
                .await
                .exchange
                .send
                .reset(ResetCode::Refused, "");
        }
    }
    visitor.say(b"two").await;
    assert_eq!(service.hear().await, "two");
    service.say("three");
    assert_eq!(visitor.hear().await, b"three");
    assert!(!port.serves.is_finished());
    service.exchange.send.finish().unwrap();
    drop(service);
    within(port.serves).await.unwrap();
    assert_eq!(port.udp.stats().flows_open, 0);
}

#[tokio::test]
async fn a_port_that_is_dropped_cancels_its_flows() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let visitor = port.visitor().await;
    visitor.say(b"one").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "one");
    port.serves.abort();
    let failure = service.try_hear().await.unwrap_err();
    assert_eq!(failure.reason, Reason::Cancelled);
    port.until(|stats| stats.flows_open == 0).await;
    drop(service);
    until(|| link.near.open_requests() + link.far.open_requests() == 0).await;
    // The port is free again.
    until(|| bind_udp(port.addr).is_ok()).await;
}
