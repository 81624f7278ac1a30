//! The state of all access layers of a process.

use std::{collections::HashMap, fmt, sync::Arc};

use adit_net::HostNetwork;

use crate::layers::access::{
    bans::{Ban, Bans},
    counters::{AccessCounts, Counters, PROXY_PROTOCOL},
    forward_auth::{AuthProvider, Providers},
    passwords::{PasswordBounds, Passwords},
    rate_limit::Rates,
    waits::Waits,
};

/// Bounds of the state of access layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessBounds {
    /// Checks of passwords.
    pub passwords: PasswordBounds,
    /// Requests that wait for a check of a password, or for a provider. Those of one layer leave room for those of others.
    pub waits: usize,
    /// Addresses whose rates are counted; those that came last stay.
    pub addresses: usize,
    /// Bans; beyond it, the one that ends first makes room.
    pub bans: usize,
}

impl Default for AccessBounds {
    fn default() -> Self {
        Self {
            passwords: PasswordBounds::default(),
            waits: 500,
            addresses: 64 * 1024,
            bans: 10_000,
        }
    }
}

/// The state of all access layers of a process: it outlives the layers, which a reload replaces.
pub struct Access {
    pub(super) counters: Counters,
    pub(super) passwords: Passwords,
    pub(super) waits: Arc<Waits>,
    pub(super) rates: Rates,
    pub(super) bans: Bans,
    pub(super) providers: Providers,
}

impl Access {
    /// The state of a process without visitors.
    pub fn new(bounds: AccessBounds) -> Arc<Self> {
        Arc::new(Self {
            counters: Counters::default(),
            passwords: Passwords::new(bounds.passwords),
            waits: Waits::new(bounds.waits),
            rates: Rates::new(bounds.addresses),
            bans: Bans::new(bounds.bans),
            providers: Providers::new(),
        })
    }

    /// Replaces the providers of forward auth, by name.
    pub fn set_providers(&self, providers: HashMap<String, Arc<dyn AuthProvider>>) {
        self.providers.set(providers);
    }

    /// Whether there is a provider of forward auth with this name.
    pub fn has_provider(&self, name: &str) -> bool {
        self.providers.find(name).is_some()
    }

    /// Counts a connection of a proxy that is closed for its PROXY protocol header.
    pub fn count_refused_header(&self) {
        self.counters.count(PROXY_PROTOCOL, true);
    }

    /// How many visitors were not admitted.
    pub fn counts(&self) -> AccessCounts {
        self.counters.counts()
    }

    /// The number of passwords that were checked, without those whose answer was kept.
    pub fn password_checks(&self) -> u64 {
        self.passwords.checks()
    }

    /// The bans in force.
    pub fn bans(&self) -> Vec<Ban> {
        self.bans.list()
    }

    /// The number of bans; some of them may have ended.
    pub fn ban_count(&self) -> usize {
        self.bans.count()
    }

    /// Ends the bans of an address, or all bans. Returns how many.
    pub fn clear_bans(&self, network: Option<HostNetwork>) -> usize {
        self.bans.clear(network)
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access")
            .field("counts", &self.counts())
            .field("bans", &self.ban_count())
            .finish_non_exhaustive()
    }
}
