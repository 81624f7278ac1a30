//! More than can be carried at once: whatever does not arrive is counted somewhere.

use std::{net::SocketAddr, time::Duration};

use adit_ingress::UdpConfig;
use adit_link::{Failure, Part};
use bytes::Bytes;
use tokio::net::UdpSocket;

use crate::world::{Link, Port, Visitor};

#[tokio::test]
async fn p_11_3_20000_datagrams_in_a_burst_arrive_whole_in_order_or_are_accounted_for() {
    const COUNT: u32 = 20_000;
    let mut link = Link::new();
    let port = Port::to(&link, UdpConfig::default());
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(port.addr).unwrap();
    let visitor = Visitor(UdpSocket::from_std(nonblocking(socket.try_clone().unwrap())).unwrap());
    visitor.say(&burst(0)).await;
    let mut service = link.flow().await;
    service.accept();
    assert_eq!(service.hear().await, burst(0));
    let sends = std::thread::spawn(move || {
        for n in 1..COUNT {
            while let Err(error) = socket.send(&burst(n)) {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            }
        }
    });
    let tick = Duration::from_millis(20);
    let (mut heard, mut last) = (1_u64, 0);
    loop {
        let part = tokio::time::timeout(tick, service.exchange.recv.part());
        let Ok(part) = part.await else {
            // Is something on its way?
            let (stats, near, far) = (port.stats(), link.near.stats(), link.far.stats());
            let dropped = stats.dropped.from_visitors() + near.mux.datagrams_dropped;
            let carried = heard + dropped + far.datagrams_dropped;
            let is_all = stats.datagrams_in + kernel_drops(port.addr) == u64::from(COUNT);
            if sends.is_finished() && is_all && stats.datagrams_in == carried {
                break;
            }
            continue;
        };
        let data = check(part, &mut last);
        heard += 1;
        service.say(data);
    }
    sends.join().unwrap();
    // The visitor has not read a single one yet: what its socket cannot keep is lost there.
    let mut answered = 0;
    let mut buffer = vec![0; 70_000];
    let mut last = 0;
    loop {
        let Ok(length) = tokio::time::timeout(tick, visitor.0.recv(&mut buffer)).await else {
            let (stats, near, far) = (port.stats(), link.near.stats(), link.far.stats());
            let dropped = far.mux.datagrams_dropped + near.datagrams_dropped;
            let carried = stats.datagrams_out + dropped + stats.dropped.to_visitors();
            let is_all = stats.datagrams_out == answered + kernel_drops(visitor.addr());
            if carried == heard - 1 && is_all {
                break;
            }
            continue;
        };
        let data = Bytes::copy_from_slice(&buffer[..length.unwrap()]);
        check(Some(Ok(Part::Datagram(data))), &mut last);
        answered += 1;
    }
    assert!(heard > 1000 && answered > 100, "{heard} {answered}");
}

/// Takes one of the burst, newer than the last one, whole.
fn check(part: Option<Result<Part, Failure>>, last: &mut u32) -> Bytes {
    let Some(Ok(Part::Datagram(data))) = part else {
        panic!("no datagram: {part:?}");
    };
    let n = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert!(n > *last, "{n} after {last}");
    assert_eq!(data, burst(n));
    *last = n;
    data
}

/// A datagram that says which one it is, of a length and with a content that follow from that.
fn burst(n: u32) -> Vec<u8> {
    let length = (n as usize * 131) % 1400;
    let mut data = n.to_be_bytes().to_vec();
    data.extend((0..length).map(|at| (at as u32 * 31 + n) as u8));
    data
}

fn nonblocking(socket: std::net::UdpSocket) -> std::net::UdpSocket {
    socket.set_nonblocking(true).unwrap();
    socket
}

/// What the system has dropped because nobody read it in time.
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
