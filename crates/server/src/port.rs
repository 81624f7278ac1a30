//! Ports of accepted connections and of tunnels.

use std::fmt;

/// The transport of a port: TCP and UDP have separate port numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Transport {
    /// `tcp` or `udp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// The key of a public port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortKey {
    /// The transport of the port.
    pub transport: Transport,
    /// The number.
    pub number: u16,
}

impl fmt::Display for PortKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}", self.transport.as_str(), self.number)
    }
}

/// The listener that accepted a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    /// The port on which the request's host selects the tunnel.
    Visitors,
    /// The same over TLS.
    Https,
    Clients,
    /// The public port of a tunnel.
    Tunnel(u16),
}

impl Port {
    /// The number under which a visitors' listener is charged for file descriptors; clients' connections are not
    /// charged.
    pub(crate) fn listener(self) -> Option<u32> {
        match self {
            Self::Clients => None,
            // Port 0 belongs to no tunnel.
            Self::Visitors => Some(0),
            // It is above the numbers of ports.
            Self::Https => Some(1 << 16),
            Self::Tunnel(number) => Some(number.into()),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Visitors => f.write_str("visitors"),
            Self::Https => f.write_str("https"),
            Self::Clients => f.write_str("clients"),
            Self::Tunnel(number) => write!(f, "tunnel {number}"),
        }
    }
}
