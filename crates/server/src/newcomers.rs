//! Bounds the connections of clients without a session: their total, their number per address, and their time (P-1.12).

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

/// A connection younger than this is not closed for another one: its client has not had time to register.
const GRACE: Duration = Duration::from_secs(1);

/// All connections without a session.
pub(crate) struct Newcomers {
    state: Mutex<State>,
}

struct State {
    max: usize,
    max_per_address: usize,
    next: u64,
    by_age: BTreeMap<u64, Waiting>,
    by_network: HashMap<Network, usize>,
}

struct Waiting {
    network: Network,
    since: Instant,
    displaced: Arc<Notify>,
}

/// An IPv4 address, or an IPv6 /64, which usually belongs to one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Network {
    V4([u8; 4]),
    V6([u8; 8]),
}

/// A connection without a session, counted until this is dropped.
pub(crate) struct Newcomer {
    newcomers: Arc<Newcomers>,
    id: u64,
    displaced: Arc<Notify>,
}

/// Why a new connection is closed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Crowded {
    #[error("{limit} connections without a session are open (`server.limits.max_unauthenticated`)")]
    InAll { limit: usize },
    #[error(
        "{limit} connections of this address without a session are open (`server.limits.max_unauthenticated_per_address`)"
    )]
    OfAddress { limit: usize },
}

impl Newcomers {
    pub(crate) fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                max,
                max_per_address,
                next: 0,
                by_age: BTreeMap::new(),
                by_network: HashMap::new(),
            }),
        })
    }

    /// Changes the bounds. Connections above them stay until they end or are displaced.
    pub(crate) fn set_bounds(&self, max: usize, max_per_address: usize) {
        let mut state = self.state.lock();
        state.max = max;
        state.max_per_address = max_per_address;
    }

    /// Counts a connection. At a bound the oldest connection is displaced: clients register at once, so a connection
    /// that has waited long will not register.
    ///
    /// # Errors
    /// [`Crowded`] when the oldest one is younger than [`GRACE`].
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Result<Newcomer, Crowded> {
        let network = Network::of(peer);
        let mut state = self.state.lock();
        let of_network = state.by_network.get(&network).copied().unwrap_or_default();
        let (oldest, crowded) = if of_network >= state.max_per_address {
            let limit = state.max_per_address;
            let mut same = state.by_age.iter();
            let oldest = same.find(|(_, one)| one.network == network);
            (oldest, Some(Crowded::OfAddress { limit }))
        } else if state.by_age.len() >= state.max {
            let limit = state.max;
            (
                state.by_age.first_key_value(),
                Some(Crowded::InAll { limit }),
            )
        } else {
            (None, None)
        };
        if let Some(crowded) = crowded {
            let old = oldest.filter(|(_, one)| now.saturating_duration_since(one.since) >= GRACE);
            let Some(id) = old.map(|(id, _)| *id) else {
                return Err(crowded);
            };
            if let Some(displaced) = state.remove(id) {
                displaced.displaced.notify_one();
            }
        }
        let id = state.next;
        state.next += 1;
        let displaced = Arc::new(Notify::new());
        *state.by_network.entry(network).or_default() += 1;
        state.by_age.insert(
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
        self.state.lock().by_age.len()
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
    fn remove(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.by_age.remove(&id)?;
        if let Some(count) = self.by_network.get_mut(&waiting.network) {
            *count -= 1;
            if *count == 0 {
                self.by_network.remove(&waiting.network);
            }
        }
        Some(waiting)
    }
}

impl Network {
    pub(crate) fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
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
        assert_eq!(crowded, Some(Crowded::OfAddress { limit: 2 }));
        let _other = enter("192.0.2.2").ok().unwrap();
        drop(first);
        let _third = enter("192.0.2.1").ok().unwrap();
        assert_eq!(newcomers.count(), 3);
        let _fourth = enter("2001:db8::1").ok().unwrap();
        let crowded = enter("2001:db8::2").err();
        assert_eq!(crowded, Some(Crowded::InAll { limit: 4 }));
    }

    #[test]
    fn p_1_12_hosts_of_one_ipv6_network_are_one_address() {
        let newcomers = Newcomers::new(10, 1);
        let now = Instant::now();
        let _one = newcomers.enter(ip("2001:db8::1"), now).ok().unwrap();
        assert!(newcomers.enter(ip("2001:db8::ffff:2"), now).is_err());
        assert!(newcomers.enter(ip("2001:db8:0:1::1"), now).is_ok());
    }

    #[tokio::test]
    async fn p_1_12_the_oldest_makes_room_once_it_is_old() {
        let newcomers = Newcomers::new(2, 2);
        let start = Instant::now();
        let old = newcomers.enter(ip("192.0.2.1"), start).ok().unwrap();
        let later = start + GRACE;
        let _young = newcomers.enter(ip("192.0.2.2"), later).ok().unwrap();
        let _newest = newcomers.enter(ip("192.0.2.3"), later).ok().unwrap();
        old.displaced().await;
        assert_eq!(newcomers.count(), 2);
        drop(old);
        assert_eq!(newcomers.count(), 2);
        assert!(newcomers.enter(ip("192.0.2.4"), later).is_err());
    }
}
