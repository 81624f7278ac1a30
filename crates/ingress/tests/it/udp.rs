//! UDP visitors on real sockets, with both ends of a lane in memory and a scripted service at its far end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

// Only Linux reports the datagrams that the system drops.
#[cfg(target_os = "linux")]
mod burst;
mod endings;

use adit_net::{BindError, bind_udp};
use std::{sync::Mutex, time::Duration};

use adit_codec::ProtocolType;
use adit_ingress::{
    Direction, Layers, Udp, UdpConfig,
    layers::{
        Access, AccessBounds, AccessConfig, AccessRule, BanRule, IpRules, LayerConfig, LayerList,
    },
};
use adit_link::{Part, Reason};
use adit_testlink::{Link, Route, TUNNEL, never, next_part, udp, until};
use tokio::{net::UdpSocket, sync::oneshot};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn p_11_1_a_flow_is_one_address_on_one_port() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let (ada, ben) = (port.visitor().await, port.visitor().await);
    for (mark, visitor) in [(b'a', &ada), (b'b', &ben)] {
        visitor.send(b"1").await;
        let (head, service) = incoming.udp().await;
        assert_eq!(&*head.open.tunnel, TUNNEL);
        assert_eq!(head.open.revision, 7);
        assert_eq!(*head.open.visitor, visitor.addr().to_string());
        assert_eq!(*head.local, port.addr.to_string());
        tokio::spawn(udp::echo(service, mark));
        assert_eq!(visitor.recv().await, [b'1', mark]);
    }
    for n in 0..100 {
        ada.send(&[n, 1]).await;
        ben.send(&[n, 2]).await;
        assert_eq!(ada.recv().await, [n, 1, b'a']);
        assert_eq!(ben.recv().await, [n, 2, b'b']);
    }
    assert!(incoming.try_next().is_none(), "two flows are all");
    let sessions = port.director.sessions.lock().unwrap().clone();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions[0].protocol, ProtocolType::Udp);
    assert_eq!(sessions[0].visitor.addr(), ada.addr());
    assert_eq!(
        (sessions[0].local, sessions[1].local),
        (port.addr, port.addr)
    );
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_open), (2, 2));
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (202, 202));
    assert_eq!((stats.bytes_in, stats.bytes_out), (402, 604));
    assert_eq!(stats.dropped, Default::default());
}

#[tokio::test]
async fn p_11_1_datagrams_of_0_and_of_65507_bytes_cross_whole() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    let lengths = [0, 1, 2_048, 2_049, 9_000, 65_506, 65_507, 0];
    let data = |n: usize, length: usize| -> Vec<u8> {
        (0..length)
            .map(|at| (at * 7 + at / 251 + n) as u8)
            .collect()
    };
    let mut service = None;
    for (n, &length) in lengths.iter().enumerate() {
        let sent = data(n, length);
        visitor.send(&sent).await;
        if service.is_none() {
            let (_, exchange) = incoming.udp().await;
            udp::accept(&exchange);
            service = Some(exchange);
        }
        let service = service.as_mut().unwrap();
        assert_eq!(udp::recv(service).await, sent, "{length}");
        let response = data(n + 100, length);
        udp::send(service, response.clone());
        assert_eq!(visitor.recv().await, response, "{length}");
    }
    assert_eq!(port.stats().flows, 1);
    assert_eq!(port.stats().dropped, Default::default());
}

#[tokio::test]
async fn p_11_1_datagrams_over_65507_bytes_are_dropped_and_counted() {
    let (link, mut incoming) = Link::scripted();
    let udp = Udp::new(UdpConfig::default(), Route::to(&link).admission());
    // Some machines have no IPv6.
    let Ok(socket) = bind_udp("[::1]:0".parse().unwrap()) else {
        return;
    };
    let addr = socket.local_addr().unwrap();
    let socket = UdpSocket::from_std(socket).unwrap();
    let serves = udp.clone().serve(socket, SECOND, std::future::pending());
    let serves = tokio::spawn(serves);
    let visitor = UdpSocket::bind("[::1]:0").await.unwrap();
    visitor.connect(addr).await.unwrap();
    for (n, length) in [(0, 65_508), (1, 65_527), (2, 65_507)] {
        visitor.send(&vec![n; length]).await.unwrap();
    }
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, vec![2; 65_507]);
    let stats = udp.stats();
    assert_eq!((stats.datagrams_in, stats.dropped.too_long), (3, 2));
    serves.abort();
}

#[tokio::test]
async fn p_11_1_datagrams_do_not_wait_for_the_response() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let visitor = port.visitor().await;
    for n in 0..10 {
        visitor.send(&[n]).await;
    }
    let (_, mut service) = incoming.udp().await;
    for n in 0..10 {
        assert_eq!(udp::recv(&mut service).await, [n].as_slice());
    }
    udp::accept(&service);
    udp::send(&service, "x");
    assert_eq!(visitor.recv().await, b"x");
}

