//! Rates of requests and connections.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc, time::Duration};

use adit_flow::{Arrivals, Rate};
use adit_net::HostNetwork;
use tokio::time::Instant;

use crate::{
    forward::{counted_by::CountedBy, denial::Denial},
    layers::{
        access::{
            opinion::Opinion,
            shares::{Shares, Table, TableId},
        },
        layer_error::{LayerError, start_of},
    },
};

/// The longest period of a rate.
const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// New connections of one address, those of HTTP at their first request that passes the layer; and, apart from them, new
    /// flows of UDP.
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
    /// Distinguishes this layer from others, for connections that it has counted.
    layer: u64,
    table: Arc<RateTable>,
    requests: Option<Rate>,
    total_requests: Option<Rate>,
    connections: Option<Rate>,
}

/// The counts of one layer.
type RateTable = Table<Counted, Arrivals>;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    Requests(HostNetwork),
    AllRequests,
    Connections(HostNetwork),
    /// Apart from connections: the source of a datagram can be forged, and must not use up the rate of its owner.
    Flows(HostNetwork),
}

/// What a visitor begins.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begins<'b> {
    /// A request. Its connection is counted by each layer once.
    Request(&'b CountedBy),
    /// A TCP connection.
    Connection,
    /// A UDP flow.
    Flow,
}

impl Limits {
    pub(super) fn new(limit: &RateLimit, id: TableId, place: &Arc<str>, rates: &Rates) -> Self {
        let rate = |rate: &RateOf| Rate::new(rate.count, rate.period, rate.burst);
        let [a, b, c, d, e, f, g, h, ..] = id;
        Self {
            layer: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
            table: rates.shares.table(id, place),
            requests: limit.requests.as_ref().map(rate),
            total_requests: limit.total_requests.as_ref().map(rate),
            connections: limit.connections.as_ref().map(rate),
        }
    }

    /// Counts what the visitor begins.
    pub(super) fn opinion(
        &self,
        rates: &Rates,
        visitor: HostNetwork,
        begins: Begins<'_>,
    ) -> Opinion {
        let connection = Counted::Connections(visitor);
        let counted = match begins {
            Begins::Request(counted_by) => {
                let count = |is_new: bool| {
                    let connection = is_new.then_some(connection);
                    self.count(rates, connection, Some(Counted::Requests(visitor)))
                };
                // A connection is marked only where its number is limited.
                match self.connections {
                    Some(_) => counted_by.once(self.layer, count),
                    None => count(false),
                }
            }
            Begins::Connection => self.count(rates, Some(connection), None),
            Begins::Flow => self.count(rates, Some(Counted::Flows(visitor)), None),
        };
        match counted {
            Ok(()) => Opinion::Pass,
            Err((above, wait)) => Opinion::denied(above.denial(wait)),
        }
    }

    /// Counts a connection and a request, or neither of them if a rate is exceeded.
    fn count(
        &self,
        rates: &Rates,
        connection: Option<Counted>,
        request: Option<Counted>,
    ) -> Result<(), (Above, Duration)> {
        let now = rates.origin.elapsed();
        let all = request.map(|_| Counted::AllRequests);
        let limited = [
            (connection, self.connections, Above::Connections),
            (request, self.requests, Above::Requests),
            (all, self.total_requests, Above::AllRequests),
        ];
        let limited = limited.map(|(counted, rate, above)| Some((counted?, rate?, above)));
        rates.shares.change(&self.table, |entries| {
            let mut after = [None; 3];
            for (after, limited) in after.iter_mut().zip(limited) {
                let Some((counted, rate, above)) = limited else {
                    continue;
                };
                // A visitor that is rejected all the time is not forgotten either.
                let before = entries.get_mut(&counted).map(|arrivals| *arrivals);
                let admitted = rate.after(before.unwrap_or_default(), now);
                *after = Some((counted, admitted.map_err(|wait| (above, wait))?));
            }
            for (counted, arrivals) in after.into_iter().flatten() {
                match entries.get_mut(&counted) {
                    Some(known) => *known = arrivals,
                    None => entries.insert(counted, arrivals),
                }
            }
            Ok(())
        })
    }
}

/// The rate that is exceeded.
#[derive(Debug, Clone, Copy)]
enum Above {
    Connections,
    Requests,
    AllRequests,
}

impl Above {
    fn denial(self, wait: Duration) -> Denial {
        match self {
            // A client that keeps the connection would only be rejected again.
            Self::Connections => {
                Denial::above_rate("too many new connections from this address", wait).with_close()
            }
            Self::Requests => Denial::above_rate("too many requests from this address", wait),
            Self::AllRequests => Denial::above_rate("too many requests", wait).without_ban(),
        }
    }
}

