//! The bounds of visitors' connections that leave connections and descriptors to others, whatever the settings are.

use adit_net::Descriptors;

use crate::settings::Limits;

/// Bounds by the descriptors that the listener of a port may use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionBounds {
    of_listener: usize,
}

impl ConnectionBounds {
    /// The bounds of a process that has `descriptors` for visitors.
    pub(crate) fn of(descriptors: usize) -> Self {
        Self {
            of_listener: Descriptors::most_of_listener(descriptors),
        }
    }

    /// HTTP connections of one address.
    pub(crate) fn http_per_address(self, limits: &Limits) -> usize {
        let set = limits.max_connections_per_address;
        self.of_address(set.unwrap_or(limits.max_connections / 4))
    }

    /// TCP connections of one address.
    pub(crate) fn tcp_per_address(self, limits: &Limits) -> usize {
        let set = limits.max_tcp_connections_per_address;
        self.of_address(set.unwrap_or(limits.max_tcp_connections / 4))
    }

    /// TCP connections to one tunnel.
    pub(crate) fn tcp_per_tunnel(self, limits: &Limits) -> usize {
        let set = limits.max_tcp_connections_per_tunnel;
        set.unwrap_or(limits.max_tcp_connections / 2).max(1)
    }

    /// TLS handshakes at a time: below what the listener may have, so that an old one is displaced before new
    /// connections are no longer accepted (P-14.5).
    pub(crate) fn handshakes(self, limits: &Limits) -> usize {
        limits.max_handshakes.min(self.of_listener / 2).max(1)
    }

    /// TLS handshakes of one address at a time.
    pub(crate) fn handshakes_per_address(self, limits: &Limits) -> usize {
        self.of_address(limits.max_handshakes_per_address)
    }

    /// A quarter of the descriptors of a listener is the most that one address may have.
    fn of_address(self, set: usize) -> usize {
        set.min(self.of_listener / 4).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_leaves_most_connections_to_the_others() {
        let limits = Limits {
            max_connections: 400,
            max_tcp_connections: 100,
            ..Limits::default()
        };
        let many = ConnectionBounds::of(usize::MAX);
        assert_eq!(many.http_per_address(&limits), 100);
        assert_eq!(many.tcp_per_address(&limits), 25);
        assert_eq!(many.tcp_per_tunnel(&limits), 50);
        let set = Limits {
            max_connections_per_address: Some(300),
            max_tcp_connections_per_address: Some(90),
            max_tcp_connections_per_tunnel: Some(80),
            ..limits
        };
        assert_eq!(many.http_per_address(&set), 300);
        assert_eq!(many.tcp_per_address(&set), 90);
        assert_eq!(many.tcp_per_tunnel(&set), 80);
        let least = Limits {
            max_connections: 1,
            max_tcp_connections: 1,
            ..Limits::default()
        };
        assert_eq!(many.http_per_address(&least), 1);
        assert_eq!(
            (many.tcp_per_address(&least), many.tcp_per_tunnel(&least)),
            (1, 1)
        );
    }

    #[test]
    fn p_14_5_handshakes_are_displaced_before_the_descriptors_of_the_listener_are_used_up() {
        let limits = Limits::default();
        // `ulimit -n 4096`, with upstreams: a listener may use 1152.
        let few = ConnectionBounds::of(1_536);
        assert_eq!(few.handshakes(&limits), 576);
        assert_eq!(few.handshakes_per_address(&limits), 288);
        assert_eq!(few.http_per_address(&limits), 288);
        assert_eq!(few.tcp_per_address(&limits), 288);
        let many = ConnectionBounds::of(1 << 20);
        assert_eq!(many.handshakes(&limits), limits.max_handshakes);
        assert_eq!(
            many.handshakes_per_address(&limits),
            limits.max_handshakes_per_address
        );
        assert_eq!(ConnectionBounds::of(1).handshakes(&limits), 1);
    }
}
