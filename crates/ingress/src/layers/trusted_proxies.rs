//! Proxies in front of an entry whose reports about visitors are trusted.

use std::{net::IpAddr, sync::Arc};

use crate::layers::network::Network;

/// The networks of trusted proxies. Cheap to clone; empty by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrustedProxies(Arc<[Network]>);

impl TrustedProxies {
    /// Whether an address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromIterator<Network> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
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
    }
}
