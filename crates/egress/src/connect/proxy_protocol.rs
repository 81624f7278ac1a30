//! The header with the addresses of a visitor for a TCP service (P-10.5): the PROXY protocol of haproxy
//! (<https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>), version 1 (section 2.1) or 2 (section 2.2).

use std::net::SocketAddr;

use adit_codec::TcpOpen;
use bytes::Bytes;
use proxy_header::{ProxiedAddress, ProxyHeader};

use crate::config::ProxyProtocol;

/// The longest header of version 1, its line end included. Headers of version 2 without extensions are shorter.
const MAX_BYTES: usize = 107;

/// The header for this connection. If visitor and public port have no addresses of one family, it has no addresses (`PROXY
/// UNKNOWN`, `LOCAL`), and the service uses those of the connection.
pub(crate) fn header(version: ProxyProtocol, head: &TcpOpen) -> Bytes {
    let header = match (address(&head.open.visitor), address(&head.local)) {
        (Some(visitor), Some(local)) if visitor.is_ipv4() == local.is_ipv4() => {
            ProxyHeader::with_address(ProxiedAddress::stream(visitor, local))
        }
        _ => ProxyHeader::with_local(),
    };
    let mut bytes = Vec::with_capacity(MAX_BYTES);
    // Encoding fails only for mixed families and for extensions.
    let _ = match version {
        ProxyProtocol::V1 => header.encode_v1(&mut bytes),
        ProxyProtocol::V2 => header.encode_v2(&mut bytes),
    };
    bytes.into()
}

/// Parses an address; an IPv4-mapped IPv6 address of a dual-stack socket becomes IPv4.
fn address(text: &str) -> Option<SocketAddr> {
    let address: SocketAddr = text.parse().ok()?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use adit_codec::Open;

    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn head(visitor: &str, local: &str) -> TcpOpen {
        TcpOpen {
            open: Open {
                visitor: visitor.into(),
                ..Open::default()
            },
            local: local.into(),
            body: Bytes::new(),
        }
    }

    fn v1(visitor: &str, local: &str) -> String {
        let header = header(ProxyProtocol::V1, &head(visitor, local));
        String::from_utf8(header.to_vec()).unwrap()
    }

    fn v2(visitor: &str, local: &str) -> Vec<u8> {
        let header = header(ProxyProtocol::V2, &head(visitor, local));
        assert_eq!(&header[..12], SIGNATURE);
        header[12..].to_vec()
    }

    #[test]
    fn p_10_5_version_1_is_a_line_of_text() {
        assert_eq!(
            v1("192.0.2.1:4000", "198.51.100.7:2222"),
            "PROXY TCP4 192.0.2.1 198.51.100.7 4000 2222\r\n"
        );
        assert_eq!(
            v1("[2001:db8::1]:65535", "[2001:db8::2]:1"),
            "PROXY TCP6 2001:db8::1 2001:db8::2 65535 1\r\n"
        );
    }

    #[test]
    fn p_10_5_version_2_is_binary() {
        let mut expected = vec![0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7];
        expected.extend([0x0f, 0xa0, 0x08, 0xae]);
        assert_eq!(v2("192.0.2.1:4000", "198.51.100.7:2222"), expected);

        let mut expected = vec![0x21, 0x21, 0, 36];
        for last in [1, 2] {
            expected.extend([
                0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last,
            ]);
        }
        expected.extend([0xff, 0xff, 0, 1]);
        assert_eq!(v2("[2001:db8::1]:65535", "[2001:db8::2]:1"), expected);
    }

    #[test]
    fn p_10_5_ipv4_mapped_visitors_are_ipv4() {
        assert_eq!(
            v1("[::ffff:192.0.2.1]:4000", "[::ffff:198.51.100.7]:22"),
            "PROXY TCP4 192.0.2.1 198.51.100.7 4000 22\r\n"
        );
        assert_eq!(
            v1("[::ffff:192.0.2.1]:4000", "198.51.100.7:22"),
            "PROXY TCP4 192.0.2.1 198.51.100.7 4000 22\r\n"
        );
    }

    #[test]
    fn p_10_5_without_two_addresses_the_header_has_none() {
        for (visitor, local) in [
            ("", ""),
            ("192.0.2.1:4000", ""),
            ("", "192.0.2.1:4000"),
            ("192.0.2.1", "198.51.100.7"),
            ("visitor:4000", "198.51.100.7:22"),
            ("192.0.2.1:4000", "[2001:db8::2]:22"),
            ("[2001:db8::1]:4000", "198.51.100.7:22"),
            ("[::ffff:192.0.2.1]:4000", "[2001:db8::2]:22"),
        ] {
            assert_eq!(v1(visitor, local), "PROXY UNKNOWN\r\n", "{visitor} {local}");
            assert_eq!(v2(visitor, local), [0x20, 0, 0, 0], "{visitor} {local}");
        }
    }

    #[test]
    fn the_longest_header_fits_the_buffer() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        assert!(v1(longest, longest).len() <= MAX_BYTES);
        assert!(v2(longest, longest).len() + SIGNATURE.len() <= MAX_BYTES);
    }
}
