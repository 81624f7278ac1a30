//! Addresses of peers.

use std::net::SocketAddr;

/// The address of a peer in the family that it uses. A listener on `[::]` accepts IPv4 as well and reports it as
/// `[::ffff:192.0.2.1]`; logs, headers and rules contain `192.0.2.1`.
#[must_use]
pub fn canonical_addr(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        // Only an address that stays IPv6 has a scope.
        ip if ip == addr.ip() => addr,
        ip => SocketAddr::new(ip, addr.port()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dual_stack_listener_reports_ipv4_peers_as_ipv4() {
        for (accepted, shown) in [
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[2001:db8::1]:80", "[2001:db8::1]:80"),
            ("[fe80::1%3]:80", "[fe80::1%3]:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            let accepted: SocketAddr = accepted.parse().unwrap();
            assert_eq!(canonical_addr(accepted).to_string(), shown);
        }
    }
}
