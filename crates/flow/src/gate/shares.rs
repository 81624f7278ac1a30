//! How permits are shared when they are short.

use std::collections::{BTreeMap, btree_map::Entry};

/// The holder of a permit: the tunnel and the visitor's address, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The tunnel, or what is counted in its place.
    pub tunnel: u64,
    /// The visitor's address, without the part that it can choose freely: an IPv6 host has a /64.
    pub visitor: u64,
}

/// The part of all permits, in percent, that one visitor's address and one tunnel may take; the rest stays free for
/// others. 100 and more: all of them.
///
/// Holders are counted only once the permits that are free fall to the larger rest. From then on each holder may take
/// an eighth of the rest that it leaves to others; for more it waits until more than that rest is free. So an address
/// holds at most its part and an eighth of the rest, and a new holder gets a permit at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// The percentage of one tunnel.
    pub tunnel_percent: u8,
    /// The percentage of one visitor's address. Smaller than that of a tunnel, so that other visitors of the tunnel get
    /// permits.
    pub visitor_percent: u8,
}

impl Shares {
    /// Each holder may take all permits.
    pub const NONE: Self = Self {
        tunnel_percent: 100,
        visitor_percent: 100,
    };
}

/// The line in which a claim waits, and the number of permits that it leaves to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Normal,
    /// The tunnel has as many permits as its share.
    Tunnel,
    /// The visitor has as many permits as its share.
    Visitor,
}

/// A holder may take the rest that it leaves to others, divided by this.
const PART_OF_REST: i64 = 8;

impl Level {
    pub(super) const ALL: [Self; 3] = [Self::Normal, Self::Tunnel, Self::Visitor];
}

/// Permits that are in use or waited for, counted since they are short.
pub(super) struct Holders {
    rests: [i64; 2],
    tunnels: BTreeMap<u64, i64>,
    visitors: BTreeMap<u64, i64>,
}

impl Holders {
    pub(super) fn new(shares: Shares, permits: i64) -> Self {
        let mut holders = Self {
            rests: [0; 2],
            tunnels: BTreeMap::new(),
            visitors: BTreeMap::new(),
        };
        holders.set_permits(shares, permits);
        holders
    }

    pub(super) fn set_permits(&mut self, shares: Shares, permits: i64) {
        let rest = |percent: u8| {
            permits.max(0) / 100 * left(percent) + permits.max(0) % 100 * left(percent) / 100
        };
        let tunnel = rest(shares.tunnel_percent);
        self.rests = [tunnel, rest(shares.visitor_percent).max(tunnel)];
        if shares.visitor_percent >= 100 {
            self.rests[1] = 0;
        }
    }

    /// Holders are counted when no more permits than this are free.
    pub(super) fn plenty(&self) -> i64 {
        self.rests[0].max(self.rests[1])
    }

    /// How many permits must stay free when one is taken.
    pub(super) const fn rest(&self, level: Level) -> i64 {
        match level {
            Level::Normal => 0,
            Level::Tunnel => self.rests[0],
            Level::Visitor => self.rests[1],
        }
    }

    pub(super) fn level(&self, claim: Claim) -> Level {
        let has_share = |held: &BTreeMap<u64, i64>, key, rest: i64| {
            rest > 0
                && held
                    .get(&key)
                    .is_some_and(|held| *held >= (rest / PART_OF_REST).max(1))
        };
        if has_share(&self.visitors, claim.visitor, self.rests[1]) {
            Level::Visitor
        } else if has_share(&self.tunnels, claim.tunnel, self.rests[0]) {
            Level::Tunnel
        } else {
            Level::Normal
        }
    }

    pub(super) fn add(&mut self, claim: Claim) {
        *self.tunnels.entry(claim.tunnel).or_default() += 1;
        *self.visitors.entry(claim.visitor).or_default() += 1;
    }

    pub(super) fn remove(&mut self, claim: Claim) {
        take_one(&mut self.tunnels, claim.tunnel);
        take_one(&mut self.visitors, claim.visitor);
    }
}

fn left(percent: u8) -> i64 {
    i64::from(100_u8.saturating_sub(percent))
}

fn take_one(held: &mut BTreeMap<u64, i64>, key: u64) {
    if let Entry::Occupied(mut entry) = held.entry(key) {
        *entry.get_mut() -= 1;
        if *entry.get() <= 0 {
            entry.remove();
        }
    }
}
