//! What a credential may use, as data.

use std::{fmt, net::IpAddr, ops::RangeInclusive, str::FromStr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de};
use thiserror::Error;

use crate::{ClientId, GroupId, TunnelName, UserName};

/// What a user or a credential may use. A list that is absent allows everything, an empty list nothing.
///
/// A name is written in full or with a `*` at its end for any rest. A host is written in full or with `*.` for one label at
/// its beginning. A range of ports is written `2200-2299`, or as one number.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scopes {
    /// Client ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clients: Option<Vec<NamePattern>>,
    /// Groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<NamePattern>>,
    /// Names of tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnels: Option<Vec<NamePattern>>,
    /// Public host names of tunnels, the default ones included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Vec<HostScope>>,
    /// Public ports of tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<PortScope>>,
    /// Protocols of tunnels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// Upstreams that entries of the client may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstreams: Option<Vec<NamePattern>>,
    /// Addresses from which the client may connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<IpNet>>,
    /// Clients that may be connected at a time, of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_clients: Option<u32>,
    /// Tunnels of one client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tunnels: Option<u32>,
}

/// Something that a scope may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wanted<'a> {
    /// To register under a client id.
    Client(&'a ClientId),
    /// To join a group.
    Group(&'a GroupId),
    /// To announce a tunnel of this name.
    Tunnel(&'a TunnelName),
    /// To announce a tunnel with this host, in lower case; `*.` begins a wildcard.
    Host(&'a str),
    /// To announce a tunnel with this public port.
    Port(u16),
    /// To announce a tunnel of this protocol.
    Protocol(Protocol),
    /// To open requests to this upstream.
    Upstream(&'a str),
    /// To connect from this address.
    Address(IpAddr),
}

/// A protocol of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// WebSocket.
    WebSocket,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TLS that the server passes on unopened.
    Tls,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 6] = [
        Self::Http,
        Self::Grpc,
        Self::WebSocket,
        Self::Tcp,
        Self::Udp,
        Self::Tls,
    ];

    /// The word of the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = ScopeFormError;

    fn from_str(text: &str) -> Result<Self, ScopeFormError> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| {
            ScopeFormError::new("protocol", text, "http, grpc, websocket, tcp, udp or tls")
        })
    }
}

/// A name, or the beginning of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern {
    text: Box<str>,
    is_prefix: bool,
}

/// A host name, or `*.` and the rest of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostScope(Box<str>);

/// A range of ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortScope(RangeInclusive<u16>);

/// A scope that is written in a wrong form.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid {kind} {found:?}, expected {expected}")]
pub struct ScopeFormError {
    kind: &'static str,
    found: String,
    expected: &'static str,
}

impl ScopeFormError {
    fn new(kind: &'static str, found: &str, expected: &'static str) -> Self {
        Self {
            kind,
            found: found.chars().take(LONGEST_SHOWN).collect(),
            expected,
        }
    }
}

/// Characters of an invalid text that an error shows.
const LONGEST_SHOWN: usize = 80;

/// The longest host name (RFC 1035, 2.3.4).
const LONGEST_HOST: usize = 253;

/// The user, or the credential, does not have a scope. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} is outside the scopes of user `{user}`: `{key}` allows {allowed}")]
pub struct OutOfScope {
    /// What the client wanted.
    pub what: String,
    /// The user.
    pub user: UserName,
    /// The list of the scopes that does not have it.
    pub key: &'static str,
    /// The list.
    pub allowed: String,
}

impl Scopes {
    /// Whether nothing is restricted.
    #[must_use]
    pub fn is_unrestricted(&self) -> bool {
        *self == Self::default()
    }

