//! More datagrams than fit are sent: each one that does not arrive is counted.

use std::{net::SocketAddr, time::Duration};

use adit_ingress::UdpConfig;
use adit_link::{Failure, Part};
use adit_testlink::{Link, Route, udp};
use bytes::Bytes;
use tokio::net::UdpSocket;

use crate::udp::SECOND;

#[tokio::test]
async fn p_11_3_each_of_20000_datagrams_arrives_in_order_or_is_counted() {
    const COUNT: u32 = 20_000;
    let (link, mut incoming) = Link::scripted();
    let port = Route::to(&link).udp(UdpConfig::default(), 60 * SECOND);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(port.addr).unwrap();
    let visitor =
        udp::Socket(UdpSocket::from_std(nonblocking(socket.try_clone().unwrap())).unwrap());
    visitor.send(&burst(0)).await;
    let (_, mut service) = incoming.udp().await;
    udp::accept(&service);
    assert_eq!(udp::recv(&mut service).await, burst(0));
    let sends = std::thread::spawn(move || {
        for n in 1..COUNT {
            while let Err(error) = socket.send(&burst(n)) {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
            }
        }
    });
    let tick = Duration::from_millis(20);
    let (mut received, mut last) = (1_u64, 0);
    loop {
        let part = tokio::time::timeout(tick, service.recv.part());
        let Ok(part) = part.await else {
            // Check whether a datagram is still in transit.
            let (stats, near, far) = (port.stats(), link.near.stats(), link.far.stats());
            let dropped = stats.dropped.from_visitors() + near.mux.datagrams_dropped;
            let carried = received + dropped + far.datagrams_dropped;
            let is_all = stats.datagrams_in + kernel_drops(port.addr) == u64::from(COUNT);
            if sends.is_finished() && is_all && stats.datagrams_in == carried {
                break;
            }
            continue;
        };
        let data = check(part, &mut last);
        received += 1;
        udp::send(&service, data);
    }
    sends.join().unwrap();
    // The visitor has not read any datagram yet: its socket drops those for which it has no room.
    let mut responded = 0;
    let mut buffer = vec![0; 70_000];
    let mut last = 0;
    loop {
        let Ok(length) = tokio::time::timeout(tick, visitor.0.recv(&mut buffer)).await else {
            let (stats, near, far) = (port.stats(), link.near.stats(), link.far.stats());
            let dropped = far.mux.datagrams_dropped + near.datagrams_dropped;
            let carried = stats.datagrams_out + dropped + stats.dropped.to_visitors();
            let is_all = stats.datagrams_out == responded + kernel_drops(visitor.addr());
            if carried == received - 1 && is_all {
                break;
            }
            continue;
        };
        let data = Bytes::copy_from_slice(&buffer[..length.unwrap()]);
        check(Some(Ok(Part::Datagram(data))), &mut last);
        responded += 1;
    }
    assert!(received > 1000 && responded > 100, "{received} {responded}");
}

/// Checks a datagram of the burst: it is newer than the last one, and complete.
fn check(part: Option<Result<Part, Failure>>, last: &mut u32) -> Bytes {
    let Some(Ok(Part::Datagram(data))) = part else {
        panic!("expected a datagram, got {part:?}");
    };
    let n = u32::from_be_bytes(data[..4].try_into().unwrap());
    assert!(n > *last, "{n} after {last}");
    assert_eq!(data, burst(n));
    *last = n;
    data
}

/// A datagram that begins with its number, from which its length and content follow.
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

/// Datagrams that the system dropped because they were not read in time.
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
