//! Flows to UDP services on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

use std::{net::SocketAddr, time::Duration};

use adit_codec::{ResetCode, ResponseHead};
use adit_egress::{Config, Protocol, ServiceConfig, UdpStats};
use adit_link::{Exchange, Failure, Part, Reason};
use adit_testlink::{EgressLink, TunnelRequest, next_part, udp, until, within};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

fn to(host: &str, port: u16) -> ServiceConfig {
    ServiceConfig::new(host, port, Protocol::Udp)
}

/// A link with a tunnel to this service.
fn link_to(service: ServiceConfig) -> EgressLink {
    let config = Config {
        dial_timeout: SECOND,
        ..Config::default()
    };
    EgressLink::to(service, config)
}

fn open(link: &EgressLink) -> Exchange {
    link.open(TunnelRequest::default().udp(), false)
}

async fn accepted(exchange: &mut Exchange) {
    udp::expect_accepted(exchange).await.unwrap();
}

async fn failed(exchange: &mut Exchange) -> Failure {
    loop {
        match next_part(&mut exchange.recv).await {
            Some(Ok(Part::Response(ResponseHead::Accepted))) => {}
            Some(Err(failure)) => return failure,
            part => panic!("expected a failure, got {part:?}"),
        }
    }
}

fn stats(link: &EgressLink) -> UdpStats {
    link.egress.stats().udp
}

#[tokio::test]
async fn p_11_1_each_flow_has_a_socket_of_its_own() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("localhost", service.addr().port()));
    let (mut ada, mut ben) = (open(&link), open(&link));
    // Datagrams are sent before the response has arrived.
    udp::send(&ada, "ada");
    udp::send(&ben, "ben");
    let mut from = [None, None];
    for _ in 0..2 {
        let (data, addr) = service.recv_from().await;
        from[usize::from(data == b"ben")] = Some(addr);
    }
    let [from_ada, from_ben] = from.map(Option::unwrap);
    assert_ne!(from_ada, from_ben);
    accepted(&mut ada).await;
    accepted(&mut ben).await;
    for n in 0..20 {
        service.0.send_to(&[n, 1], from_ada).await.unwrap();
        service.0.send_to(&[n, 2], from_ben).await.unwrap();
        assert_eq!(udp::recv(&mut ada).await, [n, 1].as_slice());
        assert_eq!(udp::recv(&mut ben).await, [n, 2].as_slice());
        udp::send(&ada, vec![n]);
        assert_eq!(service.recv_from().await, (vec![n], from_ada));
    }
    // Datagrams of another sender are dropped.
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger
        .send_to(b"I am your service", from_ada)
        .await
        .unwrap();
    service.0.send_to(b"no", from_ada).await.unwrap();
    assert_eq!(udp::recv(&mut ada).await, "no");
    let stats = stats(&link);
    assert_eq!((stats.flows, stats.flows_open), (2, 2));
    assert_eq!((stats.datagrams_out, stats.datagrams_in), (22, 41));
    assert_eq!(link.egress.stats().requests, 2);
}

#[tokio::test]
async fn p_11_1_datagrams_of_0_and_of_65507_bytes_cross_whole() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("127.0.0.1", service.addr().port()));
    let mut flow = open(&link);
    accepted(&mut flow).await;
    for (n, length) in [0, 1, 4_095, 4_096, 30_000, 65_507, 0]
        .into_iter()
        .enumerate()
    {
        let data: Vec<u8> = (0..length).map(|at: usize| (at * 5 + n) as u8).collect();
        udp::send(&flow, data.clone());
        let (received, from) = service.recv_from().await;
        assert_eq!(received, data, "{length}");
        service.0.send_to(&data, from).await.unwrap();
        assert_eq!(udp::recv(&mut flow).await, data, "{length}");
    }
}

#[tokio::test]
async fn p_11_1_datagrams_over_65507_bytes_are_dropped_and_counted() {
    // Some machines have no IPv6.
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else {
        return;
    };
    let service = udp::Socket(socket);
    let link = link_to(to("[::1]", service.addr().port()));
    let mut flow = open(&link);
    udp::send(&flow, "hello");
    let (_, from) = service.recv_from().await;
    accepted(&mut flow).await;
    for length in [65_508, 65_527, 65_507] {
        service.0.send_to(&vec![7; length], from).await.unwrap();
    }
    assert_eq!(udp::recv(&mut flow).await, vec![7; 65_507]);
    assert_eq!(stats(&link).dropped_too_long, 2);
}

