//! Which limit has refused a request, what the visitor is told, and how many there were.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use adit_ingress::Denial;
use adit_link::Reason;
use adit_quota::{Exceeded, QuotaKind, Timestamp};

/// Whose account it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Of {
    Tunnel,
    Client,
    User,
}

/// The limit that has refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitKind {
    RequestsPerSecond { wait: Duration },
    RunningRequests,
    Connections,
    Quota(Exceeded),
}

/// A request that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) of: Of,
    pub(super) limit: LimitKind,
    /// The amount that the limit allows.
    pub(super) most: u64,
}

impl Of {
    pub(super) const ALL: [Self; 3] = [Self::Tunnel, Self::Client, Self::User];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Client => "client",
            Self::User => "user",
        }
    }
}

impl Refusal {
    /// The response to the visitor. It does not name the client nor the user.
    pub(super) fn denial(&self) -> Denial {
        let Self { of, limit, most } = self;
        let of = of.as_str();
        let denial = match limit {
            LimitKind::RequestsPerSecond { wait } => {
                let text = format!(
                    "the {of} is over its limit of {most} requests per second (`limits.per_{of}.max_requests_per_second`)"
                );
                Denial::above_rate(text, *wait)
            }
            LimitKind::RunningRequests => {
                let text = format!(
                    "the {of} is at its limit of {most} running requests (`limits.per_{of}.max_running_requests`)"
                );
                Denial::new(Reason::Limit, text)
            }
            LimitKind::Connections => {
                let text = format!(
                    "the {of} is at its limit of {most} connections (`limits.per_{of}.max_connections`)"
                );
                Denial::new(Reason::Limit, text)
            }
            LimitKind::Quota(Exceeded { kind, resets }) => {
                let text = format!("the {of} is over its quota of {kind}; it resets at {resets}");
                let wait = resets.duration_since(Timestamp::now());
                Denial::above_rate(text, Duration::try_from(wait).unwrap_or_default())
            }
        };
        denial.without_ban()
    }

    fn index(&self) -> usize {
        match self.limit {
            LimitKind::RequestsPerSecond { .. } => 0,
            LimitKind::RunningRequests => 1,
            LimitKind::Connections => 2,
            LimitKind::Quota(Exceeded { kind, .. }) => match kind {
                QuotaKind::BytesPerDay => 3,
                QuotaKind::BytesPerMonth => 4,
                QuotaKind::RequestsPerDay => 5,
                QuotaKind::RequestsPerMonth => 6,
            },
        }
    }
}

/// The names of limits, in the order of their counters.
const NAMES: [&str; 8] = [
    "requests_per_second",
    "running_requests",
    "connections",
    "bytes_per_day",
    "bytes_per_month",
    "requests_per_day",
    "requests_per_month",
    "tunnels",
];
const TUNNELS: usize = 7;

/// Refusals by limit and by whose limit it is.
#[derive(Debug, Default)]
pub(super) struct RefusalCounters([[AtomicU64; NAMES.len()]; 3]);

impl RefusalCounters {
    pub(super) fn count(&self, refusal: &Refusal) {
        self.add(refusal.of, refusal.index());
    }

    pub(super) fn count_tunnel(&self) {
        self.add(Of::User, TUNNELS);
    }

    fn add(&self, of: Of, limit: usize) {
        let counter = self.0.get(of as usize).and_then(|of| of.get(limit));
        if let Some(counter) = counter {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whose limit, which limit, how many: those that are not zero.
    pub(super) fn all(&self) -> impl Iterator<Item = (Of, &'static str, u64)> {
        let all = Of::ALL.into_iter().zip(&self.0);
        let all = all.flat_map(|(of, counts)| {
            let named = NAMES.into_iter().zip(counts);
            named.map(move |(name, count)| (of, name, count.load(Ordering::Relaxed)))
        });
        all.filter(|(_, _, count)| *count > 0)
    }
}
