//! Counts the visitors that access layers did not admit.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

/// Counts connections of proxies without a valid header of the PROXY protocol, which are denied before any layer.
pub(super) const PROXY_PROTOCOL: &str = "proxy_protocol";

/// The kinds of access layers, in the order of the counters.
pub(super) const KINDS: [&str; 7] = [
    "ip",
    "basic_auth",
    "header_token",
    "rate_limit",
    "ban",
    "forward_auth",
    PROXY_PROTOCOL,
];

/// How many requests and sessions were denied, by kind of layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AccessCounts {
    /// Those that were not admitted.
    pub denied: BTreeMap<&'static str, u64>,
    /// Those that a layer with `enforce: false` would not have admitted.
    pub would_deny: BTreeMap<&'static str, u64>,
}

/// The counters behind [`AccessCounts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    denied: [AtomicU64; KINDS.len()],
    would_deny: [AtomicU64; KINDS.len()],
}

impl Counters {
    /// Counts a denial of a layer of this kind.
    pub(super) fn count(&self, kind: &str, is_enforced: bool) {
        let counters = if is_enforced {
            &self.denied
        } else {
            &self.would_deny
        };
        let mut named = KINDS.iter().zip(counters);
        if let Some((_, counter)) = named.find(|(name, _)| **name == kind) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> AccessCounts {
        let read = |counters: &[AtomicU64]| {
            let counts = counters.iter().map(|count| count.load(Ordering::Relaxed));
            KINDS.into_iter().zip(counts).collect()
        };
        AccessCounts {
            denied: read(&self.denied),
            would_deny: read(&self.would_deny),
        }
    }
}
