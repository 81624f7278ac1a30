//! Limits and their use, for the status and the metrics.

use adit_quota::{Periods, QuotaKind};
use serde::Serialize;

use super::account::Account;

/// The most accounts of a kind in a status.
pub(super) const MOST_SHOWN: usize = 1_000;

/// Limits of clients, tunnels and users, and their use.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrafficStatus {
    /// The time zone in which the days and months of quotas begin.
    pub time_zone: String,
    /// When the current day ends, in the form of RFC 3339.
    pub day_ends: String,
    /// When the current month ends.
    pub month_ends: String,
    /// Limited clients, tunnels and users that have been used in the current periods: at most a thousand of each kind.
    pub accounts: Vec<AccountStatus>,
    /// How many there are.
    pub known: usize,
    /// Requests and tunnels that were refused, by limit.
    pub refusals: Vec<TrafficRefusalStatus>,
}

/// The limits of a client, a tunnel or a user, and their use.
#[derive(Debug, Clone, Serialize)]
pub struct AccountStatus {
    /// `client`, `tunnel` or `user`.
    pub of: &'static str,
    /// Its name.
    pub name: String,
    /// The group of a tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Bytes per second in each direction; `null`: not limited.
    pub max_bandwidth: Option<u64>,
    /// Requests, connections and flows that may begin in a second.
    pub max_requests_per_second: Option<u32>,
    /// Requests that may run at a time.
    pub max_running_requests: Option<usize>,
    /// Connections at a time.
    pub max_connections: Option<usize>,
    /// Running requests.
    pub running_requests: usize,
    /// TCP connections, WebSockets and UDP flows.
    pub connections: usize,
    /// How long payload has waited for the bandwidth, the sum of all requests.
    pub waited_millis: u64,
    /// Its quotas.
    pub quotas: Vec<QuotaStatus>,
}

/// A quota and its use.
#[derive(Debug, Clone, Serialize)]
pub struct QuotaStatus {
    /// `bytes_per_day` and the like.
    pub quota: &'static str,
    /// How much may be used.
    pub most: u64,
    /// How much has been used.
    pub used: u64,
}

/// Refusals by one limit.
#[derive(Debug, Clone, Serialize)]
pub struct TrafficRefusalStatus {
    /// Whose limit: `client`, `tunnel` or `user`.
    pub of: &'static str,
    /// The limit.
    pub limit: &'static str,
    /// Refusals since the start.
    pub count: u64,
}

/// The limits of an account, and their use.
pub(super) fn status(
    account: &Account,
    name: String,
    group: Option<String>,
    periods: &Periods,
) -> AccountStatus {
    let limits = account.limits();
    let usage = account.usage(periods);
    let (running_requests, connections) = account.running();
    let quotas = QuotaKind::ALL.into_iter().filter_map(|kind| {
        Some(QuotaStatus {
            quota: kind.as_str(),
            most: limits.quota.amount(kind)?,
            used: kind.used(&usage),
        })
    });
    AccountStatus {
        of: account.of.as_str(),
        name,
        group,
        max_bandwidth: limits.max_bandwidth.map(std::num::NonZeroU64::get),
        max_requests_per_second: limits
            .max_requests_per_second
            .map(std::num::NonZeroU32::get),
        max_running_requests: limits.max_running_requests,
        max_connections: limits.max_connections,
        running_requests,
        connections,
        waited_millis: u64::try_from(account.waited().as_millis()).unwrap_or(u64::MAX),
        quotas: quotas.collect(),
    }
}
