//! Limits of clients, tunnels and users: bandwidth, requests, connections and quotas (section 16 of the protocol).
//!
//! Each limited client, tunnel and user has an [`Account`]: its rates, what runs, and what has been used. A request gets
//! those of its destination when it is opened ([`Traffic::of_request`]), and none if nothing limits it. `ingress` admits it
//! by them, and `link` sends its payload no faster than they allow; both see only the traits of those crates.
//!
//! The accounts follow the settings: a change holds for running requests that have the account, and for new ones.
//! `usage_keeper` stores the usages in the state directory.

mod account;
mod file;
mod refusal;
mod request;
mod status;
mod table;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use adit_auth::{ClientId, Grant, UserName};
use adit_ingress::Limits as RequestLimitsTrait;
use adit_quota::{Periods, Timestamp};
use arc_swap::ArcSwap;
use tokio::time::Instant;

pub(crate) use self::file::{Record, UsageFile};
pub use self::status::{AccountStatus, QuotaStatus, TrafficRefusalStatus, TrafficStatus};
use self::{
    account::Account,
    refusal::{Of, RefusalCounters},
    request::RequestLimits,
    table::Table,
};
use crate::{settings::TrafficSettings, tunnel::TunnelKey};

/// The accounts of all limited clients, tunnels and users.
pub(crate) struct Traffic {
    origin: Instant,
    settings: ArcSwap<TrafficSettings>,
    /// Whether any request is limited.
    is_on: AtomicBool,
    periods: ArcSwap<Periods>,
    tunnels: Table<TunnelKey>,
    clients: Table<ClientId>,
    users: Table<UserName>,
    refusals: RefusalCounters,
}

impl Traffic {
    /// Accounts for these settings, with the usages of an earlier run.
    pub(crate) fn new(settings: &TrafficSettings, records: Vec<Record>) -> Arc<Self> {
        let traffic = Self {
            origin: Instant::now(),
            is_on: AtomicBool::new(!settings.is_none()),
            periods: ArcSwap::from_pointee(settings.calendar.at(Timestamp::now())),
            settings: ArcSwap::from_pointee(settings.clone()),
            tunnels: Table::default(),
            clients: Table::default(),
            users: Table::default(),
            refusals: RefusalCounters::default(),
        };
        for record in records {
            traffic.restore(record);
        }
        Arc::new(traffic)
    }

