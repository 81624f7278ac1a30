//! Bans of addresses whose visitors were denied too often.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_net::HostNetwork;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::layers::{access::recent::Recent, layer_error::LayerError};

/// Addresses whose denials are counted.
const MAX_COUNTED: usize = 64 * 1024;
/// The longest time of a ban, and of the count that leads to it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// When an address is banned (P-15.9): after a number of denials by the layers behind this one within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanRule {
    after: u32,
    within: Duration,
    duration: Duration,
}

impl BanRule {
    /// Denials that lead to a ban, without a configured number.
    pub const AFTER: u32 = 10;
    /// The time within which they are counted.
    pub const WITHIN: Duration = Duration::from_secs(10 * 60);
    /// The time of a ban.
    pub const DURATION: Duration = Duration::from_secs(60 * 60);

    /// Bans an address for `duration` after `after` denials within `within`.
    ///
    /// # Errors
    /// No denials, or a time that is not from a second to a year.
    pub fn new(after: u32, within: Duration, duration: Duration) -> Result<Self, LayerError> {
        let is_time = |time| (Duration::from_secs(1)..=LONGEST).contains(&time);
        if after == 0 || !is_time(within) || !is_time(duration) {
            return Err(LayerError::Ban);
        }
        Ok(Self {
            after,
            within,
            duration,
        })
    }

    /// The denials that lead to a ban.
    pub const fn after(&self) -> u32 {
        self.after
    }

    /// The time within which they are counted.
    pub const fn within(&self) -> Duration {
        self.within
    }

    /// The time of a ban.
    pub const fn duration(&self) -> Duration {
        self.duration
    }
}

/// A banned address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// The address or the /64.
    pub network: HostNetwork,
    /// The list with the layer that has banned it.
    pub place: String,
    /// The time until the ban ends.
    pub left: Duration,
}

/// An address at one layer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    place: Arc<str>,
    /// The place of the layer in its list.
    index: usize,
    network: HostNetwork,
}

/// Denials of an address, and when the first of them was.
#[derive(Debug, Clone, Copy)]
struct Denials {
    count: u32,
    since: Instant,
}

/// All bans of a process.
#[derive(Debug)]
pub(super) struct Bans {
    /// The number of bans, so that a request takes no lock while there are none.
    count: AtomicUsize,
    max: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    denials: Recent<Subject, Denials>,
    /// When the ban of an address ends.
    banned: HashMap<Subject, Instant>,
}

/// A layer that bans.
#[derive(Debug)]
pub(super) struct Banning {
    pub(super) rule: BanRule,
    pub(super) place: Arc<str>,
    pub(super) index: usize,
}

impl Banning {
    fn subject(&self, network: HostNetwork) -> Subject {
        Subject {
            place: self.place.clone(),
            index: self.index,
            network,
        }
    }
}

impl Bans {
    /// At most this many bans: beyond it, the one that ends first makes room.
    pub(super) fn new(max: usize) -> Self {
        Self {
            count: AtomicUsize::new(0),
            max: max.max(1),
            state: Mutex::new(State {
                denials: Recent::new(MAX_COUNTED),
                banned: HashMap::new(),
            }),
        }
    }

    /// The time until the ban of an address by this layer ends.
    pub(super) fn left(&self, layer: &Banning, network: HostNetwork) -> Option<Duration> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let subject = layer.subject(network);
        let now = Instant::now();
        let mut state = self.state.lock();
        let until = *state.banned.get(&subject)?;
        if until > now {
            return Some(until - now);
        }
        state.banned.remove(&subject);
        self.count.store(state.banned.len(), Ordering::Relaxed);
        None
    }

    /// Counts a denial. Returns whether it has led to a ban.
    pub(super) fn on_denied(&self, layer: &Banning, network: HostNetwork) -> bool {
        let (rule, subject) = (&layer.rule, layer.subject(network));
        let now = Instant::now();
        let mut state = self.state.lock();
        let count = match state.denials.get_mut(&subject) {
            Some(denials) if now - denials.since < rule.within => {
                denials.count = denials.count.saturating_add(1);
                denials.count
            }
            _ => {
                let first = Denials {
                    count: 1,
                    since: now,
                };
                state.denials.insert(subject.clone(), first);
                1
            }
        };
        if count < rule.after {
            return false;
        }
        state.denials.remove(&subject);
        if state.banned.len() >= self.max {
            state.make_room(now);
        }
        state.banned.insert(subject, now + rule.duration);
        self.count.store(state.banned.len(), Ordering::Relaxed);
        true
    }

    /// The bans in force, by network.
    pub(super) fn list(&self) -> Vec<Ban> {
        let now = Instant::now();
        let mut state = self.state.lock();
        state.banned.retain(|_, until| *until > now);
        self.count.store(state.banned.len(), Ordering::Relaxed);
        let bans = state.banned.iter().map(|(subject, until)| Ban {
            network: subject.network,
            place: subject.place.to_string(),
            left: *until - now,
        });
        let mut bans: Vec<_> = bans.collect();
        drop(state);
        bans.sort_by(|a, b| (a.network, &a.place).cmp(&(b.network, &b.place)));
        bans
    }

    /// The number of bans, of which some may have ended.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the bans of an address, or all. Returns how many.
    pub(super) fn clear(&self, network: Option<HostNetwork>) -> usize {
        let mut state = self.state.lock();
        let before = state.banned.len();
        let is_other =
            |subject: &Subject| network.is_some_and(|network| network != subject.network);
        state.banned.retain(|subject, _| is_other(subject));
        self.count.store(state.banned.len(), Ordering::Relaxed);
        before - state.banned.len()
    }
}