#[tokio::test]
async fn p_11_2_the_flow_silent_longest_is_evicted() {
    let (link, mut incoming) = Link::scripted();
    let config = UdpConfig {
        max_flows: 3,
        ..UdpConfig::default()
    };
    let port = Route::to(&link).udp(config, 60 * SECOND);
    let mut flows = Vec::new();
    for n in 0..3 {
        let visitor = port.visitor().await;
        visitor.send(&[n]).await;
        let (_, mut service) = incoming.udp().await;
        udp::accept(&service);
        assert_eq!(udp::recv(&mut service).await, [n].as_slice());
        flows.push((visitor, service));
    }
    // The first flow sends again, and the second service responds: now the third flow has been silent longest.
    flows[0].0.send(b"again").await;
    assert_eq!(udp::recv(&mut flows[0].1).await, "again");
    udp::send(&flows[1].1, "response");
    assert_eq!(flows[1].0.recv().await, b"response");
    let newcomer = port.visitor().await;
    newcomer.send(b"new").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "new");
    let (evicted, mut old) = flows.pop().unwrap();
    let failure = next_part(&mut old.recv).await.unwrap().unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    port.until(|stats| stats.flows_open == 3).await;
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_evicted), (4, 1));
    assert_eq!(stats.failures.of(Reason::Limit), 1);
    // The other flows continue, and the evicted visitor returns.
    for (visitor, service) in &mut flows {
        visitor.send(b"on").await;
        assert_eq!(udp::recv(service).await, "on");
    }
    evicted.send(b"back").await;
    let (head, mut back) = incoming.udp().await;
    assert_eq!(udp::recv(&mut back).await, "back");
    assert_eq!(*head.open.visitor, evicted.addr().to_string());
    assert_eq!(
        next_part(&mut service.recv)
            .await
            .unwrap()
            .unwrap_err()
            .reason,
        Reason::Limit
    );
}

/// A list that does not admit 127.9.0.0/16.
fn denying() -> Layers {
    let network = "127.9.0.0/16".parse().unwrap();
    let rule = AccessRule::Ip(IpRules::new(Vec::new(), vec![network]).unwrap());
    let ban = BanRule::new(1, SECOND, 60 * SECOND).unwrap();
    let layers = [AccessRule::Ban(ban), rule]
        .map(|rule| LayerConfig::Access(AccessConfig::new(rule, true, false).unwrap()));
    let access = Access::new(AccessBounds::default());
    let list = LayerList {
        layers: &layers,
        place: "server",
        access: &access,
    };
    list.list()
}

#[tokio::test]
async fn p_11_2_denied_flows_end_no_flow_of_an_admitted_visitor() {
    let (link, mut incoming) = Link::scripted();
    let config = UdpConfig {
        max_flows: 3,
        ..UdpConfig::default()
    };
    let (there, layers) = (link.clone(), denying());
    let route = Route::director(&[link], move |_, _| {
        let mut destination = there.destination(1);
        destination.layers = layers.clone();
        Direction::Go(destination)
    });
    let port = route.udp(config, 60 * SECOND);
    let mut flows = Vec::new();
    for n in 0..3 {
        let visitor = port.visitor().await;
        visitor.send(&[n]).await;
        let (_, mut service) = incoming.udp().await;
        udp::accept(&service);
        assert_eq!(udp::recv(&mut service).await, [n].as_slice());
        flows.push((visitor, service));
    }
    for n in 1..=200 {
        let denied = std::net::UdpSocket::bind("127.9.0.1:0").unwrap();
        denied.send_to(b"denied", port.addr).unwrap();
        port.until(|stats| stats.datagrams_in == 3 + n).await;
    }
    port.until(|stats| stats.flows_open <= 2 * 3).await;
    for (visitor, service) in &mut flows {
        visitor.send(b"on").await;
        assert_eq!(udp::recv(service).await, "on");
    }
    assert_eq!(port.stats().flows_evicted, 0);
    // Their denials ban nobody: anybody can send in the name of another.
    assert!(port.stats().failures.of(Reason::AccessDenied) > 0);
    assert_eq!(port.stats().failures.of(Reason::Banned), 0);
}

#[tokio::test]
async fn p_11_2_a_lower_bound_holds_for_the_next_flow() {
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let mut flows = Vec::new();
    for n in 0..3 {
        let visitor = port.visitor().await;
        visitor.send(&[n]).await;
        let (_, service) = incoming.udp().await;
        udp::accept(&service);
        flows.push((visitor, service));
    }
    port.set_config(UdpConfig {
        max_flows: 2,
        ..UdpConfig::default()
    });
    port.until(|stats| stats.flows_open == 3).await;
    let newcomer = port.visitor().await;
    newcomer.send(b"new").await;
    let (_, _service) = incoming.udp().await;
    port.until(|stats| (stats.flows_open, stats.flows_evicted) == (2, 2))
        .await;
}

