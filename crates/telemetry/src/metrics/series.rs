//! The counters of one label set.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use adit_trace::{Edge, GRPC_STATUSES, Record};
use parking_lot::Mutex;

use super::{
    histogram::{BOUNDS, FIRST_BYTE_BOUNDS, Histogram},
    labels::write_labels,
};

/// Tunnel, group and user of the requests beyond the bound. No valid name begins with an underscore.
pub(super) const OTHER: &str = "_other";

/// Names have at most 64 bytes, so a longer value is not a name.
const LONGEST_LABEL_BYTES: usize = 128;

/// The labels of a request. The client is left out: it would multiply the label sets by the members of a group, and the
/// access log contains it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key<'a> {
    /// `false` for the visitors' side.
    egress: bool,
    pub(super) protocol: &'a str,
    pub(super) opener: &'a str,
    pub(super) tunnel: &'a str,
    /// The group, because two groups may have tunnels with the same name.
    pub(super) group: &'a str,
    pub(super) user: &'a str,
}

impl<'a> Key<'a> {
    pub(super) fn of(record: &Record<'a>) -> Self {
        let bounded = |value: &'a str| {
            if value.len() > LONGEST_LABEL_BYTES {
                OTHER
            } else {
                value
            }
        };
        Self {
            egress: record.edge == Edge::Egress,
            protocol: record.protocol,
            opener: record.opener,
            tunnel: bounded(record.tunnel),
            group: bounded(record.group),
            user: bounded(record.user),
        }
    }

    /// The key under which requests beyond the bound are counted.
    pub(super) const fn other(self) -> Self {
        Self {
            tunnel: OTHER,
            group: OTHER,
            user: OTHER,
            ..self
        }
    }

    pub(super) fn is_other(self) -> bool {
        self.tunnel == OTHER && self.group == OTHER && self.user == OTHER
    }

    pub(super) const fn edge(self) -> Edge {
        if self.egress {
            Edge::Egress
        } else {
            Edge::Ingress
        }
    }
}

/// How a request ended.
pub(super) const OUTCOMES: [&str; 3] = ["completed", "failed", "cancelled"];

/// The reason when the visitor disconnected, which is not a failure.
const CANCELLED: &str = "cancelled";

/// Classes of a status of HTTP; the first stands for an invalid or missing status.
pub(super) const STATUSES: [&str; 6] = ["", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The label of invalid statuses of gRPC.
const OTHER_GRPC_STATUS: &str = "other";

/// Reasons are some twenty fixed texts; this bounds them for any caller.
const MOST_REASONS: usize = 32;

#[derive(Debug)]
pub(super) struct Series {
    edge: Edge,
    protocol: String,
    opener: String,
    tunnel: String,
    group: String,
    user: String,
    /// The labels in the text format: `protocol="http",opener=...`, escaped.
    pub(super) labels: String,
    /// Milliseconds from the start to the last request.
    pub(super) used_at: AtomicU64,
    requests: [[AtomicU64; STATUSES.len()]; OUTCOMES.len()],
    grpc: OnceLock<Box<[AtomicU64; GRPC_STATUSES.len() + 1]>>,
    failures: Mutex<Vec<(&'static str, u64)>>,
    pub(super) retries: AtomicU64,
    pub(super) received_bytes: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) duration: Histogram<{ BOUNDS.len() }>,
    pub(super) first_byte: Histogram<FIRST_BYTE_BOUNDS>,
}

fn counters<const N: usize>() -> [AtomicU64; N] {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl Series {
    pub(super) fn new(key: Key<'_>) -> Self {
        let mut labels = String::new();
        let values = [key.protocol, key.opener, key.tunnel, key.group, key.user];
        write_labels(
            &mut labels,
            super::names::LABELS.iter().copied().zip(values),
        );
        Self {
            edge: key.edge(),
            protocol: key.protocol.to_owned(),
            opener: key.opener.to_owned(),
            tunnel: key.tunnel.to_owned(),
            group: key.group.to_owned(),
            user: key.user.to_owned(),
            labels,
            used_at: AtomicU64::new(0),
            requests: std::array::from_fn(|_| counters()),
            grpc: OnceLock::new(),
            failures: Mutex::default(),
            retries: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            duration: Histogram::default(),
            first_byte: Histogram::default(),
        }
    }

    pub(super) fn key(&self) -> Key<'_> {
        Key {
            egress: self.edge == Edge::Egress,
            protocol: &self.protocol,
            opener: &self.opener,
            tunnel: &self.tunnel,
            group: &self.group,
            user: &self.user,
        }
    }

    pub(super) fn count(&self, record: &Record<'_>) {
        let outcome = match record.reason {
            None => 0,
            Some(CANCELLED) => 2,
            Some(_) => 1,
        };
        let status = match record.status / 100 {
            class @ 1..=5 => usize::from(class),
            _ => 0,
        };
        self.requests[outcome][status].fetch_add(1, Ordering::Relaxed);
        if let Some(status) = record.grpc_status {
            let grpc = self.grpc.get_or_init(|| Box::new(counters()));
            grpc[usize::from(status).min(GRPC_STATUSES.len())].fetch_add(1, Ordering::Relaxed);
        }
        if let Some(reason) = record.reason {
            self.count_failure(reason);
        }
        self.retries
            .fetch_add(record.retries.into(), Ordering::Relaxed);
        self.received_bytes
            .fetch_add(record.received_bytes, Ordering::Relaxed);
        self.sent_bytes
            .fetch_add(record.sent_bytes, Ordering::Relaxed);
        let took = |until: std::time::Instant| until.saturating_duration_since(record.started);
        self.duration.observe(took(record.ended));
        if let Some(responded) = record.responded {
            self.first_byte.observe(took(responded));
        }
    }

    fn count_failure(&self, reason: &'static str) {
        let mut failures = self.failures.lock();
        if let Some((_, count)) = failures.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        } else if failures.len() < MOST_REASONS {
            failures.push((reason, 1));
        }
    }

    /// Outcome, status and their count; combinations that have not occurred are left out.
    pub(super) fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> + '_ {
        OUTCOMES.iter().enumerate().flat_map(move |(at, outcome)| {
            let counts = STATUSES.iter().zip(&self.requests[at]);
            counts.filter_map(move |(status, count)| {
                let count = count.load(Ordering::Relaxed);
                (count > 0).then_some((*outcome, *status, count))
            })
        })
    }

    /// Each status of gRPC, and its count.
    pub(super) fn grpc(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.grpc.get().into_iter().flat_map(|counts| counts.iter());
        let other = std::iter::once(&OTHER_GRPC_STATUS);
        let statuses = GRPC_STATUSES.iter().chain(other);
        statuses.zip(counts).filter_map(|(status, count)| {
            let count = count.load(Ordering::Relaxed);
            (count > 0).then_some((*status, count))
        })
    }

    /// Each reason, and its count.
    pub(super) fn failures(&self) -> Vec<(&'static str, u64)> {
        let mut failures = self.failures.lock().clone();
        failures.sort_unstable();
        failures
    }
}
