//! What one client, tunnel or user may use, and what it uses.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use adit_flow::{Arrivals, Bandwidth, Rate};
use adit_quota::{Periods, Usage};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::refusal::{LimitKind, Of, Refusal};
use crate::settings::TrafficLimits;

/// What begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// A request of HTTP or a call of gRPC.
    Request,
    /// A TCP connection, a WebSocket or a UDP flow.
    Connection,
}

/// The account of one client, tunnel or user.
pub(super) struct Account {
    pub(super) of: Of,
    limits: ArcSwap<TrafficLimits>,
    pub(super) to_client: Bandwidth,
    pub(super) from_client: Bandwidth,
    arrivals: Mutex<Arrivals>,
    running: AtomicUsize,
    connections: AtomicUsize,
    /// Bytes that are not in `usage` yet: they are counted without a lock.
    moved: AtomicU64,
    usage: Mutex<Usage>,
    /// How long payload has waited for the bandwidth, in nanoseconds.
    waited: AtomicU64,
    /// When it was last used, in seconds since the origin.
    last_used: AtomicU64,
}

impl Account {
    pub(super) fn new(of: Of, limits: &TrafficLimits) -> Self {
        Self {
            of,
            limits: ArcSwap::from_pointee(limits.clone()),
            to_client: Bandwidth::new(limits.max_bandwidth),
            from_client: Bandwidth::new(limits.max_bandwidth),
            arrivals: Mutex::default(),
            running: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
            usage: Mutex::default(),
            waited: AtomicU64::new(0),
            last_used: AtomicU64::new(0),
        }
    }

    pub(super) fn limits(&self) -> arc_swap::Guard<std::sync::Arc<TrafficLimits>> {
        self.limits.load()
    }

    /// Applies changed limits, to running requests as well.
    pub(super) fn set_limits(&self, limits: &TrafficLimits) {
        self.to_client.set_rate(limits.max_bandwidth);
        self.from_client.set_rate(limits.max_bandwidth);
        self.limits.store(std::sync::Arc::new(limits.clone()));
    }

    /// Whether payload has to be delayed or counted.
    pub(super) fn paces(&self) -> bool {
        let limits = self.limits.load();
        let quota = &limits.quota;
        limits.max_bandwidth.is_some()
            || quota.bytes_per_day.is_some()
            || quota.bytes_per_month.is_some()
    }

    /// Admits what begins (P-16.4): it counts as running until [`Account::end`].
    pub(super) fn begin(
        &self,
        begins: Begins,
        periods: &Periods,
        now: Duration,
    ) -> Result<(), Refusal> {
        let limits = self.limits.load();
        let refuse = |limit, most| {
            let of = self.of;
            Err(Refusal { of, limit, most })
        };
        if !limits.quota.is_none() {
            let usage = self.usage(periods);
            if let Some(exceeded) = limits.quota.exceeded(&usage, periods) {
                let most = limits.quota.amount(exceeded.kind).unwrap_or(0);
                return refuse(LimitKind::Quota(exceeded), most);
            }
        }
        let (count, most, limit) = match begins {
            Begins::Request => (
                &self.running,
                limits.max_running_requests,
                LimitKind::RunningRequests,
            ),
            Begins::Connection => (
                &self.connections,
                limits.max_connections,
                LimitKind::Connections,
            ),
        };
        let most = most.unwrap_or(usize::MAX);
        let add = |count: usize| (count < most).then_some(count + 1);
        if count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .is_err()
        {
            return refuse(limit, most as u64);
        }
        if let Some(per_second) = limits.max_requests_per_second {
            let rate = Rate::new(per_second, Duration::from_secs(1), per_second);
            let admitted = rate.try_admit(&mut self.arrivals.lock(), now);
            if let Err(wait) = admitted {
                self.end(begins);
                let most = u64::from(NonZeroU32::get(per_second));
                return refuse(LimitKind::RequestsPerSecond { wait }, most);
            }
        }
        Ok(())
    }

    /// Counts what has begun in the quotas.
    pub(super) fn count_request(&self, periods: &Periods, now: Duration) {
        self.usage.lock().add(periods, 0, 1);
        self.last_used.store(now.as_secs(), Ordering::Relaxed);
    }

    /// What began with [`Account::begin`] has ended.
    pub(super) fn end(&self, begins: Begins) {
        let count = match begins {
            Begins::Request => &self.running,
            Begins::Connection => &self.connections,
        };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts bytes of payload.
    pub(super) fn add_bytes(&self, bytes: usize) {
        self.moved.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_wait(&self, wait: Duration) {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How long payload has waited for the bandwidth.
    pub(super) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// What runs: requests and connections.
    pub(super) fn running(&self) -> (usize, usize) {
        let count = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        (count(&self.running), count(&self.connections))
    }

    /// What has been used in the current periods. Bytes count in the periods in which they are added up here: the caller
    /// does so at least every few seconds.
    pub(super) fn usage(&self, periods: &Periods) -> Usage {
        let mut usage = self.usage.lock();
        usage.add(periods, self.moved.swap(0, Ordering::Relaxed), 0);
        *usage
    }

    /// Continues an earlier usage.
    pub(super) fn set_usage(&self, usage: Usage) {
        *self.usage.lock() = usage;
    }

    pub(super) fn last_used(&self) -> u64 {
        self.last_used.load(Ordering::Relaxed)
    }

    pub(super) fn touch(&self, now: Duration) {
        self.last_used.store(now.as_secs(), Ordering::Relaxed);
    }
}
