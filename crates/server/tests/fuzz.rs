//! PROXY protocol headers in front of visitors' connections: hostile bytes cause no panic, are refused or end where the
//! header ends, and are read alike however they arrive.
//!
//! With an engine (`cargo bolero test`) these are fuzz targets; without one they run a bounded number of times.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{net::SocketAddr, sync::LazyLock, time::Duration};

use adit_net::Stream;
use adit_server::proxy_header::ProxyHeaders;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().unwrap());

static HEADERS: LazyLock<ProxyHeaders> = LazyLock::new(|| ProxyHeaders {
    proxies: Some(["192.0.2.0/24".parse().unwrap()].into_iter().collect()),
    within: Duration::from_secs(60),
});

/// The longest header.
const LONGEST: usize = 4 * 1024;
const V1: &[u8] = b"PROXY TCP4 198.51.100.7 192.0.2.9 4711 80\r\n";
const V2_START: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The visitor that a header reports and the bytes behind it; `None` if the connection is refused.
fn read(bytes: &[u8], piece: usize) -> Option<(SocketAddr, Vec<u8>)> {
    RUNTIME.block_on(async {
        let peer = ([192, 0, 2, 1], 1).into();
        let (mut near, mut far) = Stream::in_memory(1 << 20, peer, peer);
        let sending = async {
            for piece in bytes.chunks(piece.max(1)) {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            near.shutdown().await.unwrap();
        };
        let reading = async {
            let visitor = HEADERS.visitor_of(&mut far, peer).await.ok()?;
            let mut rest = Vec::new();
            far.read_to_end(&mut rest).await.unwrap();
            Some((visitor, rest))
        };
        tokio::join!(sending, reading).1
    })
}

fn check(bytes: &[u8], piece: usize) {
    let whole = read(bytes, bytes.len());
    if let Some((_, rest)) = &whole {
        let header = bytes.len() - rest.len();
        assert!((1..=LONGEST).contains(&header), "{header}");
        assert!(bytes.ends_with(rest));
        // What follows says nothing about the header.
        let alone = read(&bytes[..header], header).unwrap();
        assert_eq!(alone, (whole.clone().unwrap().0, Vec::new()));
    }
    assert_eq!(read(bytes, piece), whole);
}

/// A header of version 2 for TCP over IPv4 or IPv6, with what may follow its addresses.
fn v2(is_v6: bool, more: &[u8]) -> Vec<u8> {
    let addresses: &[u8] = if is_v6 { &[0x20; 36] } else { &[0x20; 12] };
    let length = u16::try_from(addresses.len() + more.len()).unwrap_or(u16::MAX);
    let kind = [0x21, if is_v6 { 0x21 } else { 0x11 }];
    [V2_START, &kind, &length.to_be_bytes(), addresses, more].concat()
}

#[test]
fn any_bytes_are_a_header_or_refused() {
    bolero::check!()
        .with_type::<(u8, Vec<u8>, u8)>()
        .for_each(|(start, bytes, piece)| {
            let start = match start % 4 {
                0 => V2_START,
                1 => b"PROXY ",
                2 => b"PROXY TCP6 ",
                _ => b"",
            };
            check(&[start, bytes].concat(), usize::from(*piece));
        });
}

#[test]
fn a_damaged_header_is_read_or_refused() {
    bolero::check!()
        .with_type::<(u8, Vec<u8>, Vec<(u8, u8)>, u8)>()
        .for_each(|(kind, more, changes, piece)| {
            let mut bytes = match kind % 3 {
                0 => [V1, more].concat(),
                1 => v2(false, more),
                _ => v2(true, more),
            };
            for (at, byte) in changes {
                // Mostly in the header.
                let at = usize::from(*at) % bytes.len();
                bytes[at] = *byte;
            }
            check(&bytes, usize::from(*piece));
        });
}

#[test]
fn a_valid_header_is_read() {
    bolero::check!()
        .with_type::<(bool, Vec<u8>, Vec<u8>)>()
        .for_each(|(is_v6, more, rest)| {
            let more = &more[..more.len().min(LONGEST / 2)];
            let header = v2(*is_v6, more);
            let (visitor, behind) = read(&[&header, rest.as_slice()].concat(), 7).unwrap();
            assert_eq!((visitor.port(), visitor.is_ipv6()), (0x2020, *is_v6));
            assert_eq!(&behind, rest);
        });
}