    /// The key and the text of the list that does not allow it; `None` when it is allowed.
    ///
    /// # Complexity
    /// Linear in the length of the list.
    pub(crate) fn refuses(&self, wanted: Wanted<'_>) -> Option<(&'static str, String)> {
        match wanted {
            Wanted::Client(client) => missing("clients", self.clients.as_deref(), |one| {
                one.matches(client.as_str())
            }),
            Wanted::Group(group) => missing("groups", self.groups.as_deref(), |one| {
                one.matches(group.as_str())
            }),
            Wanted::Tunnel(tunnel) => missing("tunnels", self.tunnels.as_deref(), |one| {
                one.matches(tunnel.as_str())
            }),
            Wanted::Host(host) => missing("hosts", self.hosts.as_deref(), |one| one.matches(host)),
            Wanted::Port(port) => {
                missing("ports", self.ports.as_deref(), |one| one.0.contains(&port))
            }
            Wanted::Protocol(protocol) => missing("protocols", self.protocols.as_deref(), |one| {
                *one == protocol
            }),
            Wanted::Upstream(upstream) => missing("upstreams", self.upstreams.as_deref(), |one| {
                one.matches(upstream)
            }),
            Wanted::Address(ip) => {
                let ip = ip.to_canonical();
                missing("addresses", self.addresses.as_deref(), |one| {
                    one.contains(&ip)
                })
            }
        }
    }
}

fn missing<T: fmt::Display>(
    key: &'static str,
    list: Option<&[T]>,
    has: impl Fn(&T) -> bool,
) -> Option<(&'static str, String)> {
    let list = list?;
    if list.iter().any(has) {
        return None;
    }
    let mut allowed: String = list
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if allowed.is_empty() {
        allowed.push_str("nothing");
    }
    Some((key, allowed))
}

impl fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(client) => write!(f, "client id `{client}`"),
            Self::Group(group) => write!(f, "group `{group}`"),
            Self::Tunnel(tunnel) => write!(f, "tunnel `{tunnel}`"),
            Self::Host(host) => write!(f, "host `{host}`"),
            Self::Port(port) => write!(f, "port {port}"),
            Self::Protocol(protocol) => write!(f, "protocol `{protocol}`"),
            Self::Upstream(upstream) => write!(f, "upstream `{upstream}`"),
            Self::Address(ip) => write!(f, "address {ip}"),
        }
    }
}

impl NamePattern {
    /// Whether the name has this form.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.is_prefix {
            name.starts_with(&*self.text)
        } else {
            name == &*self.text
        }
    }
}

impl FromStr for NamePattern {
    type Err = ScopeFormError;

    fn from_str(text: &str) -> Result<Self, ScopeFormError> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        // The first character of a name is a letter or a digit; `*` alone allows every name.
        let is_name = UserName::parse(name).is_ok() || is_prefix && name.is_empty();
        if !is_name {
            let expected = "a name such as `office`, or the beginning of one such as `office-*`";
            return Err(ScopeFormError::new("name", text, expected));
        }
        Ok(Self {
            text: name.into(),
            is_prefix,
        })
    }
}

impl fmt::Display for NamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        f.write_str(if self.is_prefix { "*" } else { "" })
    }
}

impl HostScope {
    /// Whether the host, or the wildcard, is this one or one label below it.
    fn matches(&self, host: &str) -> bool {
        if *self.0 == *host {
            return true;
        }
        let Some(parent) = self.0.strip_prefix("*.") else {
            return false;
        };
        let label = host
            .strip_suffix(parent)
            .and_then(|rest| rest.strip_suffix('.'));
        label.is_some_and(|label| !label.is_empty() && label != "*" && !label.contains('.'))
    }
}

impl FromStr for HostScope {
    type Err = ScopeFormError;

    fn from_str(text: &str) -> Result<Self, ScopeFormError> {
        let host = text.to_ascii_lowercase();
        let name = host.strip_prefix("*.").unwrap_or(&host);
        let is_label = |label: &str| {
            let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len())
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if host.len() > LONGEST_HOST || !name.split('.').all(is_label) {
            let expected = "a host such as `app.example.com` or `*.example.com`";
            return Err(ScopeFormError::new("host", text, expected));
        }
        Ok(Self(host.into()))
    }
}

impl fmt::Display for HostScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PortScope {
    type Err = ScopeFormError;

    fn from_str(text: &str) -> Result<Self, ScopeFormError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            (Some(_), Some(_)) => Err(ScopeFormError::new(
                "range of ports",
                text,
                "the lower port first, such as `2200-2299`",
            )),
            _ => Err(ScopeFormError::new(
                "range of ports",
                text,
                "one such as `2200-2299` or `2222`",
            )),
        }
    }
}

impl fmt::Display for PortScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}", self.0.start())
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}

