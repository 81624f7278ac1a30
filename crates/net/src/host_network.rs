//! The network that stands for one host where addresses are counted.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use thiserror::Error;

/// An IPv4 address, or the /64 of an IPv6 address: a host chooses among the addresses of its /64, so that bounds per
/// address count the /64. An IPv4-mapped IPv6 address is its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostNetwork(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// The text is neither an address nor a /64.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{text:?} is neither an address nor a /64 of IPv6; write it as 192.0.2.1 or 2001:db8::/64")]
pub struct ParseHostNetworkError {
    /// The start of the text.
    pub text: String,
}

impl HostNetwork {
    /// The network of an address.
    pub fn of(ip: IpAddr) -> Self {
        Self(match ip.to_canonical() {
            IpAddr::V4(ip) => Kind::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Kind::V6([a, b, c, d, e, f, g, h])
            }
        })
    }
}

impl fmt::Display for HostNetwork {
    /// `192.0.2.1` or `2001:db8::/64`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::V4(octets) => Ipv4Addr::from(octets).fmt(f),
            Kind::V6(upper) => {
                let upper = u128::from(u64::from_be_bytes(upper));
                write!(f, "{}/64", Ipv6Addr::from(upper << 64))
            }
        }
    }
}

impl FromStr for HostNetwork {
    type Err = ParseHostNetworkError;

    /// Reads an address, or a network as it is displayed.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LONGEST: usize = 64;
        let (address, is_network) = match text.strip_suffix("/64") {
            Some(address) => (address, true),
            None => (text, false),
        };
        let parsed = address.parse::<IpAddr>().ok();
        let fits = |ip: &IpAddr| !is_network || ip.to_canonical().is_ipv6();
        parsed
            .filter(fits)
            .map(Self::of)
            .ok_or_else(|| ParseHostNetworkError {
                text: text.chars().take(LONGEST).collect(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_one_ipv6_network_are_one() {
        let of = |text: &str| HostNetwork::of(text.parse().unwrap());
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }

    #[test]
    fn networks_are_read_as_they_are_displayed() {
        for (text, displayed) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
            ("2001:db8::/64", "2001:db8::/64"),
        ] {
            let network: HostNetwork = text.parse().unwrap();
            assert_eq!(network.to_string(), displayed);
            assert_eq!(displayed.parse(), Ok(network));
        }
        for text in ["", "a", "192.0.2.1/64", "2001:db8::/48", "192.0.2.1:80"] {
            let error = text.parse::<HostNetwork>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
