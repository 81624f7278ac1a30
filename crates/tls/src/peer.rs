//! The other end of a handshake, for the texts of errors.

use std::fmt;

/// The other end of a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A service, or a server of an upstream.
    Service,
    /// The server of the tunnel.
    Server,
    /// A client of the tunnel.
    Client,
    /// A visitor.
    Visitor,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Server => "server",
            Self::Client => "client",
            Self::Visitor => "visitor",
        })
    }
}
