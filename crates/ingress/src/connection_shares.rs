//! Shares of connections: how many are open of each address, or for each tunnel.

use std::{collections::HashMap, hash::Hash, net::IpAddr};

use adit_net::HostNetwork;
use parking_lot::Mutex;

use crate::layers::TrustedProxies;

/// The open connections of each holder. Holders without one take no room, so that the table is bounded by the
/// connections.
#[derive(Debug)]
pub(crate) struct ConnectionShares<K>(Mutex<HashMap<K, usize>>);

/// A connection that counts for its holder until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted<'s, K: Eq + Hash> {
    shares: &'s ConnectionShares<K>,
    holder: K,
}

impl<K> Default for ConnectionShares<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> ConnectionShares<K> {
    /// Counts a connection; `None` if the holder has `max` already.
    pub(crate) fn enter(&self, holder: K, max: usize) -> Option<Counted<'_, K>> {
        let mut shares = self.0.lock();
        let open = shares.get(&holder).copied().unwrap_or_default();
        if open >= max {
            return None;
        }
        shares.insert(holder.clone(), open + 1);
        drop(shares);
        Some(Counted {
            shares: self,
            holder,
        })
    }
}

impl ConnectionShares<HostNetwork> {
    /// Counts a connection of an address; a /64 of IPv6 counts as one. Behind a trusted proxy are many visitors: its
    /// connections are not counted.
    ///
    /// # Errors
    /// The address has `max` connections already.
    pub(crate) fn enter_from(
        &self,
        peer: IpAddr,
        max: usize,
        proxies: &TrustedProxies,
    ) -> Result<Option<Counted<'_, HostNetwork>>, ShareExhausted> {
        if proxies.contains(peer) {
            return Ok(None);
        }
        let counted = self.enter(HostNetwork::of(peer), max);
        counted.map(Some).ok_or(ShareExhausted)
    }
}

/// The holder has as many connections as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShareExhausted;

impl<K: Eq + Hash> Drop for Counted<'_, K> {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock();
        if let Some(open) = shares.get_mut(&self.holder) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                shares.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_one_ipv6_network_have_one_share_and_leave_no_entry() {
        let shares = ConnectionShares::default();
        let none = TrustedProxies::default();
        let enter = |peer: &str| shares.enter_from(peer.parse().unwrap(), 1, &none);
        let one = enter("2001:db8::1").unwrap();
        assert!(enter("2001:db8::ffff:2").is_err());
        let other = enter("2001:db8:0:1::1").unwrap();
        let mapped = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_err());
        drop(one);
        assert!(enter("2001:db8::2").is_ok());
        drop((other, mapped));
        assert!(shares.0.lock().is_empty());
    }

    #[test]
    fn trusted_proxies_have_no_share() {
        let shares = ConnectionShares::default();
        let proxies = ["192.0.2.0/24".parse().unwrap()].into_iter().collect();
        let enter = |peer: &str| shares.enter_from(peer.parse().unwrap(), 1, &proxies);
        let held = ["192.0.2.1"; 3].map(|peer| enter(peer).unwrap());
        assert!(held.iter().all(Option::is_none));
        let _visitor = enter("198.51.100.1").unwrap();
        assert!(enter("198.51.100.1").is_err());
    }
}
