//! UDP visitors on real sockets, with both ends of a lane in memory behind them and a scripted service at its far end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

// Where losses of the system can be seen.
#[cfg(target_os = "linux")]
#[path = "udp/burst.rs"]
mod burst;
#[path = "udp/endings.rs"]
mod endings;
#[path = "udp/world.rs"]
mod world;

use std::sync::{Arc, Mutex};

use adit_codec::ProtocolType;
use adit_ingress::{
    Admission, Direction, Udp, UdpConfig,
    listener::{BindError, bind_udp},
};
use adit_link::{IncomingRequest, Part, Reason};
use tokio::{net::UdpSocket, sync::oneshot};

use world::{Link, Port, SECOND, TestDirector, until, within};

#[tokio::test]
async fn p_11_1_a_flow_is_all_that_one_address_sends_to_one_port() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let (ada, ben) = (port.visitor().await, port.visitor().await);
    for (mark, visitor) in [(b'a', &ada), (b'b', &ben)] {
        visitor.say(b"1").await;
        let service = link.flow().await;
        assert_eq!(&*service.head.open.tunnel, "dns");
        assert_eq!(service.head.open.revision, 7);
        assert_eq!(*service.head.open.visitor, visitor.addr().to_string());
        assert_eq!(*service.head.local, port.addr.to_string());
        tokio::spawn(service.echo(mark));
        assert_eq!(visitor.hear().await, [b'1', mark]);
    }
    for n in 0..100 {
        ada.say(&[n, 1]).await;
        ben.say(&[n, 2]).await;
        assert_eq!(ada.hear().await, [n, 1, b'a']);
        assert_eq!(ben.hear().await, [n, 2, b'b']);
    }
    assert!(link.opened.try_recv().is_err(), "two flows are all");
    let asked = port.director.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].protocol, ProtocolType::Udp);
    assert_eq!(asked[0].visitor.addr(), ada.addr());
    assert_eq!((asked[0].local, asked[1].local), (port.addr, port.addr));
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_open), (2, 2));
    assert_eq!((stats.datagrams_in, stats.datagrams_out), (202, 202));
    assert_eq!((stats.bytes_in, stats.bytes_out), (402, 604));
    assert_eq!(stats.dropped, Default::default());
}

#[tokio::test]
async fn p_11_1_datagrams_of_0_and_of_65507_bytes_cross_whole() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
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
        visitor.say(&sent).await;
        if service.is_none() {
            service = Some(link.flow().await);
            service.as_ref().unwrap().accept();
        }
        let service = service.as_mut().unwrap();
        assert_eq!(service.hear().await, sent, "{length}");
        let answer = data(n + 100, length);
        service.say(answer.clone());
        assert_eq!(visitor.hear().await, answer, "{length}");
    }
    assert_eq!(port.stats().flows, 1);
    assert_eq!(port.stats().dropped, Default::default());
}

#[tokio::test]
async fn p_11_1_what_only_ipv6_carries_is_dropped_and_counted() {
    let link = Link::new();
    let lane = link.near.clone();
    let director = Arc::new(TestDirector {
        direct: Box::new(move |_| Link::to(&lane)),
        asked: Mutex::default(),
    });
    let udp = Udp::new(UdpConfig::default(), Admission::new(Vec::new(), director));
    // Not every machine has it.
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
    let mut link = link;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, vec![2; 65_507]);
    let stats = udp.stats();
    assert_eq!((stats.datagrams_in, stats.dropped.too_long), (3, 2));
    serves.abort();
}

#[tokio::test]
async fn p_11_1_datagrams_do_not_wait_for_the_answer() {
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let visitor = port.visitor().await;
    for n in 0..10 {
        visitor.say(&[n]).await;
    }
    let mut service = link.flow().await;
    for n in 0..10 {
        assert_eq!(service.hear().await, [n].as_slice());
    }
    service.accept();
    service.say("x");
    assert_eq!(visitor.hear().await, b"x");
}

#[tokio::test]
async fn p_11_2_the_flow_that_is_silent_longest_makes_room() {
    let mut link = Link::new();
    let config = UdpConfig {
        max_flows: 3,
        ..UdpConfig::default()
    };
    let port = Port::to(&link, config);
    let mut flows = Vec::new();
    for n in 0..3 {
        let visitor = port.visitor().await;
        visitor.say(&[n]).await;
        let mut service = link.flow().await;
        service.accept();
        assert_eq!(service.hear().await, [n].as_slice());
        flows.push((visitor, service));
    }
    // The first is heard of again, and the second answers: now the third has been silent longest.
    flows[0].0.say(b"again").await;
    assert_eq!(flows[0].1.hear().await, "again");
    flows[1].1.say("answer");
    assert_eq!(flows[1].0.hear().await, b"answer");
    let newcomer = port.visitor().await;
    newcomer.say(b"new").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "new");
    let (evicted, mut old) = flows.pop().unwrap();
    let failure = old.try_hear().await.unwrap_err();
    assert_eq!(failure.reason, Reason::Limit);
    assert!(failure.detail.contains("made room"), "{failure}");
    port.until(|stats| stats.flows_open == 3).await;
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_evicted), (4, 1));
    assert_eq!(stats.failed(Reason::Limit), 1);
    // The others go on, and whoever made room comes back.
    for (visitor, service) in &mut flows {
        visitor.say(b"on").await;
        assert_eq!(service.hear().await, "on");
    }
    evicted.say(b"back").await;
    let mut back = link.flow().await;
    assert_eq!(back.hear().await, "back");
    assert_eq!(*back.head.open.visitor, evicted.addr().to_string());
    assert_eq!(service.try_hear().await.unwrap_err().reason, Reason::Limit);
}

