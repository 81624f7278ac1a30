//! Bounds the connections of clients without a session: their total, their number per address, and their time (P-1.12).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_net::HostNetwork;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

/// A connection younger than this is not closed for another one of its own address: its client has not had time to
/// register.
const GRACE: Duration = Duration::from_secs(1);

/// All connections without a session.
pub(crate) struct Newcomers {
    state: Mutex<State>,
}

struct State {
    max: usize,
    max_per_address: usize,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
    /// The connections of each address, the oldest first.
    by_network: HashMap<HostNetwork, BTreeSet<u64>>,
    /// The addresses by the number of their connections; among equal ones that with the oldest connection is last.
    by_number: BTreeSet<(usize, Reverse<u64>, HostNetwork)>,
}

struct Waiting {
    network: HostNetwork,
    since: Instant,
    displaced: Arc<Notify>,
}

/// A connection without a session, counted until this is dropped.
pub(crate) struct Newcomer {
    newcomers: Arc<Newcomers>,
    id: u64,
    displaced: Arc<Notify>,
}

/// Why a new connection is closed at once: its address has `limit` connections, all of them young.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "{limit} connections of this address without a session are open (`server.limits.max_unauthenticated_per_address`)"
)]
pub(crate) struct Crowded {
    pub(crate) limit: usize,
}

impl Newcomers {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                max,
                max_per_address,
                next: 0,
                waiting: BTreeMap::new(),
                by_network: HashMap::new(),
                by_number: BTreeSet::new(),
            }),
        })
    }

    /// Changes the bounds. Connections above them stay until they end or are displaced.
    pub(crate) fn set_bounds(&self, max: usize, max_per_address: usize) {
        let mut state = self.state.lock();
        state.max = max;
        state.max_per_address = max_per_address;
    }

    /// Counts a connection. At the bound of its address the oldest of the address is displaced: clients register at
    /// once, so a connection that has waited long will not register. At the bound of all, the oldest of the address with
    /// the most connections is displaced, however young: otherwise few addresses that connect again and again would
    /// lock out all others.
    ///
    /// # Errors
    /// [`Crowded`] when the address is at its bound and its oldest connection is younger than [`GRACE`].
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Newcomer, Crowded> {
        let network = HostNetwork::of(peer);
        let mut state = self.state.lock();
        let own = state.of(network);
        if own >= state.max_per_address {
            let oldest = state.oldest_of(network).filter(|id| {
                let oldest = state.waiting.get(id);
                oldest.is_some_and(|one| now.saturating_duration_since(one.since) >= GRACE)
            });
            let Some(oldest) = oldest else {
                let limit = state.max_per_address;
                return Err(Crowded { limit });
            };
            state.displace(oldest);
        } else if state.waiting.len() >= state.max {
            // The new connection counts as well: an address that has more than any other displaces its own.
            let most = state.by_number.last();
            let of_most = most.map(|(number, Reverse(oldest), _)| (*number, *oldest));
            let displaced = match of_most {
                Some((most, _)) if own >= most => state.oldest_of(network),
                of_most => of_most.map(|(_, oldest)| oldest),
            };
            if let Some(displaced) = displaced {
                state.displace(displaced);
            }
        }
        let id = state.next;
        state.next += 1;
        let displaced = Arc::new(Notify::new());
        state.insert(
            id,
            Waiting {
                network,
                since: now,
                displaced: displaced.clone(),
            },
        );
        Ok(Newcomer {
            newcomers: self.clone(),
            id,
            displaced,
        })
    }

    /// The number of connections without a session.
    pub(crate) fn count(&self) -> usize {
        self.state.lock().waiting.len()
    }
}

impl Newcomer {
    /// Completes when the connection is displaced.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn displaced(&self) {
        self.displaced.notified().await;
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.newcomers.state.lock().remove(self.id);
    }
}

impl State {
    /// The number of connections of an address.
    fn of(&self, network: HostNetwork) -> usize {
        self.by_network.get(&network).map_or(0, BTreeSet::len)
    }

    fn oldest_of(&self, network: HostNetwork) -> Option<u64> {
        self.by_network.get(&network)?.first().copied()
    }

    fn displace(&mut self, id: u64) {
        if let Some(displaced) = self.remove(id) {
            displaced.displaced.notify_one();
        }
    }