impl State {
    /// Removes bans that have ended, or else the one that ends first.
    fn make_room(&mut self, now: Instant) {
        let before = self.banned.len();
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() < before {
            return;
        }
        let first = self.banned.iter().min_by_key(|(_, until)| **until);
        if let Some(first) = first.map(|(subject, _)| subject.clone()) {
            self.banned.remove(&first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(place: &str, after: u32) -> Banning {
        let (within, duration) = (Duration::from_secs(10), Duration::from_secs(60));
        Banning {
            rule: BanRule::new(after, within, duration).unwrap(),
            place: place.into(),
            index: 0,
        }
    }

    fn network(text: &str) -> HostNetwork {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn denials_within_the_time_lead_to_a_ban_that_ends() {
        let (bans, layer, one) = (Bans::new(10), layer("server", 3), network("192.0.2.1"));
        assert!(!bans.on_denied(&layer, one) && !bans.on_denied(&layer, one));
        // The third one comes too late, and begins a new count.
        tokio::time::advance(Duration::from_secs(10)).await;
        assert!(!bans.on_denied(&layer, one) && !bans.on_denied(&layer, one));
        assert_eq!(bans.left(&layer, one), None);
        assert!(bans.on_denied(&layer, one));
        assert_eq!(bans.left(&layer, one), Some(Duration::from_secs(60)));
        assert_eq!(bans.left(&layer, network("192.0.2.2")), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(bans.left(&layer, one), None);
        assert_eq!(bans.count(), 0);
        assert!(!bans.on_denied(&layer, one));
    }

    #[tokio::test(start_paused = true)]
    async fn bans_of_one_list_do_not_hold_in_another() {
        let bans = Bans::new(10);
        let (server, tunnel) = (layer("server", 1), layer("tunnel office/web", 1));
        assert!(bans.on_denied(&tunnel, network("192.0.2.1")));
        assert!(bans.on_denied(&tunnel, network("2001:db8::1")));
        assert_eq!(bans.left(&server, network("192.0.2.1")), None);
        assert!(bans.left(&tunnel, network("2001:db8::2")).is_some());
        let networks: Vec<_> = bans
            .list()
            .iter()
            .map(|ban| ban.network.to_string())
            .collect();
        assert_eq!(networks, ["192.0.2.1", "2001:db8::/64"]);
        assert_eq!(bans.clear(Some(network("192.0.2.1"))), 1);
        assert_eq!(bans.clear(Some(network("192.0.2.1"))), 0);
        assert_eq!((bans.clear(None), bans.count()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_ban_that_ends_first_makes_room() {
        let (bans, layer) = (Bans::new(2), layer("server", 1));
        for last in 1..=3 {
            bans.on_denied(&layer, network(&format!("192.0.2.{last}")));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let networks: Vec<_> = bans
            .list()
            .iter()
            .map(|ban| ban.network.to_string())
            .collect();
        assert_eq!(networks, ["192.0.2.2", "192.0.2.3"]);
    }

    #[test]
    fn rules_without_time_or_number_are_rejected() {
        let (second, year) = (Duration::from_secs(1), LONGEST);
        BanRule::new(1, second, year).unwrap();
        BanRule::new(0, second, second).unwrap_err();
        BanRule::new(1, Duration::ZERO, second).unwrap_err();
        BanRule::new(1, second, year + second).unwrap_err();
    }
}
