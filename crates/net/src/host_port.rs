//! The address of a service or server as users write it: `localhost:3000`, `192.0.2.1:80`, `[2001:db8::1]:80`.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use thiserror::Error;

/// A host name or an address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// The host without brackets.
    host: Box<str>,
    port: u16,
}

/// Why a text is not a host and a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HostPortError {
    /// A colon and a port are missing.
    #[error("missing port: expected host and port such as 127.0.0.1:9001")]
    NoPort,
    /// An IPv6 address without brackets: its last part would be read as a port.
    #[error("IPv6 address without brackets: expected for example [::1]:9001")]
    NoBrackets,
    /// The host is empty.
    #[error("missing host: expected host and port such as 127.0.0.1:9001")]
    NoHost,
    /// The text after the last colon is not a port.
    #[error("invalid port: expected a number from 1 to 65535")]
    Port,
}

impl HostPort {
    /// A host, with or without the brackets of an IPv6 address, and a port.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: without_brackets(host).into(),
            port,
        }
    }

    /// The host, an IPv6 address without brackets.
    #[must_use]
    pub const fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The host as an address; `None` for a name.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether the host is `localhost`, which is always loopback (RFC 6761, 6.3).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.host.eq_ignore_ascii_case("localhost")
    }

    /// Whether connections to the host do not leave this machine: `localhost`, or an address of loopback.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.ip()
            .map_or_else(|| self.is_localhost(), |ip| ip.is_loopback())
    }

    /// Splits `host:port` at its port, which may be missing; an IPv6 address loses its brackets, and needs none without a
    /// port.
    ///
    /// # Errors
    /// [`HostPortError`]; never [`HostPortError::NoPort`].
    pub fn split(text: &str) -> Result<(&str, Option<u16>), HostPortError> {
        if text.parse::<Ipv6Addr>().is_ok() {
            return Ok((text, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            // The last colon is inside the brackets of an address.
            Some((_, rest)) if rest.ends_with(']') => (text, None),
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let bare = without_brackets(host);
        if bare.contains(':') && bare.len() == host.len() {
            return Err(HostPortError::NoBrackets);
        }
        if matches!(bare, "" | "[]") {
            return Err(HostPortError::NoHost);
        }
        let port = match port {
            None => None,
            Some(port) => Some(parse_port(port).ok_or(HostPortError::Port)?),
        };
        Ok((bare, port))
    }
}

/// A port in digits only, from 1.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let port = text.parse().ok().filter(|port| *port != 0);
    port.filter(|_| is_number)
}

/// Removes the brackets of an IPv6 address; any other text is unchanged.
fn without_brackets(host: &str) -> &str {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    bare.filter(|bare| bare.contains(':')).unwrap_or(host)
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        match Self::split(text)? {
            (host, Some(port)) => Ok(Self::new(host, port)),
            (host, None) if text == host && host.contains(':') => Err(HostPortError::NoBrackets),
            (_, None) => Err(HostPortError::NoPort),
        }
    }
}

impl From<SocketAddr> for HostPort {
    fn from(addr: SocketAddr) -> Self {
        Self::new(&addr.ip().to_string(), addr.port())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn a_host_and_a_port_are_parsed() {
        for (text, host, port) in [
            ("127.0.0.1:9001", "127.0.0.1", 9001),
            ("localhost:80", "localhost", 80),
            ("[::1]:65535", "::1", 65535),
            ("[2001:db8::1]:1", "2001:db8::1", 1),
        ] {
            let parsed: HostPort = text.parse().unwrap();
            assert_eq!((parsed.host(), parsed.port()), (host, port));
            assert_eq!(parsed.to_string(), text);
        }
        assert_eq!(HostPort::new("[::1]", 80), HostPort::new("::1", 80));
    }

    #[test]
    fn malformed_texts_are_refused_with_a_reason() {
        for (text, error) in [
            ("localhost", HostPortError::NoPort),
            ("[::1]", HostPortError::NoPort),
            ("::1:80", HostPortError::NoBrackets),
            ("2001:db8::1", HostPortError::NoBrackets),
            (":80", HostPortError::NoHost),
            ("", HostPortError::NoHost),
            ("[]:80", HostPortError::NoHost),
            ("[]", HostPortError::NoHost),
            ("[::1", HostPortError::NoBrackets),
            ("[::1]x", HostPortError::NoBrackets),
            ("[::1]:", HostPortError::Port),
            ("a:1:2", HostPortError::NoBrackets),
            ("a:", HostPortError::Port),
            ("a:0", HostPortError::Port),
            ("a:+80", HostPortError::Port),
            ("a:65536", HostPortError::Port),
            ("a:http", HostPortError::Port),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_port_may_be_missing_where_it_has_a_default() {
        assert_eq!(HostPort::split("a.test"), Ok(("a.test", None)));
        assert_eq!(HostPort::split("[::1]"), Ok(("::1", None)));
        assert_eq!(HostPort::split("::1"), Ok(("::1", None)));
        assert_eq!(
            HostPort::split("[a.test]"),
            Ok(("[a.test]", None)),
            "left to the host's own check"
        );
        assert_eq!(HostPort::split("[::1]:7000"), Ok(("::1", Some(7000))));
    }

    proptest! {
        #[test]
        fn addresses_survive_a_round_trip(addr: SocketAddr) {
            let port = addr.port().max(1);
            let addr = SocketAddr::new(addr.ip(), port);
            let parsed: HostPort = addr.to_string().parse().unwrap();
            prop_assert_eq!((parsed.ip(), parsed.port()), (Some(addr.ip()), port));
        }
    }
}