    fn insert(&mut self, id: u64, one: Waiting) {
        self.change(one.network, |ids| {
            ids.insert(id);
        });
        self.waiting.insert(id, one);
    }

    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let one = self.waiting.remove(&id)?;
        self.change(one.network, |ids| {
            ids.remove(&id);
        });
        Some(one)
    }

    /// Changes the connections of an address, and its place by their number.
    fn change(&mut self, network: HostNetwork, change: impl FnOnce(&mut BTreeSet<u64>)) {
        let place = |ids: &BTreeSet<u64>| {
            let oldest = ids.first()?;
            Some((ids.len(), Reverse(*oldest), network))
        };
        let ids = self.by_network.entry(network).or_default();
        if let Some(before) = place(ids) {
            self.by_number.remove(&before);
        }
        change(ids);
        match place(ids) {
            Some(after) => {
                self.by_number.insert(after);
            }
            None => {
                self.by_network.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn p_1_12_one_address_holds_few_and_the_others_come_in() {
        let newcomers = Newcomers::new(4, 2);
        let now = Instant::now();
        let enter = |peer: &str| newcomers.enter(ip(peer), now);
        let first = enter("192.0.2.1").ok().unwrap();
        // The same address, in the form in which a listener of IPv6 reports it.
        let _second = enter("::ffff:192.0.2.1").ok().unwrap();
        let crowded = enter("192.0.2.1").err();
        assert_eq!(crowded, Some(Crowded { limit: 2 }));
        let _other = enter("192.0.2.2").ok().unwrap();
        drop(first);
        let _third = enter("192.0.2.1").ok().unwrap();
        assert_eq!(newcomers.count(), 3);
        let _fourth = enter("2001:db8::1").ok().unwrap();
        assert!(enter("192.0.2.3").is_ok());
    }

    #[test]
    fn p_1_12_hosts_of_one_ipv6_network_are_one_address() {
        let newcomers = Newcomers::new(10, 1);
        let now = Instant::now();
        let _one = newcomers.enter(ip("2001:db8::1"), now).ok().unwrap();
        assert!(newcomers.enter(ip("2001:db8::ffff:2"), now).is_err());
        assert!(newcomers.enter(ip("2001:db8:0:1::1"), now).is_ok());
    }

    /// Those of these connections that have been displaced.
    async fn displaced<const N: usize>(connections: [&Newcomer; N]) -> [bool; N] {
        let mut found = [false; N];
        for (one, found) in connections.into_iter().zip(&mut found) {
            *found = tokio::select! {
                biased;
                () = one.displaced() => true,
                () = std::future::ready(()) => false,
            };
        }
        found
    }

    #[tokio::test]
    async fn p_1_12_the_oldest_of_an_address_makes_room_once_it_is_old() {
        let newcomers = Newcomers::new(10, 2);
        let start = Instant::now();
        let enter = |now| newcomers.enter(ip("192.0.2.1"), now);
        let old = enter(start).ok().unwrap();
        let young = enter(start + GRACE / 2).ok().unwrap();
        assert!(enter(start + GRACE / 2).is_err());
        let newest = enter(start + GRACE).ok().unwrap();
        assert_eq!(
            displaced([&old, &young, &newest]).await,
            [true, false, false]
        );
        assert_eq!(newcomers.count(), 2);
        drop(old);
        assert_eq!(newcomers.count(), 2);
        assert!(enter(start + GRACE).is_err());
    }

    #[tokio::test]
    async fn p_1_12_the_address_with_the_most_connections_makes_room_however_young() {
        let newcomers = Newcomers::new(5, 4);
        let now = Instant::now();
        let enter = |peer: &str| newcomers.enter(ip(peer), now).ok().unwrap();
        let client = enter("192.0.2.1");
        let first = enter("192.0.2.8");
        let second = enter("192.0.2.9");
        let third = enter("192.0.2.9");
        let fourth = enter("192.0.2.8");
        // Both have two; the older of them makes room.
        let other = enter("192.0.2.2");
        assert_eq!(displaced([&first, &second]).await, [true, false]);
        // The flood displaces connections of its own.
        let fifth = enter("192.0.2.9");
        assert_eq!(displaced([&second, &third]).await, [true, false]);
        let all = [&client, &other, &third, &fourth, &fifth];
        assert_eq!(displaced(all).await, [false; 5]);
        assert_eq!(newcomers.count(), 5);
        drop((first, second));
        assert_eq!(newcomers.count(), 5);
    }

    #[tokio::test]
    async fn p_1_12_few_addresses_do_not_lock_out_a_client() {
        let newcomers = Newcomers::new(256, 32);
        let now = Instant::now();
        let mut flood = Vec::new();
        let client = newcomers.enter(ip("198.51.100.1"), now).ok().unwrap();
        for round in 0..40 {
            for address in 1..=9 {
                let peer = IpAddr::from([192, 0, 2, address]);
                flood.extend(newcomers.enter(peer, now));
                assert!(newcomers.count() <= 256, "{round}");
            }
        }
        assert_eq!(newcomers.count(), 256);
        let late = newcomers.enter(ip("198.51.100.2"), now).ok().unwrap();
        assert_eq!(displaced([&client, &late]).await, [false; 2]);
        drop((flood, client, late));
        let state = newcomers.state.lock();
        assert!(
            state.waiting.is_empty() && state.by_network.is_empty() && state.by_number.is_empty()
        );
    }
}