    /// No limits, for tests.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        Self::new(&TrafficSettings::default(), Vec::new())
    }

    /// Follows changed settings (P-16.8).
    pub(crate) fn follow(&self, settings: &TrafficSettings) {
        self.settings.store(Arc::new(settings.clone()));
        self.periods
            .store(Arc::new(settings.calendar.at(Timestamp::now())));
        self.tunnels
            .for_each(|_, account| account.set_limits(&settings.per_tunnel));
        self.clients
            .for_each(|_, account| account.set_limits(&settings.per_client));
        self.users
            .for_each(|user, account| account.set_limits(settings.of_user(user)));
        self.is_on.store(!settings.is_none(), Ordering::Relaxed);
    }

    /// The limits of a request of this link to a tunnel, or to an upstream (`None`); `None` if there are none.
    pub(crate) fn of_request(
        self: &Arc<Self>,
        grant: &Grant,
        tunnel: Option<&TunnelKey>,
    ) -> Option<Arc<dyn RequestLimitsTrait>> {
        if !self.is_on.load(Ordering::Relaxed) {
            return None;
        }
        let settings = self.settings.load();
        let now = self.origin.elapsed();
        let limits = &settings.per_tunnel;
        let tunnel = tunnel.filter(|_| !limits.is_none()).map(|key| {
            self.tunnels
                .find(key, now, || Account::new(Of::Tunnel, limits))
        });
        let limits = &settings.per_client;
        let client = (!limits.is_none()).then(|| {
            let account = || Account::new(Of::Client, limits);
            self.clients.find(grant.client(), now, account)
        });
        let limits = settings.of_user(grant.user());
        let user = (!limits.is_none()).then(|| {
            let account = || Account::new(Of::User, limits);
            self.users.find(grant.user(), now, account)
        });
        let accounts: Vec<_> = [tunnel, client, user].into_iter().flatten().collect();
        if accounts.is_empty() {
            return None;
        }
        Some(Arc::new(RequestLimits::new(self.clone(), accounts)))
    }

    /// Counts a tunnel that was refused because its user has too many.
    pub(crate) fn on_tunnel_refused(&self) {
        self.refusals.count_tunnel();
    }

    /// The current day and month.
    fn periods(&self) -> Arc<Periods> {
        let now = Timestamp::now();
        let periods = self.periods.load();
        if periods.contain(now) {
            return periods.clone();
        }
        let periods = Arc::new(self.settings.load().calendar.at(now));
        self.periods.store(periods.clone());
        periods
    }

    /// Continues the usage of an earlier run. A record of another form than those of this version is not lost: the file was
    /// checked before.
    fn restore(&self, record: Record) {
        let settings = self.settings.load();
        let now = self.origin.elapsed();
        let usage = record.usage;
        match record.of {
            file::Named::Tunnel { group, name } => {
                let key = TunnelKey { group, name };
                let account = || Account::new(Of::Tunnel, &settings.per_tunnel);
                self.tunnels.find(&key, now, account).set_usage(usage);
            }
            file::Named::Client { name } => {
                let account = || Account::new(Of::Client, &settings.per_client);
                self.clients.find(&name, now, account).set_usage(usage);
            }
            file::Named::User { name } => {
                let account = || Account::new(Of::User, settings.of_user(&name));
                self.users.find(&name, now, account).set_usage(usage);
            }
        }
    }

    /// Whether nothing has an account.
    pub(crate) fn is_empty(&self) -> bool {
        self.tunnels.len() + self.clients.len() + self.users.len() == 0
    }

    /// What has been used, for the file. Drops accounts without a use.
    pub(crate) fn records(&self) -> Vec<Record> {
        let periods = self.periods();
        let now = self.origin.elapsed();
        let mut records = Vec::new();
        let mut add = |of, account: &Account| {
            let usage = account.usage(&periods);
            if !usage.is_unused(&periods) {
                records.push(Record { of, usage });
            }
        };
        self.users.forget_unused(&periods, now);
        self.clients.forget_unused(&periods, now);
        self.tunnels.forget_unused(&periods, now);
        self.users
            .for_each(|name, account| add(file::Named::User { name: name.clone() }, account));
        self.clients
            .for_each(|name, account| add(file::Named::Client { name: name.clone() }, account));
        self.tunnels.for_each(|key, account| {
            let (group, name) = (key.group.clone(), key.name.clone());
            add(file::Named::Tunnel { group, name }, account);
        });
        records.sort();
        records
    }

    /// Limits of clients, tunnels and users, and their use.
    pub(crate) fn status(&self) -> TrafficStatus {
        let periods = self.periods();
        let mut kinds = [Vec::new(), Vec::new(), Vec::new()];
        let [clients, tunnels, users] = &mut kinds;
        self.clients.for_each(|name, account| {
            clients.push(status::status(account, name.to_string(), None, &periods));
        });
        self.tunnels.for_each(|key, account| {
            let group = Some(key.group.to_string());
            tunnels.push(status::status(
                account,
                key.name.to_string(),
                group,
                &periods,
            ));
        });
        self.users.for_each(|name, account| {
            users.push(status::status(account, name.to_string(), None, &periods));
        });
        for accounts in &mut kinds {
            accounts.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
            accounts.truncate(status::MOST_SHOWN);
        }
        let refusals = self.refusals.all();
        let refusals = refusals.map(|(of, limit, count)| TrafficRefusalStatus {
            of: of.as_str(),
            limit,
            count,
        });
        TrafficStatus {
            time_zone: self.settings.load().calendar.to_string(),
            day_ends: periods.day_ends.to_string(),
            month_ends: periods.month_ends.to_string(),
            accounts: kinds.into_iter().flatten().collect(),
            known: self.clients.len() + self.tunnels.len() + self.users.len(),
            refusals: refusals.collect(),
        }
    }
}
