//! Proxies in front of an entry whose reports about visitors are trusted.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;
use thiserror::Error;

/// The networks of trusted proxies. Cheap to clone; empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Arc<[Network]>);

/// A network, as it is written in settings: `10.0.0.0/8`, `::1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

/// The text is neither an address nor a network.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is neither an address nor a network; write it as 10.0.0.0/8, 192.0.2.1 or fd00::/8"
)]
pub struct ParseNetworkError {
    /// The text as it was given.
    pub text: String,
}

impl TrustedProxies {
    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.0.contains(&address))
    }
}

impl FromIterator<Network> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    /// Reads a network in the notation of CIDR, or a single address.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>();
        let network = network.or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        network.map(Self).map_err(|_| ParseNetworkError {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_their_addresses_and_mapped_ones() {
        let networks = ["10.0.0.0/8", "192.0.2.1", "fd00::/8", "::1"];
        let trusted: TrustedProxies = networks
            .map(|text| text.parse().unwrap())
            .into_iter()
            .collect();
        for inside in [
            "10.255.0.1",
            "192.0.2.1",
            "fd12::1",
            "::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(trusted.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "11.0.0.1",
            "192.0.2.2",
            "fe80::1",
            "127.0.0.1",
            "::ffff:11.0.0.1",
        ] {
            assert!(!trusted.contains(outside.parse().unwrap()), "{outside}");
        }
        assert!(!TrustedProxies::default().contains("127.0.0.1".parse().unwrap()));
        for bad in ["", "a", "10.0.0.0/33", "10.0.0.0/", "10.0.0.1:80"] {
            let error = bad.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}
