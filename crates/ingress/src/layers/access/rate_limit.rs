//! Rates of requests and connections.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    str::FromStr,
    time::Duration,
};

use adit_flow::{Arrivals, Rate};
use adit_net::HostNetwork;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    forward::denial::Denial,
    layers::{
        access::{opinion::Opinion, recent::Recent},
        layer_error::{LayerError, start_of},
    },
};

/// The longest period of a rate.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);
/// Tables that have a lock each, so that threads seldom wait for each other.
const SHARDS: usize = 16;

/// A rate of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateOf {
    count: NonZeroU32,
    period: Duration,
    burst: NonZeroU32,
}

impl RateOf {
    /// `count` in `period`, and `burst` at once; 0 is `count` at once.
    ///
    /// # Errors
    /// No events, or a period that is not from a second to a day.
    pub fn new(count: u32, period: Duration, burst: u32) -> Result<Self, LayerError> {
        let is_period = (Duration::from_secs(1)..=LONGEST_PERIOD).contains(&period);
        let count = NonZeroU32::new(count).filter(|_| is_period);
        let count = count.ok_or_else(|| LayerError::Rate {
            rate: format!("{} per {period:?}", count.map_or(0, NonZeroU32::get)),
        })?;
        let burst = NonZeroU32::new(burst).unwrap_or(count);
        Ok(Self {
            count,
            period,
            burst,
        })
    }

    /// The events in a period.
    pub const fn count(&self) -> u32 {
        self.count.get()
    }

    /// The period.
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// The events at once.
    pub const fn burst(&self) -> u32 {
        self.burst.get()
    }

    /// The same rate with another burst.
    #[must_use]
    pub const fn with_burst(self, burst: NonZeroU32) -> Self {
        Self { burst, ..self }
    }
}

impl FromStr for RateOf {
    type Err = LayerError;

    /// Reads `10/s`, `100/m` or `1000/h`.
    ///
    /// # Errors
    /// Any other text.
    fn from_str(text: &str) -> Result<Self, LayerError> {
        let invalid = || LayerError::Rate {
            rate: start_of(text.as_bytes()),
        };
        let (count, unit) = text.split_once('/').ok_or_else(invalid)?;
        let period = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err(invalid()),
        };
        let count = count.trim().parse().map_err(|_| invalid())?;
        Self::new(count, Duration::from_secs(period), 0).map_err(|_| invalid())
    }
}

impl fmt::Display for RateOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.count, self.period)
    }
}

/// Rates that visitors may not exceed (P-15.8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RateLimit {
    /// Requests of one address.
    pub requests: Option<RateOf>,
    /// Requests of all visitors that pass the list.
    pub total_requests: Option<RateOf>,
    /// New connections of one address: those of HTTP at their first request, those of TCP, and flows of UDP.
    pub connections: Option<RateOf>,
}

impl RateLimit {
    /// Checks that there is a rate.
    ///
    /// # Errors
    /// [`LayerError::NoRate`].
    pub const fn checked(self) -> Result<Self, LayerError> {
        match self {
            Self {
                requests: None,
                total_requests: None,
                connections: None,
            } => Err(LayerError::NoRate),
            limit => Ok(limit),
        }
    }
}

/// The rates of a layer, ready for use.
pub(super) struct Limits {
    /// Distinguishes the counts of this layer from those of others.
    layer: u64,
    requests: Option<Rate>,
    total_requests: Option<Rate>,
    connections: Option<Rate>,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Counted {
    Requests(HostNetwork),
    AllRequests,
    Connections(HostNetwork),
}

/// What a visitor begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    /// A request, which is the first one of its connection or not.
    Request { is_first: bool },
    /// A TCP connection or a UDP flow.
    Session,
}

impl Limits {
    pub(super) fn new(limit: &RateLimit, layer: u64) -> Self {
        let rate = |rate: &RateOf| Rate::new(rate.count, rate.period, rate.burst);
        Self {
            layer,
            requests: limit.requests.as_ref().map(rate),
            total_requests: limit.total_requests.as_ref().map(rate),
            connections: limit.connections.as_ref().map(rate),
        }
    }

    /// Counts what the visitor begins.
    pub(super) fn opinion(&self, rates: &Rates, visitor: HostNetwork, begins: Begins) -> Opinion {
        let count = |rate: &Option<Rate>, counted| match rate {
            Some(rate) => rates.try_admit((self.layer, counted), rate),
            None => Ok(()),
        };
        let (is_request, is_connection) = match begins {
            Begins::Request { is_first } => (true, is_first),
            Begins::Session => (false, true),
        };
        if is_connection && let Err(wait) = count(&self.connections, Counted::Connections(visitor))
        {
            let text = "too many new connections from this address";
            return Opinion::denied(Denial::above_rate(text, wait));
        }
        if is_request {
            if let Err(wait) = count(&self.requests, Counted::Requests(visitor)) {
                let text = "too many requests from this address";
                return Opinion::denied(Denial::above_rate(text, wait));
            }
            if let Err(wait) = count(&self.total_requests, Counted::AllRequests) {
                let text = "too many requests";
                return Opinion::denied(Denial::above_rate(text, wait).without_ban());
            }
        }
        Opinion::Pass
    }
}

