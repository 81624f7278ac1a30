//! The name that a user owns, and its text form.

use std::fmt;

use adit_auth::{ClientId, GroupId, TunnelName};
use adit_router::HostPattern;

use crate::port::{PortKey, Transport};

/// What a user can own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Name {
    /// A group, with the tunnels in it.
    Group(GroupId),
    /// A client id.
    Client(ClientId),
    /// The name of a tunnel that a rule of the server selects.
    Tunnel(TunnelName),
    /// A host, or all hosts below a name.
    Host(HostPattern),
    /// A public port.
    Port(PortKey),
}

/// The kinds, in their text form.
pub const KINDS: [&str; 5] = ["group", "client", "tunnel", "host", "port"];

impl Name {
    /// Reads a name of a kind: `host` and `shop.example.com`, `port` and `tcp:2222`.
    ///
    /// # Errors
    /// A text with the reason.
    pub fn parse(kind: &str, text: &str) -> Result<Self, String> {
        let name = |error: &dyn fmt::Display| error.to_string();
        match kind {
            "group" => GroupId::parse(text).map(Self::Group).map_err(|e| name(&e)),
            "client" => ClientId::parse(text)
                .map(Self::Client)
                .map_err(|e| name(&e)),
            "tunnel" => TunnelName::parse(text)
                .map(Self::Tunnel)
                .map_err(|e| name(&e)),
            "host" => text
                .parse()
                .map(Self::Host)
                .map_err(|e: adit_router::HostPatternError| name(&e)),
            "port" => port(text)
                .map(Self::Port)
                .ok_or_else(|| format!("{text:?} is not a port; write tcp:2222 or udp:53")),
            _ => Err(format!(
                "unknown kind {kind:?}, expected one of {}",
                KINDS.join(", ")
            )),
        }
    }

    /// The kind of the name, one of [`KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Group(_) => "group",
            Self::Client(_) => "client",
            Self::Tunnel(_) => "tunnel",
            Self::Host(_) => "host",
            Self::Port(_) => "port",
        }
    }

    /// The name without its kind, as [`Name::parse`] reads it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Group(group) => group.to_string(),
            Self::Client(client) => client.to_string(),
            Self::Tunnel(tunnel) => tunnel.to_string(),
            Self::Host(host) => host.to_string(),
            Self::Port(port) => format!("{}:{}", port.transport.as_str(), port.number),
        }
    }
}

impl fmt::Display for Name {
    /// The form in messages: ``host `shop.example.com` ``, `tcp port 2222`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Client(client) => write!(f, "client id `{client}`"),
            name => write!(f, "{} `{}`", name.kind(), name.text()),
        }
    }
}

/// Reads `tcp:2222` or `udp:53`; `2222` is a TCP port.
fn port(text: &str) -> Option<PortKey> {
    let (transport, number) = match text.split_once(':') {
        None => (Transport::Tcp, text),
        Some(("tcp", number)) => (Transport::Tcp, number),
        Some(("udp", number)) => (Transport::Udp, number),
        Some(_) => return None,
    };
    let number = number.parse().ok().filter(|number| *number != 0)?;
    Some(PortKey { transport, number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_they_are_written() {
        for (kind, text) in [
            ("group", "web"),
            ("client", "office-1"),
            ("tunnel", "shop"),
            ("host", "shop.example.com"),
            ("host", "*.shop.example.com"),
            ("host", "[::1]"),
            ("port", "tcp:2222"),
            ("port", "udp:53"),
        ] {
            let name = Name::parse(kind, text).unwrap();
            assert_eq!((name.kind(), &*name.text()), (kind, text));
        }
        assert_eq!(Name::parse("port", "22").unwrap().text(), "tcp:22");
        for (kind, text) in [
            ("user", "ann"),
            ("group", "a b"),
            ("host", "a b"),
            ("port", "0"),
            ("port", "sctp:1"),
            ("port", "65536"),
        ] {
            assert!(Name::parse(kind, text).is_err(), "{kind} {text}");
        }
    }
}