#[tokio::test]
async fn p_11_2_a_flood_from_many_addresses_is_bounded() {
    const FLOWS: usize = 50;
    let mut link = Link::new();
    let config = UdpConfig {
        max_flows: FLOWS,
        ..UdpConfig::default()
    };
    let port = Port::to(&link, config);
    let sockets: Vec<_> = (0..500)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    for round in 0..4_u8 {
        for (n, socket) in sockets.iter().enumerate() {
            socket.send_to(&[round, 1, 2, 3], port.addr).unwrap();
            // So that the socket's buffer does not decide how many come.
            if n % 50 == 49 {
                let expected = u64::from(round) * 500 + n as u64 + 1;
                port.until(|stats| stats.datagrams_in == expected).await;
                // Tasks that are to end have their turn after those that are ready now.
                let open = port.stats().flows_open;
                assert!(open <= 2 * FLOWS, "{open}");
            }
        }
    }
    port.until(|stats| stats.flows_open == FLOWS).await;
    until(|| link.near.open_requests() == FLOWS && link.far.stats().mux.open == FLOWS).await;
    let stats = port.stats();
    assert_eq!((stats.flows, stats.flows_evicted), (2_000, 1_950));
    assert_eq!(stats.failed(Reason::Limit), 1_950);
    assert_eq!(stats.dropped.to_visitors(), 0);
    // Whoever came last is served.
    let mut alive = 0;
    while let Ok(IncomingRequest { mut exchange, .. }) = link.opened.try_recv() {
        if let Some(Ok(part)) = within(exchange.recv.part()).await {
            assert!(matches!(part, Part::Datagram(data) if data == [3, 1, 2, 3].as_slice()));
            alive += 1;
        }
    }
    assert_eq!(alive, FLOWS);
}

#[tokio::test]
async fn p_11_2_a_flood_that_goes_nowhere_is_bounded() {
    const FLOWS: usize = 20;
    let config = UdpConfig {
        max_flows: FLOWS,
        max_waiting_bytes_per_flow: 10_000,
        max_waiting_bytes: 20_000,
        ..UdpConfig::default()
    };
    // A client that never comes.
    let port = Port::new(config, 60 * SECOND, |_| {
        Direction::Wait(Box::pin(std::future::pending()))
    });
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
    // 20 wait, in the 20,000 bytes that there are for them.
    assert_eq!(stats.datagrams_in - stats.dropped.undirected, 20);
    assert_eq!(stats.flows - stats.flows_evicted, FLOWS as u64);
    port.serves.abort();
    port.until(|stats| stats.flows_open == 0).await;
    assert_eq!(port.stats().dropped.undirected, 600);
}

#[tokio::test]
async fn p_11_3_what_waits_for_a_destination_is_bounded_and_keeps_its_order() {
    let mut link = Link::new();
    let lane = link.near.clone();
    let (come, comes) = oneshot::channel::<()>();
    let comes = Mutex::new(Some(comes));
    let config = UdpConfig {
        max_waiting_bytes_per_flow: 10 * (100 + 96),
        ..UdpConfig::default()
    };
    let port = Port::new(config, 60 * SECOND, move |_| {
        let Some(comes) = comes.lock().unwrap().take() else {
            return Link::to(&lane);
        };
        let lane = lane.clone();
        Direction::Wait(Box::pin(async move {
            let _ = comes.await;
            match Link::to(&lane) {
                Direction::Go(destination) => Ok(destination),
                _ => unreachable!(),
            }
        }))
    });
    let (waiting, other) = (port.visitor().await, port.visitor().await);
    waiting.say(&[0; 100]).await;
    port.until(|stats| stats.flows == 1).await;
    for n in 1..15 {
        waiting.say(&[n; 100]).await;
    }
    // Another flow is not held up by it.
    other.say(b"other").await;
    let mut service = link.flow().await;
    assert_eq!(service.hear().await, "other");
    port.until(|stats| stats.datagrams_in == 16).await;
    assert_eq!(port.stats().dropped.undirected, 5);
    come.send(()).unwrap();
    let mut service = link.flow().await;
    for n in 5..15 {
        assert_eq!(service.hear().await, [n; 100].as_slice());
    }
    waiting.say(b"then").await;
    assert_eq!(service.hear().await, "then");
    assert_eq!(port.stats().dropped.undirected, 5);
}

#[test]
fn a_second_program_on_the_same_port_fails_and_is_told_what_to_do() {
    let first = bind_udp("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = first.local_addr().unwrap();
    let error = bind_udp(addr).unwrap_err();
    assert!(matches!(error, BindError::InUse { addr: a } if a == addr));
    assert!(error.to_string().contains("choose another port"), "{error}");
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