#[tokio::test]
async fn p_11_2_a_flood_from_many_addresses_is_bounded() {
    const FLOWS: usize = 50;
    let (link, mut incoming) = Link::scripted();
    let config = UdpConfig {
        max_flows: FLOWS,
        ..UdpConfig::default()
    };
    let port = Route::to(&link).udp(config, 60 * SECOND);
    let sockets: Vec<_> = (0..500)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for round in 0..4_u8 {
        for (n, socket) in sockets.iter().enumerate() {
            socket.send_to(&[round, 1, 2, 3], port.addr).unwrap();
            // Wait for each batch, so that the socket's buffer does not limit the number of datagrams.
            if n % 50 == 49 {
                let expected = u64::from(round) * 500 + n as u64 + 1;
                port.until(|stats| stats.datagrams_in == expected).await;
                // Flows that are to end run after the tasks that are ready now.
                let open = port.stats().flows_open;
                assert!(open <= 2 * FLOWS, "{open}");
            }
        }
    }
    port.until(|stats| stats.flows_open == FLOWS).await;
    until("the evicted flows have ended", || {
        link.near.open_requests() == FLOWS && link.far.stats().mux.open == FLOWS
    })
    .await;
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_evicted), (2_000, 1_950));
    assert_eq!(stats.failures.of(Reason::Limit), 1_950);
    assert_eq!(stats.dropped.to_visitors(), 0);
    // The last visitors are served.
    let mut alive = 0;
    while let Some(mut opened) = incoming.try_next() {
        if let Some(Ok(part)) = next_part(&mut opened.exchange.recv).await {
            assert!(matches!(part, Part::Datagram(data) if data == [3, 1, 2, 3].as_slice()));
            alive += 1;
        }
    }
    assert_eq!(alive, FLOWS);
}

#[tokio::test]
async fn p_11_2_a_flood_without_a_destination_is_bounded() {
    const FLOWS: usize = 20;
    let config = UdpConfig {
        max_flows: FLOWS,
        max_waiting_bytes_per_flow: 10_000,
        max_waiting_bytes: 20_000,
        ..UdpConfig::default()
    };
    // No client ever becomes available.
    let never = Route::director(&[], |_, _| never());
    let port = never.udp(config, 60 * SECOND);
    let sockets: Vec<_> = (0..60)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for round in 1..=10 {
        for socket in &sockets {
            socket.send_to(&[0; 936], port.addr).unwrap();
        }
        port.until(|stats| stats.datagrams_in == 60 * round).await;
    }
    port.until(|stats| stats.flows_open == FLOWS).await;
    let stats = port.stats();
    // 20 datagrams wait, in the 20,000 bytes that are available for them.
    assert_eq!(stats.datagrams_in - stats.dropped.undirected, 20);
    assert_eq!(stats.flows - stats.flows_evicted, FLOWS as u64);
    port.serving.lock().unwrap()[0].abort();
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().dropped.undirected, 600);
}

#[tokio::test]
async fn p_11_3_datagrams_that_await_a_destination_are_bounded_and_ordered() {
    let (link, mut incoming) = Link::scripted();
    let there = link.clone();
    let (come, comes) = oneshot::channel::<()>();
    let comes = Mutex::new(Some(comes));
    let config = UdpConfig {
        max_waiting_bytes_per_flow: 10 * (100 + 96),
        ..UdpConfig::default()
    };
    let route = Route::director(&[], move |_, _| {
        let Some(comes) = comes.lock().unwrap().take() else {
            return there.direction(1);
        };
        let destination = there.destination(1);
        Direction::Wait(Box::pin(async move {
            let _ = comes.await;
            Ok(destination)
        }))
    });
    let port = route.udp(config, 60 * SECOND);
    let (waiting, other) = (port.visitor().await, port.visitor().await);
    waiting.send(&[0; 100]).await;
    port.until(|stats| stats.flows == 1).await;
    for n in 1..15 {
        waiting.send(&[n; 100]).await;
    }
    // The flood does not delay another flow.
    other.send(b"other").await;
    let (_, mut service) = incoming.udp().await;
    assert_eq!(udp::recv(&mut service).await, "other");
    port.until(|stats| stats.datagrams_in == 16).await;
    assert_eq!(port.stats().dropped.undirected, 5);
    come.send(()).unwrap();
    let (_, mut service) = incoming.udp().await;
    for n in 5..15 {
        assert_eq!(udp::recv(&mut service).await, [n; 100].as_slice());
    }
    waiting.send(b"then").await;
    assert_eq!(udp::recv(&mut service).await, "then");
    assert_eq!(port.stats().dropped.undirected, 5);
}

#[test]
fn a_udp_port_in_use_is_an_error() {
    let first = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind_udp(addr).unwrap_err();
    assert!(matches!(error, BindError::InUse { addr: a } if a == addr));
    drop(first);
    let socket = bind_udp(addr).unwrap();
    let socket = socket2::SockRef::from(&socket);
    assert!(socket.nonblocking().unwrap());
    let (default, ours) = (
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap(),
        socket.recv_buffer_size().unwrap(),
    );
    let default = socket2::SockRef::from(&default).recv_buffer_size().unwrap();
    assert!(ours >= default, "{ours} {default}");
    let error = bind_udp("192.0.2.1:0".parse().unwrap()).unwrap_err();
    assert!(matches!(error, BindError::NotOurs { .. }), "{error}");
}