#[tokio::test]
async fn p_11_4_the_end_of_one_side_is_the_end_of_both() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("127.0.0.1", service.addr().port()));
    let mut flow = open(&link);
    udp::send(&flow, "last");
    let (_, from) = service.recv_from().await;
    accepted(&mut flow).await;
    flow.send.finish().unwrap();
    assert!(next_part(&mut flow.recv).await.is_none());
    drop(flow);
    link.settled().await;
    until("the flow has ended", || stats(&link).flows_open == 0).await;
    for lane in [&link.near, &link.far] {
        let pending = lane.stats().pending;
        assert_eq!((pending.completed, pending.cancelled), (1, 0));
    }
    // The flow's socket is closed, so the port can be used.
    until("the socket of the flow is closed", || {
        std::net::UdpSocket::bind(from).is_ok()
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn p_11_4_a_flow_without_an_end_message_times_out() {
    let service = udp::Socket::bind().await;
    let mut config = to("127.0.0.1", service.addr().port());
    config.session_timeout = 30 * SECOND;
    let link = link_to(config);
    let mut flow = open(&link);
    udp::send(&flow, "one");
    let (_, from) = service.recv_from().await;
    accepted(&mut flow).await;
    // A datagram in either direction keeps the flow open.
    sleep(30 * SECOND).await;
    service.0.send_to(b"two", from).await.unwrap();
    assert_eq!(udp::recv(&mut flow).await, "two");
    sleep(30 * SECOND).await;
    udp::send(&flow, "three");
    service.recv_from().await;
    let before = Instant::now();
    assert!(
        next_part(&mut flow.recv).await.is_none(),
        "its end has come"
    );
    let silence = before.elapsed();
    // The flow does not end before the other side could have ended it.
    assert!(
        silence > 30 * SECOND && silence < 40 * SECOND,
        "{silence:?}"
    );
    // The other side is requested to end its own direction.
    until("the direction has ended", || flow.send.stopped().is_some()).await;
    assert!(flow.send.send_datagram("late".into()).is_err());
    drop(flow);
    link.settled().await;
    assert_eq!(stats(&link).flows_open, 0);
    assert_eq!(link.far.stats().pending.completed, 1);
}

#[tokio::test]
async fn an_absent_service_is_reported() {
    let port = udp::Socket::bind().await.addr().port();
    let link = link_to(to("127.0.0.1", port));
    let mut flow = open(&link);
    udp::send(&flow, "hello");
    let failure = failed(&mut flow).await;
    assert_eq!(failure.reason, Reason::DialFailed);
    let what_to_do = "does the service listen there, with UDP?";
    assert!(
        failure.detail.contains(&format!("127.0.0.1:{port}")),
        "{failure}"
    );
    assert!(failure.detail.contains(what_to_do), "{failure}");
    drop(flow);
    link.settled().await;
    until("the flow has ended", || stats(&link).flows_open == 0).await;
    assert_eq!(stats(&link).refused, 1);
}

#[tokio::test]
async fn a_service_that_has_responded_may_restart() {
    let service = udp::Socket::bind().await;
    let addr = service.0.local_addr().unwrap();
    let link = link_to(to("127.0.0.1", addr.port()));
    let mut flow = open(&link);
    udp::send(&flow, "one");
    let (_, from) = service.recv_from().await;
    service.0.send_to(b"two", from).await.unwrap();
    accepted(&mut flow).await;
    assert_eq!(udp::recv(&mut flow).await, "two");
    drop(service);
    for n in 1..=5 {
        udp::send(&flow, "hello");
        until("the flow is refused", || stats(&link).refused == n).await;
    }
    let service = udp::Socket(UdpSocket::bind(addr).await.unwrap());
    udp::send(&flow, "back");
    assert_eq!(service.recv_from().await, (b"back".to_vec(), from));
    service.0.send_to(b"yes", from).await.unwrap();
    assert_eq!(udp::recv(&mut flow).await, "yes");
    assert_eq!(stats(&link).flows, 1);
}

#[tokio::test]
async fn an_unknown_host_name_is_reported() {
    let link = link_to(to("nowhere.invalid", 53));
    let mut flow = open(&link);
    let failure = failed(&mut flow).await;
    assert_eq!(failure.reason, Reason::DialFailed);
    assert!(
        failure.detail.starts_with("connect nowhere.invalid:53: "),
        "{failure}"
    );
}

#[tokio::test]
async fn p_6_4_a_lost_link_closes_the_socket() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("127.0.0.1", service.addr().port()));
    let flow = open(&link);
    udp::send(&flow, "one");
    let (_, from) = service.recv_from().await;
    link.far.close(&Failure::new(Reason::LinkLost, "cut"));
    until("the flow has ended", || stats(&link).flows_open == 0).await;
    until("the socket of the flow is closed", || {
        std::net::UdpSocket::bind(from).is_ok()
    })
    .await;
}

#[tokio::test]
async fn other_protocols_do_not_reach_a_udp_service() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("127.0.0.1", service.addr().port()));
    let failure = link
        .request(&TunnelRequest::get("/"), b"")
        .await
        .unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
    link.serve(ServiceConfig::new("127.0.0.1", 1, Protocol::Http1));
    let mut flow = open(&link);
    assert_eq!(failed(&mut flow).await.reason, Reason::ProtocolError);
    link.egress.set_draining(true);
    let mut flow = open(&link);
    assert_eq!(failed(&mut flow).await.reason, Reason::Draining);
}