/// Stores a value as its text.
macro_rules! as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let text = String::deserialize(from)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

as_text!(NamePattern, HostScope, PortScope);

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(json: &str) -> Scopes {
        serde_json::from_str(json).unwrap()
    }

    fn allows(scopes: &Scopes, wanted: Wanted<'_>) -> bool {
        scopes.refuses(wanted).is_none()
    }

    #[test]
    fn an_absent_list_allows_all_an_empty_one_nothing() {
        let group = GroupId::parse("office").unwrap();
        assert!(allows(&scopes("{}"), Wanted::Group(&group)));
        let none = scopes(r#"{"groups": []}"#);
        assert_eq!(
            none.refuses(Wanted::Group(&group)),
            Some(("groups", "nothing".to_owned()))
        );
    }

    #[test]
    fn names_match_whole_or_by_their_beginning() {
        let scopes = scopes(r#"{"groups": ["office", "lab-*"]}"#);
        for (name, expected) in [
            ("office", true),
            ("offic", false),
            ("office2", false),
            ("lab-1", true),
            ("lab-", true),
            ("lab", false),
        ] {
            let group = GroupId::parse(name).unwrap();
            assert_eq!(allows(&scopes, Wanted::Group(&group)), expected, "{name}");
        }
    }

    #[test]
    fn a_wildcard_host_is_one_label() {
        let scopes = scopes(r#"{"hosts": ["App.example.com", "*.dev.example.com"]}"#);
        for (host, expected) in [
            ("app.example.com", true),
            ("www.example.com", false),
            ("a.dev.example.com", true),
            ("*.dev.example.com", true),
            ("a.b.dev.example.com", false),
            ("*.a.dev.example.com", false),
            ("dev.example.com", false),
            (".dev.example.com", false),
            ("xdev.example.com", false),
            ("*.example.com", false),
        ] {
            assert_eq!(allows(&scopes, Wanted::Host(host)), expected, "{host}");
        }
    }

    #[test]
    fn ports_protocols_and_addresses_are_lists() {
        let scopes = scopes(
            r#"{"ports": ["2200-2299", "80"], "protocols": ["tcp"], "addresses": ["192.0.2.0/24", "2001:db8::/32"]}"#,
        );
        for (port, expected) in [
            (2199, false),
            (2200, true),
            (2299, true),
            (2300, false),
            (80, true),
        ] {
            assert_eq!(allows(&scopes, Wanted::Port(port)), expected, "{port}");
        }
        assert!(allows(&scopes, Wanted::Protocol(Protocol::Tcp)));
        assert!(!allows(&scopes, Wanted::Protocol(Protocol::Udp)));
        for (ip, expected) in [
            ("192.0.2.7", true),
            ("::ffff:192.0.2.7", true),
            ("198.51.100.1", false),
            ("2001:db8::1", true),
        ] {
            let ip = ip.parse().unwrap();
            assert_eq!(allows(&scopes, Wanted::Address(ip)), expected, "{ip}");
        }
    }

    #[test]
    fn a_wrong_form_is_rejected_with_what_is_expected() {
        for json in [
            r#"{"groups": ["of*fice"]}"#,
            r#"{"groups": [""]}"#,
            r#"{"hosts": ["*"]}"#,
            r#"{"hosts": ["a..b"]}"#,
            r#"{"hosts": ["-a.com"]}"#,
            r#"{"ports": ["0"]}"#,
            r#"{"ports": ["9-8"]}"#,
            r#"{"protocols": ["smtp"]}"#,
            r#"{"addresses": ["192.0.2.1"]}"#,
            r#"{"group": ["office"]}"#,
        ] {
            assert!(serde_json::from_str::<Scopes>(json).is_err(), "{json}");
        }
        let error = "9-8".parse::<PortScope>().unwrap_err().to_string();
        assert_eq!(
            error,
            "invalid range of ports \"9-8\", expected the lower port first, such as `2200-2299`"
        );
    }

    #[test]
    fn the_stored_form_is_read_as_written() {
        let json = r#"{"groups":["office","lab-*"],"hosts":["*.example.com"],"ports":["22","80-90"],"protocols":["http"],"max_tunnels":3}"#;
        assert_eq!(serde_json::to_string(&scopes(json)).unwrap(), json);
    }
}