/// The counts of all layers of a process, by address.
#[derive(Debug)]
pub(super) struct Rates {
    origin: Instant,
    shares: Shares<Counted, Arrivals>,
}

impl Rates {
    /// Counts of at most this many addresses; those that came last stay.
    pub(super) fn new(max_addresses: usize) -> Self {
        Self {
            origin: Instant::now(),
            shares: Shares::new(max_addresses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> HostNetwork {
        text.parse().unwrap()
    }

    fn limits(rates: &Rates, limit: &RateLimit, number: u8) -> Limits {
        Limits::new(limit, [number; 32], &"test".into(), rates)
    }

    fn is_admitted(limits: &Limits, rates: &Rates, visitor: &str, begins: Begins<'_>) -> bool {
        matches!(
            limits.opinion(rates, network(visitor), begins),
            Opinion::Pass
        )
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_and_layers_have_counts_of_their_own() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            requests: Some("2/s".parse().unwrap()),
            total_requests: Some("5/s".parse().unwrap()),
            ..RateLimit::default()
        };
        let (one, other) = (limits(&rates, &limit, 1), limits(&rates, &limit, 2));
        let connection = CountedBy::default();
        let admitted =
            |limits, visitor| is_admitted(limits, &rates, visitor, Begins::Request(&connection));
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
    async fn p_15_8_a_rejected_request_counts_nowhere() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            requests: Some("2/h".parse().unwrap()),
            total_requests: Some("3/h".parse().unwrap()),
            connections: Some("2/h".parse().unwrap()),
        };
        let limits = limits(&rates, &limit, 1);
        let new = |visitor| {
            is_admitted(
                &limits,
                &rates,
                visitor,
                Begins::Request(&CountedBy::default()),
            )
        };
        assert!(new("192.0.2.1") && new("192.0.2.1") && !new("192.0.2.1"));
        // The rejected one has not taken the last of all requests, nor do these take from their own address.
        assert!(new("192.0.2.2"));
        assert!(!new("192.0.2.3") && !new("192.0.2.3") && !new("192.0.2.3"));
        tokio::time::advance(Duration::from_secs(20 * 60)).await;
        assert!(new("192.0.2.3"));
    }

    #[tokio::test(start_paused = true)]
    async fn p_15_8_a_connection_counts_once_at_each_layer() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            connections: Some("1/m".parse().unwrap()),
            ..RateLimit::default()
        };
        let (one, other) = (limits(&rates, &limit, 1), limits(&rates, &limit, 2));
        let request = |limits: &Limits, connection: &CountedBy| {
            is_admitted(limits, &rates, "192.0.2.1", Begins::Request(connection))
        };
        let (first, second) = (CountedBy::default(), CountedBy::default());
        assert!(request(&one, &first) && request(&one, &first));
        // Every request of the second one is rejected, not the first alone.
        assert!(!request(&one, &second) && !request(&one, &second));
        // The layer of another tunnel counts both, although these are not their first requests.
        assert!(request(&other, &first) && request(&other, &first));
        assert!(!request(&other, &second));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(request(&one, &second) && request(&one, &second));
    }

    #[tokio::test(start_paused = true)]
    async fn p_15_8_flows_take_nothing_from_connections() {
        let rates = Rates::new(1_000);
        let limit = RateLimit {
            connections: Some("1/m".parse().unwrap()),
            ..RateLimit::default()
        };
        let limits = limits(&rates, &limit, 1);
        let admitted = |begins| is_admitted(&limits, &rates, "192.0.2.1", begins);
        assert!(admitted(Begins::Flow) && !admitted(Begins::Flow));
        assert!(admitted(Begins::Connection) && !admitted(Begins::Connection));
        assert!(!admitted(Begins::Request(&CountedBy::default())));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_addresses_takes_bounded_memory() {
        let rates = Rates::new(64);
        let limit = RateLimit {
            requests: Some("1/h".parse().unwrap()),
            ..RateLimit::default()
        };
        let limits = limits(&rates, &limit, 1);
        for number in 0_u32..10_000 {
            let visitor = HostNetwork::of(number.to_be_bytes().into());
            let begins = Begins::Request(&CountedBy::default());
            assert!(matches!(
                limits.opinion(&rates, visitor, begins),
                Opinion::Pass
            ));
        }
        assert!(rates.shares.len() <= 64, "{}", rates.shares.len());
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