#[tokio::test]
async fn p_11_3_a_visitor_that_reads_nothing_delays_no_other() {
    let service = udp::Socket::bind().await;
    let link = link_to(to("127.0.0.1", service.addr().port()));
    let (stuck, mut other) = (open(&link), open(&link));
    udp::send(&stuck, "stuck");
    let (_, to_stuck) = service.recv_from().await;
    udp::send(&other, "other");
    let (_, to_other) = service.recv_from().await;
    accepted(&mut other).await;
    for n in 0..50_u8 {
        for _ in 0..20 {
            service.0.send_to(&[0; 1400], to_stuck).await.unwrap();
        }
        service.0.send_to(&[n], to_other).await.unwrap();
        assert_eq!(udp::recv(&mut other).await, [n].as_slice());
    }
    until("datagrams are dropped", || {
        link.near.stats().datagrams_dropped > 0
    })
    .await;
    // The unread datagrams are bounded, and can be read later.
    let mut stuck = stuck;
    accepted(&mut stuck).await;
    for _ in 0..100 {
        assert_eq!(udp::recv(&mut stuck).await, vec![0; 1400]);
    }
    stuck.send.reset(ResetCode::Cancelled, "");
    drop((stuck.recv, other));
    link.settled().await;
}

/// A datagram that begins with its number, from which its length and content follow.
fn burst(n: u32) -> Vec<u8> {
    let length = (n as usize * 131) % 1400;
    let mut data = n.to_be_bytes().to_vec();
    data.extend((0..length).map(|at| (at as u32 * 31 + n) as u8));
    data
}

fn check(data: &[u8], last: &mut u32) {
    let n = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert!(n > *last, "{n} after {last}");
    assert_eq!(data, burst(n));
    *last = n;
}

/// Datagrams that the system dropped because they were not read in time.
#[cfg(target_os = "linux")]
fn kernel_drops(addr: SocketAddr) -> u64 {
    let port = format!(":{:04X}", addr.port());
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let mut rows = table.lines().filter_map(|row| {
        let mut fields = row.split_whitespace();
        let local = fields.nth(1)?;
        local
            .ends_with(&port)
            .then(|| fields.next_back().unwrap().parse().unwrap())
    });
    rows.next().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn p_11_3_each_of_20000_datagrams_arrives_in_order_or_is_counted() {
    const COUNT: u32 = 20_000;
    let service = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = service.local_addr().unwrap();
    let link = link_to(to("127.0.0.1", addr.port()));
    let mut flow = open(&link);
    udp::send(&flow, burst(0));
    let mut last = 0;
    accepted(&mut flow).await;
    until("the datagram is sent", || stats(&link).datagrams_out == 1).await;
    let mut buffer = vec![0; 70_000];
    let (length, from) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..length], burst(0));
    // A thread that returns all datagrams until it is stopped.
    let echo = std::thread::spawn(move || {
        let mut received = 1_u64;
        loop {
            let (length, from) = service.recv_from(&mut buffer).unwrap();
            if buffer[..length] == *b"stop" {
                return (received, kernel_drops(addr), service);
            }
            check(&buffer[..length], &mut last);
            received += 1;
            service.send_to(&buffer[..length], from).unwrap();
        }
    });
    for n in 1..COUNT {
        udp::send(&flow, burst(n));
        if n % 256 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let sent = || {
        let (server, client) = (link.near.stats(), link.far.stats());
        let dropped = server.mux.datagrams_dropped + client.datagrams_dropped;
        let stats = stats(&link);
        stats.datagrams_out + dropped + stats.dropped_socket_full + stats.dropped_unsendable
    };
    until("all datagrams are sent", || sent() == u64::from(COUNT)).await;
    let stop = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let echo = within(async {
        while !echo.is_finished() {
            // The datagram that stops the thread may be lost as well.
            stop.send_to(b"stop", addr).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        echo.join().unwrap()
    });
    let (echoed, lost, _service) = echo.await;
    assert!(
        stats(&link).datagrams_out - echoed <= lost,
        "{echoed} {lost}"
    );
    // In the other direction, each datagram of the service has arrived or was counted.
    let (mut responses, mut last) = (0, 0);
    loop {
        match tokio::time::timeout(SECOND / 50, flow.recv.part()).await {
            Ok(Some(Ok(Part::Datagram(data)))) => {
                check(&data, &mut last);
                responses += 1;
            }
            Ok(part) => panic!("no datagram: {part:?}"),
            Err(_) => {
                let (server, client) = (link.near.stats(), link.far.stats());
                let dropped = client.mux.datagrams_dropped + server.datagrams_dropped;
                let read = stats(&link).datagrams_in;
                if read == responses + dropped && read + kernel_drops(from) == echoed - 1 {
                    break;
                }
            }
        }
    }
    assert!(echoed > 100 && responses > 100, "{echoed} {responses}");
}