type Key = (u64, Counted);

/// The counts of all layers of a process, by address.
#[derive(Debug)]
pub(super) struct Rates {
    origin: Instant,
    shards: Vec<Mutex<Recent<Key, Arrivals>>>,
    hasher: RandomState,
}

impl Rates {
    /// Counts of at most this many addresses; those that came last stay.
    pub(super) fn new(max_addresses: usize) -> Self {
        let shard = || Mutex::new(Recent::new(max_addresses / SHARDS));
        Self {
            origin: Instant::now(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hasher: RandomState::new(),
        }
    }

    fn try_admit(&self, key: Key, rate: &Rate) -> Result<(), Duration> {
        let now = self.origin.elapsed();
        #[allow(clippy::cast_possible_truncation)] // any bits of the hash
        let shard = self.hasher.hash_one(key) as usize % SHARDS;
        let Some(shard) = self.shards.get(shard) else {
            return Ok(());
        };
        let mut shard = shard.lock();
        if let Some(arrivals) = shard.get_mut(&key) {
            return rate.try_admit(arrivals, now);
        }
        let mut arrivals = Arrivals::default();
        let admitted = rate.try_admit(&mut arrivals, now);
        shard.insert(key, arrivals);
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> HostNetwork {
        text.parse().unwrap()
    }

    fn is_admitted(limits: &Limits, rates: &Rates, visitor: &str, begins: Begins) -> bool {
        matches!(
            limits.opinion(rates, network(visitor), begins),
            Opinion::Pass
        )
    }

    const REQUEST: Begins = Begins::Request { is_first: false };

    #[tokio::test(start_paused = true)]
    async fn addresses_and_layers_have_counts_of_their_own() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            requests: Some("2/s".parse().unwrap()),
            total_requests: Some("5/s".parse().unwrap()),
            ..RateLimit::default()
        };
        let (one, other) = (Limits::new(&limit, 1), Limits::new(&limit, 2));
        let admitted = |limits, visitor| is_admitted(limits, &rates, visitor, REQUEST);
        assert!(admitted(&one, "192.0.2.1") && admitted(&one, "192.0.2.1"));
        assert!(!admitted(&one, "192.0.2.1"));
        assert!(admitted(&other, "192.0.2.1"));
        // All addresses of a /64 are one.
        assert!(admitted(&one, "2001:db8::1") && admitted(&one, "2001:db8::2"));
        assert!(!admitted(&one, "2001:db8::3"));
        assert!(admitted(&one, "192.0.2.2"));
        // Five in all: what was rejected by its address does not count.
        assert!(!admitted(&one, "192.0.2.3"));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(admitted(&one, "192.0.2.1") && !admitted(&one, "192.0.2.1"));
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_counted_apart_from_requests() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            connections: Some("1/m".parse().unwrap()),
            ..RateLimit::default()
        };
        let limits = Limits::new(&limit, 1);
        let admitted = |visitor, begins| is_admitted(&limits, &rates, visitor, begins);
        assert!(admitted("192.0.2.1", Begins::Request { is_first: true }));
        assert!(admitted("192.0.2.1", REQUEST));
        assert!(!admitted("192.0.2.1", Begins::Request { is_first: true }));
        assert!(!admitted("192.0.2.1", Begins::Session));
        assert!(admitted("192.0.2.2", Begins::Session));
        assert!(!admitted("192.0.2.2", Begins::Session));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_takes_bounded_memory() {
        let rates = Rates::new(64);
        let limit = RateLimit {
            requests: Some("1/h".parse().unwrap()),
            ..RateLimit::default()
        };
        let limits = Limits::new(&limit, 1);
        for number in 0_u32..10_000 {
            let visitor = HostNetwork::of(number.to_be_bytes().into());
            assert!(matches!(
                limits.opinion(&rates, visitor, REQUEST),
                Opinion::Pass
            ));
        }
        let entries: usize = rates.shards.iter().map(|shard| shard.lock().len()).sum();
        assert!(entries <= 64, "{entries}");
    }

    #[test]
    fn rates_are_read_with_their_unit() {
        let rate = |text: &str| text.parse::<RateOf>();
        assert_eq!(rate("10/s"), RateOf::new(10, Duration::from_secs(1), 10));
        assert_eq!(
            rate("100 / m"),
            RateOf::new(100, Duration::from_secs(60), 100)
        );
        assert_eq!(rate("1/d").unwrap().period(), LONGEST_PERIOD);
        for bad in ["", "10", "10/x", "0/s", "-1/s", "1.5/s", "99999999999/s"] {
            let error = rate(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
        RateOf::new(1, Duration::from_millis(1), 1).unwrap_err();
        RateLimit::default().checked().unwrap_err();
    }
}
