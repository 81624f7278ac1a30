//! Flows to UDP services on real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    missing_docs
)]

mod support;

use std::{future::Future, net::SocketAddr, time::Duration};

use adit_codec::{Open, ResetCode, ResponseHead, UdpOpenHead};
use adit_egress::{Config, Protocol, ServiceConfig, UdpStats};
use adit_link::{Exchange, Failure, Part, Reason};
use bytes::Bytes;
use support::{Ask, Pair, TUNNEL};
use tokio::{
    net::UdpSocket,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

fn udp(host: &str, port: u16) -> ServiceConfig {
    ServiceConfig::new(host, port, Protocol::Udp)
}

/// A pair whose tunnel leads to this service.
fn pair_to(service: ServiceConfig) -> Pair {
    let pair = Pair::new(Config {
        dial_timeout: SECOND,
        ..Config::default()
    });
    pair.serve(service);
    pair
}

fn open(pair: &Pair) -> Exchange {
    let open: Open<&str> = Open {
        tunnel: TUNNEL,
        visitor: "192.0.2.7:5353",
        ..Open::default()
    };
    let local = "0.0.0.0:53";
    let head = UdpOpenHead { open: &open, local }.encode().unwrap();
    pair.server.open(head, false, None).unwrap()
}

fn say(exchange: &Exchange, data: impl Into<Bytes>) {
    exchange.send.send_datagram(data.into()).unwrap();
}

async fn part(exchange: &mut Exchange) -> Option<Result<Part, Failure>> {
    within(exchange.recv.part()).await
}

async fn accepted(exchange: &mut Exchange) {
    let part = part(exchange).await;
    assert!(
        matches!(part, Some(Ok(Part::Response(ResponseHead::Accepted)))),
        "{part:?}"
    );
}

async fn hear(exchange: &mut Exchange) -> Bytes {
    match part(exchange).await {
        Some(Ok(Part::Datagram(data))) => data,
        part => panic!("no datagram: {part:?}"),
    }
}

async fn failed(exchange: &mut Exchange) -> Failure {
    loop {
        match part(exchange).await {
            Some(Ok(Part::Response(ResponseHead::Accepted))) => {}
            Some(Err(failure)) => return failure,
            part => panic!("it has not failed: {part:?}"),
        }
    }
}

/// A service, and what reaches it.
struct Service(UdpSocket);

impl Service {
    async fn new() -> Self {
        Self(UdpSocket::bind("127.0.0.1:0").await.unwrap())
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    async fn hear(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = vec![0; 70_000];
        let (length, from) = within(self.0.recv_from(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        (buffer, from)
    }
}

/// A bound for what must not hang, longer than any silence here.
async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(100 * SECOND, work)
        .await
        .expect("it hangs")
}

fn stats(pair: &Pair) -> UdpStats {
    pair.egress.stats().udp
}

async fn until(mut is_so: impl FnMut() -> bool) {
    within(async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn p_11_1_each_flow_has_a_socket_of_its_own() {
    let service = Service::new().await;
    let pair = pair_to(udp("localhost", service.port()));
    let (mut ada, mut ben) = (open(&pair), open(&pair));
    // Before the answer has come.
    say(&ada, "ada");
    say(&ben, "ben");
    let mut from = [None, None];
    for _ in 0..2 {
        let (data, addr) = service.hear().await;
        from[usize::from(data == b"ben")] = Some(addr);
    }
    let [from_ada, from_ben] = from.map(Option::unwrap);
    assert_ne!(from_ada, from_ben);
    accepted(&mut ada).await;
    accepted(&mut ben).await;
    for n in 0..20 {
        service.0.send_to(&[n, 1], from_ada).await.unwrap();
        service.0.send_to(&[n, 2], from_ben).await.unwrap();
        assert_eq!(hear(&mut ada).await, [n, 1].as_slice());
        assert_eq!(hear(&mut ben).await, [n, 2].as_slice());
        say(&ada, vec![n]);
        assert_eq!(service.hear().await, (vec![n], from_ada));
    }
    // A stranger is not heard.
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    stranger
        .send_to(b"I am your service", from_ada)
        .await
        .unwrap();
    service.0.send_to(b"no", from_ada).await.unwrap();
    assert_eq!(hear(&mut ada).await, "no");
    let stats = stats(&pair);
    assert_eq!((stats.flows, stats.flows_open), (2, 2));
    assert_eq!((stats.datagrams_out, stats.datagrams_in), (22, 41));
    assert_eq!(pair.egress.stats().requests, 2);
}

#[tokio::test]
async fn p_11_1_datagrams_of_0_and_of_65507_bytes_cross_whole() {
    let service = Service::new().await;
    let pair = pair_to(udp("127.0.0.1", service.port()));
    let mut flow = open(&pair);
    accepted(&mut flow).await;
    for (n, length) in [0, 1, 4_095, 4_096, 30_000, 65_507, 0]
        .into_iter()
        .enumerate()
    {
        let data: Vec<u8> = (0..length).map(|at: usize| (at * 5 + n) as u8).collect();
        say(&flow, data.clone());
        let (heard, from) = service.hear().await;
        assert_eq!(heard, data, "{length}");
        service.0.send_to(&data, from).await.unwrap();
        assert_eq!(hear(&mut flow).await, data, "{length}");
    }
}

#[tokio::test]
async fn p_11_1_what_only_ipv6_carries_is_dropped_and_counted() {
    // Not every machine has it.
    let Ok(socket) = UdpSocket::bind("[::1]:0").await else {
        return;
    };
    let service = Service(socket);
    let pair = pair_to(udp("[::1]", service.port()));
    let mut flow = open(&pair);
    say(&flow, "hello");
    let (_, from) = service.hear().await;
    accepted(&mut flow).await;
    for length in [65_508, 65_527, 65_507] {
        service.0.send_to(&vec![7; length], from).await.unwrap();
    }
    assert_eq!(hear(&mut flow).await, vec![7; 65_507]);
    assert_eq!(stats(&pair).dropped_too_long, 2);
}

#[tokio::test]
async fn p_11_4_the_end_of_one_side_is_the_end_of_both() {
    let service = Service::new().await;
    let pair = pair_to(udp("127.0.0.1", service.port()));
    let mut flow = open(&pair);
    say(&flow, "last");
    let (_, from) = service.hear().await;
    accepted(&mut flow).await;
    flow.send.finish().unwrap();
    assert!(part(&mut flow).await.is_none());
    drop(flow);
    pair.settled().await;
    until(|| stats(&pair).flows_open == 0).await;
    for lane in [&pair.server, &pair.client] {
        let pending = lane.stats().pending;
        assert_eq!((pending.completed, pending.cancelled), (1, 0));
    }
    // Its socket is closed: the port can be taken.
    until(|| std::net::UdpSocket::bind(from).is_ok()).await;
}

#[tokio::test(start_paused = true)]
async fn p_11_4_a_flow_of_which_no_end_is_told_ends_by_itself() {
    let service = Service::new().await;
    let mut config = udp("127.0.0.1", service.port());
    config.session_timeout = 30 * SECOND;
    let pair = pair_to(config);
    let mut flow = open(&pair);
    say(&flow, "one");
    let (_, from) = service.hear().await;
    accepted(&mut flow).await;
    // Either direction keeps it.
    sleep(30 * SECOND).await;
    service.0.send_to(b"two", from).await.unwrap();
    assert_eq!(hear(&mut flow).await, "two");
    sleep(30 * SECOND).await;
    say(&flow, "three");
    service.hear().await;
    let before = Instant::now();
    assert!(part(&mut flow).await.is_none(), "its end has come");
    let silence = before.elapsed();
    // Not before the other side could have said so.
    assert!(
        silence > 30 * SECOND && silence < 40 * SECOND,
        "{silence:?}"
    );
    // And the other side is asked to end its own.
    until(|| flow.send.stopped().is_some()).await;
    assert!(flow.send.send_datagram("late".into()).is_err());
    drop(flow);
    pair.settled().await;
    assert_eq!(stats(&pair).flows_open, 0);
    assert_eq!(pair.client.stats().pending.completed, 1);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told_of() {
    let port = Service::new().await.port();
    let pair = pair_to(udp("127.0.0.1", port));
    let mut flow = open(&pair);
    say(&flow, "anybody?");
    let failure = failed(&mut flow).await;
    assert_eq!(failure.reason, Reason::DialFailed);
    let what_to_do = "does the service listen there, with UDP?";
    assert!(
        failure.detail.contains(&format!("127.0.0.1:{port}")),
        "{failure}"
    );
    assert!(failure.detail.contains(what_to_do), "{failure}");
    drop(flow);
    pair.settled().await;
    until(|| stats(&pair).flows_open == 0).await;
    assert_eq!(stats(&pair).refused, 1);
}

#[tokio::test]
async fn a_service_that_has_answered_may_go_and_come_back() {
    let service = Service::new().await;
    let addr = service.0.local_addr().unwrap();
    let pair = pair_to(udp("127.0.0.1", addr.port()));
    let mut flow = open(&pair);
    say(&flow, "one");
    let (_, from) = service.hear().await;
    service.0.send_to(b"two", from).await.unwrap();
    accepted(&mut flow).await;
    assert_eq!(hear(&mut flow).await, "two");
    drop(service);
    for n in 1..=5 {
        say(&flow, "anybody?");
        until(|| stats(&pair).refused == n).await;
    }
    let service = Service(UdpSocket::bind(addr).await.unwrap());
    say(&flow, "back");
    assert_eq!(service.hear().await, (b"back".to_vec(), from));
    service.0.send_to(b"yes", from).await.unwrap();
    assert_eq!(hear(&mut flow).await, "yes");
    assert_eq!(stats(&pair).flows, 1);
}

#[tokio::test]
async fn a_name_that_is_none_is_told_of() {
    let pair = pair_to(udp("nowhere.invalid", 53));
    let mut flow = open(&pair);
    let failure = failed(&mut flow).await;
    assert_eq!(failure.reason, Reason::DialFailed);
    assert!(
        failure.detail.starts_with("connect nowhere.invalid:53: "),
        "{failure}"
    );
}

#[tokio::test]
async fn p_6_4_a_lost_link_closes_the_socket() {
    let service = Service::new().await;
    let pair = pair_to(udp("127.0.0.1", service.port()));
    let flow = open(&pair);
    say(&flow, "one");
    let (_, from) = service.hear().await;
    pair.client.close(&Failure::new(Reason::LinkLost, "cut"));
    until(|| stats(&pair).flows_open == 0).await;
    until(|| std::net::UdpSocket::bind(from).is_ok()).await;
}

#[tokio::test]
async fn what_is_no_flow_is_not_led_to_a_udp_service() {
    let service = Service::new().await;
    let pair = pair_to(udp("127.0.0.1", service.port()));
    let failure = pair.ask(&Ask::get("/"), b"").await.unwrap_err();
    assert_eq!(failure.reason, Reason::ProtocolError);
    pair.serve(ServiceConfig::new("127.0.0.1", 1, Protocol::Http1));
    let mut flow = open(&pair);
    assert_eq!(failed(&mut flow).await.reason, Reason::ProtocolError);
    pair.egress.set_draining(true);
    let mut flow = open(&pair);
    assert_eq!(failed(&mut flow).await.reason, Reason::Draining);
}

#[tokio::test]
async fn p_11_3_a_visitor_that_reads_nothing_holds_up_nobody() {
    let service = Service::new().await;
    let pair = pair_to(udp("127.0.0.1", service.port()));
    let (stuck, mut other) = (open(&pair), open(&pair));
    say(&stuck, "stuck");
    let (_, to_stuck) = service.hear().await;
    say(&other, "other");
    let (_, to_other) = service.hear().await;
    accepted(&mut other).await;
    for n in 0..50_u8 {
        for _ in 0..20 {
            service.0.send_to(&[0; 1400], to_stuck).await.unwrap();
        }
        service.0.send_to(&[n], to_other).await.unwrap();
        assert_eq!(hear(&mut other).await, [n].as_slice());
    }
    until(|| pair.server.stats().datagrams_dropped > 0).await;
    // What waits for whoever reads nothing is bounded, and is there when it is asked for.
    let mut stuck = stuck;
    accepted(&mut stuck).await;
    for _ in 0..100 {
        assert_eq!(hear(&mut stuck).await, vec![0; 1400]);
    }
    stuck.send.reset(ResetCode::Cancelled, "");
    drop((stuck.recv, other));
    pair.settled().await;
}

/// A datagram that says which one it is, of a length and with a content that follow from that.
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

/// What the system has dropped because nobody read it in time.
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
async fn p_11_3_20000_datagrams_in_a_burst_arrive_whole_in_order_or_are_accounted_for() {
    const COUNT: u32 = 20_000;
    let service = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = service.local_addr().unwrap();
    let pair = pair_to(udp("127.0.0.1", addr.port()));
    let mut flow = open(&pair);
    say(&flow, burst(0));
    let mut last = 0;
    accepted(&mut flow).await;
    until(|| stats(&pair).datagrams_out == 1).await;
    let mut buffer = vec![0; 70_000];
    let (length, from) = service.recv_from(&mut buffer).unwrap();
    assert_eq!(buffer[..length], burst(0));
    // Sends everything back, on a thread of its own, until it is told to stop.
    let echo = std::thread::spawn(move || {
        let mut heard = 1_u64;
        loop {
            let (length, from) = service.recv_from(&mut buffer).unwrap();
            if buffer[..length] == *b"stop" {
                return (heard, kernel_drops(addr), service);
            }
            check(&buffer[..length], &mut last);
            heard += 1;
            service.send_to(&buffer[..length], from).unwrap();
        }
    });
    for n in 1..COUNT {
        say(&flow, burst(n));
        if n % 256 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let sent = || {
        let (server, client) = (pair.server.stats(), pair.client.stats());
        let dropped = server.mux.datagrams_dropped + client.datagrams_dropped;
        let stats = stats(&pair);
        stats.datagrams_out + dropped + stats.dropped_socket_full + stats.dropped_unsendable
    };
    until(|| sent() == u64::from(COUNT)).await;
    let stop = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let echo = within(async {
        while !echo.is_finished() {
            // It may be lost as well.
            stop.send_to(b"stop", addr).await.unwrap();
            sleep(Duration::from_millis(1)).await;
        }
        echo.join().unwrap()
    });
    let (echoed, lost, _service) = echo.await;
    assert!(
        stats(&pair).datagrams_out - echoed <= lost,
        "{echoed} {lost}"
    );
    // Back again: all that the service has sent has come, or was counted.
    let (mut answered, mut last) = (0, 0);
    loop {
        match tokio::time::timeout(SECOND / 50, flow.recv.part()).await {
            Ok(Some(Ok(Part::Datagram(data)))) => {
                check(&data, &mut last);
                answered += 1;
            }
            Ok(part) => panic!("no datagram: {part:?}"),
            Err(_) => {
                let (server, client) = (pair.server.stats(), pair.client.stats());
                let dropped = client.mux.datagrams_dropped + server.datagrams_dropped;
                let read = stats(&pair).datagrams_in;
                if read == answered + dropped && read + kernel_drops(from) == echoed - 1 {
                    break;
                }
            }
        }
    }
    assert!(echoed > 100 && answered > 100, "{echoed} {answered}");
}
