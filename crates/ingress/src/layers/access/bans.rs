//! Bans of addresses whose visitors were denied too often.

use std::{sync::Arc, time::Duration};

use adit_net::HostNetwork;
use tokio::time::Instant;

use crate::layers::{
    access::shares::{Shares, Table},
    layer_error::LayerError,
};

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

/// Denials of an address, and when the first of them was.
#[derive(Debug, Clone, Copy)]
struct Denials {
    count: u32,
    since: Instant,
}

/// All bans of a process.
#[derive(Debug)]
pub(super) struct Bans {
    denials: Shares<HostNetwork, Denials>,
    /// When the ban of an address ends. The bans of a layer end in the order in which they began.
    banned: Shares<HostNetwork, Instant>,
}

/// A layer that bans.
#[derive(Debug)]
pub(super) struct Banning {
    pub(super) rule: BanRule,
    pub(super) place: Arc<str>,
    denials: Arc<Table<HostNetwork, Denials>>,
    banned: Arc<Table<HostNetwork, Instant>>,
}

impl Banning {
    /// The layer at `index` of the list `place`. A ban outlives a change of its rule.
    pub(super) fn new(rule: BanRule, place: Arc<str>, index: usize, bans: &Bans) -> Self {
        let mut id = blake3::Hasher::new();
        id.update(&(index as u64).to_le_bytes());
        id.update(place.as_bytes());
        let id = *id.finalize().as_bytes();
        Self {
            rule,
            denials: bans.denials.table(id, &place),
            banned: bans.banned.table(id, &place),
            place,
        }
    }
}

impl Bans {
    /// At most this many bans: beyond it, those of the layer with the most bans that end first make room.
    pub(super) fn new(max: usize) -> Self {
        Self {
            denials: Shares::new(MAX_COUNTED),
            banned: Shares::new(max),
        }
    }

    /// The time until the ban of an address by this layer ends.
    pub(super) fn left(&self, layer: &Banning, network: HostNetwork) -> Option<Duration> {
        // A request takes no lock while there are no bans.
        if layer.banned.len() == 0 {
            return None;
        }
        let now = Instant::now();
        self.banned.change(&layer.banned, |banned| {
            let until = *banned.peek(&network)?;
            if until > now {
                return Some(until - now);
            }
            banned.remove(&network);
            None
        })
    }

    /// Counts a denial. Returns whether it has led to a ban.
    pub(super) fn on_denied(&self, layer: &Banning, network: HostNetwork) -> bool {
        let rule = &layer.rule;
        let now = Instant::now();
        let is_enough = self.denials.change(&layer.denials, |denials| {
            let count = match denials.get_mut(&network) {
                Some(denials) if now - denials.since < rule.within => {
                    denials.count = denials.count.saturating_add(1);
                    denials.count
                }
                _ => {
                    let first = Denials {
                        count: 1,
                        since: now,
                    };
                    denials.insert(network, first);
                    1
                }
            };
            let is_enough = count >= rule.after;
            if is_enough {
                denials.remove(&network);
            }
            is_enough
        });
        if is_enough {
            self.banned.change(&layer.banned, |banned| {
                banned.insert(network, now + rule.duration);
            });
        }
        is_enough
    }

    /// The bans in force, by network.
    pub(super) fn list(&self) -> Vec<Ban> {
        let now = Instant::now();
        let mut bans = Vec::new();
        self.banned.change_all(|place, banned| {
            banned.retain(|_, until| *until > now);
            bans.extend(banned.iter().map(|(network, until)| Ban {
                network: *network,
                place: place.to_string(),
                left: *until - now,
            }));
        });
        bans.sort_by(|a, b| (a.network, &a.place).cmp(&(b.network, &b.place)));
        bans
    }

    /// The number of bans, of which some may have ended.
    pub(super) fn count(&self) -> usize {
        self.banned.len()
    }

    /// Ends the bans of an address, or all. Returns how many.
    pub(super) fn clear(&self, network: Option<HostNetwork>) -> usize {
        let mut ended = 0;
        self.banned.change_all(|_, banned| {
            let before = banned.len();
            banned.retain(|other, _| network.is_some_and(|network| network != *other));
            ended += before - banned.len();
        });
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(bans: &Bans, place: &str, after: u32) -> Banning {
        let (within, duration) = (Duration::from_secs(10), Duration::from_secs(60));
        let rule = BanRule::new(after, within, duration).unwrap();
        Banning::new(rule, place.into(), 0, bans)
    }

    fn network(text: &str) -> HostNetwork {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn denials_within_the_time_lead_to_a_ban_that_ends() {
        let (bans, one) = (Bans::new(10), network("192.0.2.1"));
        let layer = layer(&bans, "server", 3);
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
        let server = layer(&bans, "server", 1);
        let tunnel = layer(&bans, "tunnel office/web", 1);
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
        let bans = Bans::new(2);
        let layer = layer(&bans, "server", 1);
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

    #[tokio::test(start_paused = true)]
    async fn p_15_9_bans_of_one_layer_do_not_end_those_of_another() {
        let bans = Bans::new(100);
        let quiet = layer(&bans, "tunnel office/web", 1);
        bans.on_denied(&quiet, network("192.0.2.1"));
        let flooded = layer(&bans, "tunnel other/web", 1);
        for number in 0_u32..10_000 {
            bans.on_denied(&flooded, HostNetwork::of(number.to_be_bytes().into()));
            assert!(bans.count() <= 100);
        }
        // The layer comes back, with another rule.
        drop(quiet);
        let quiet = layer(&bans, "tunnel office/web", 2);
        assert!(bans.left(&quiet, network("192.0.2.1")).is_some());
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
