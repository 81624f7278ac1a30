//! When a set of keys is requested from its URL. Pure: the time is an argument.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

/// The time between the beginnings of two requests that unknown keys cause.
const COOLDOWN: Duration = Duration::from_secs(10);

/// For how long a key that the set did not have is not looked for again.
const ABSENT: Duration = Duration::from_secs(30);

/// The time between two requests that unknown keys of one address cause.
const PER_ADDRESS: Duration = Duration::from_secs(30);

/// The longest time between two attempts after an error.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// Entries of each table. A table that is full forgets what ends first.
const MOST_ENTRIES: usize = 1024;

/// When a set of keys is requested.
#[derive(Debug)]
pub(crate) struct FetchPolicy {
    refresh: Duration,
    /// When the next request begins.
    due: Instant,
    /// Unknown keys cause no request before.
    earliest: Instant,
    /// The unknown keys that the running request may find.
    running: Option<BTreeSet<Box<str>>>,
    /// Those that the next one may find.
    asked: BTreeSet<Box<str>>,
    failures: u32,
    /// Keys that the set did not have, and until when they are not looked for.
    absent: HashMap<Box<str>, Instant>,
    /// Addresses that caused a request, and when they may cause the next one.
    askers: HashMap<IpAddr, Instant>,
}

impl FetchPolicy {
    /// The first request is due now.
    pub(crate) fn new(refresh: Duration, now: Instant) -> Self {
        Self {
            refresh,
            due: now,
            earliest: now,
            running: None,
            asked: BTreeSet::new(),
            failures: 0,
            absent: HashMap::new(),
            askers: HashMap::new(),
        }
    }

    /// A token of a client at this address names a key that the set does not have, or names none and was signed by none of
    /// the set. Returns whether a request may find it: the running one or the next one.
    pub(crate) fn on_unknown(&mut self, key_id: Option<&str>, from: IpAddr, now: Instant) -> bool {
        let absent = key_id.and_then(|key_id| self.absent.get(key_id));
        if absent.is_some_and(|until| *until > now) {
            return false;
        }
        // The running request costs nothing more. It may have begun too early to find the key, and so does not make it absent.
        if self.running.is_some() {
            return true;
        }
        let soonest = self.earliest.max(now);
        // So does the next one, if it is due as soon as one can be.
        if self.due > soonest {
            let from = network(from);
            if self.askers.get(&from).is_some_and(|until| *until > now) {
                return false;
            }
            remember(&mut self.askers, from, now + PER_ADDRESS, now);
            self.due = soonest;
        }
        // Without a place in the table it is found as well, but is not remembered if it is absent.
        if let Some(key_id) = key_id
            && self.asked.len() < MOST_ENTRIES
        {
            self.asked.insert(key_id.into());
        }
        true
    }

    /// Whether a request begins now. The caller reports its end.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        if self.running.is_some() || now < self.due {
            return false;
        }
        self.earliest = now + COOLDOWN;
        self.running = Some(std::mem::take(&mut self.asked));
        true
    }

    /// The request has ended with a set of keys.
    pub(crate) fn on_keys(&mut self, has: impl Fn(&str) -> bool, now: Instant) {
        self.failures = 0;
        self.due = now + self.refresh;
        for key_id in self.running.take().unwrap_or_default() {
            if !has(&key_id) {
                remember(&mut self.absent, key_id, now + ABSENT, now);
            }
        }
    }

    /// The request has failed. The keys that were asked for may exist.
    pub(crate) fn on_failure(&mut self, now: Instant) {
        self.running = None;
        let retry = Duration::from_secs(1 << self.failures.min(6));
        self.failures = self.failures.saturating_add(1);
        self.due = now + retry.min(LONGEST_RETRY).min(self.refresh);
    }
}

/// Adds an entry to a table with ends, in which it may take the place of what has ended or ends first.
fn remember<K: Hash + Eq + Clone>(
    table: &mut HashMap<K, Instant>,
    key: K,
    until: Instant,
    now: Instant,
) {
    if table.len() >= MOST_ENTRIES && !table.contains_key(&key) {
        table.retain(|_, until| *until > now);
        if table.len() >= MOST_ENTRIES {
            let first = table.iter().min_by_key(|(_, until)| **until);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                table.remove(&first);
            }
        }
    }
    table.insert(key, until);
}

/// One customer has a whole /64 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFRESH: Duration = Duration::from_secs(600);

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// After the first request, which found the key `old`.
    fn started() -> (FetchPolicy, Instant) {
        let now = Instant::now();
        let mut policy = FetchPolicy::new(REFRESH, now);
        assert!(policy.begin(now));
        policy.on_keys(|id| id == "old", now);
        (policy, now)
    }

    #[test]
    fn the_first_request_begins_at_once_and_the_next_after_refresh() {
        let (mut policy, now) = started();
        assert!(!policy.begin(now + REFRESH - seconds(1)));
        assert!(policy.begin(now + REFRESH));
        assert!(!policy.begin(now + REFRESH), "one at a time");
    }

    #[test]
    fn an_unknown_key_waits_for_the_cooldown() {
        let (mut policy, now) = started();
        assert!(policy.on_unknown(Some("new"), ip(1), now + seconds(1)));
        assert!(!policy.begin(now + COOLDOWN - seconds(1)));
        assert!(policy.begin(now + COOLDOWN));
        policy.on_keys(|id| id == "new", now + COOLDOWN);
        // Long after the cooldown, it begins at once.
        let later = now + seconds(100);
        assert!(policy.on_unknown(Some("newer"), ip(2), later));
        assert!(policy.begin(later));
    }

    #[test]
    fn an_absent_key_is_not_looked_for_again_for_a_while() {
        let (mut policy, now) = started();
        assert!(policy.on_unknown(Some("none"), ip(1), now));
        let fetched = now + COOLDOWN;
        assert!(policy.begin(fetched));
        policy.on_keys(|_| false, fetched);
        assert!(!policy.on_unknown(Some("none"), ip(2), fetched + ABSENT - seconds(1)));
        assert!(policy.on_unknown(Some("none"), ip(2), fetched + ABSENT));
    }

    #[test]
    fn an_attacker_with_invented_keys_does_not_starve_a_rotation() {
        let (mut policy, mut now) = started();
        now += seconds(100);
        let mut requests = 0;
        for attempt in 0..600 {
            now += seconds(1);
            policy.on_unknown(Some(&format!("invented-{attempt}")), ip(1), now);
            if policy.begin(now) {
                requests += 1;
                policy.on_keys(|_| false, now);
            }
        }
        // One address causes one request in 30 s.
        assert!((19..=21).contains(&requests), "{requests}");
        // The client of another address is served by the next request, within the cooldown.
        assert!(policy.on_unknown(Some("new"), ip(2), now));
        assert!(policy.begin(now + COOLDOWN));
        policy.on_keys(|id| id == "new", now + COOLDOWN);
    }

    #[test]
    fn many_attackers_cause_one_request_in_the_cooldown() {
        let (mut policy, mut now) = started();
        now += seconds(100);
        let mut requests = 0;
        for attempt in 0..100_u8 {
            now += seconds(1);
            for last in 0..=255 {
                let address = IpAddr::from([10, attempt, 0, last]);
                policy.on_unknown(Some(&format!("{attempt}-{last}")), address, now);
            }
            if policy.begin(now) {
                requests += 1;
                policy.on_keys(|_| false, now);
            }
            assert!(policy.absent.len() <= MOST_ENTRIES);
            assert!(policy.askers.len() <= MOST_ENTRIES);
            assert!(policy.asked.len() <= MOST_ENTRIES);
        }
        assert!((9..=11).contains(&requests), "{requests}");
        // A client with a new key is served by the next request.
        assert!(policy.on_unknown(Some("new"), ip(9), now));
        assert!(policy.begin(now + COOLDOWN));
    }

    #[test]
    fn a_whole_network_of_ipv6_counts_as_one_address() {
        let (mut policy, now) = started();
        let now = now + seconds(100);
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(policy.on_unknown(Some("a"), address("2001:db8::1"), now));
        assert!(policy.begin(now));
        policy.on_keys(|_| false, now);
        let later = now + COOLDOWN + seconds(1);
        assert!(!policy.on_unknown(Some("b"), address("2001:db8::ffff:1"), later));
        assert!(policy.on_unknown(Some("b"), address("2001:db8:0:1::1"), later));
    }

    #[test]
    fn tokens_without_a_key_id_cause_requests_within_the_same_limits() {
        let (mut policy, now) = started();
        let now = now + seconds(100);
        assert!(policy.on_unknown(None, ip(1), now));
        assert!(policy.begin(now));
        policy.on_keys(|_| true, now);
        // The address waits, another one is served after the cooldown.
        assert!(!policy.on_unknown(None, ip(1), now + COOLDOWN));
        assert!(policy.on_unknown(None, ip(2), now + seconds(1)));
        assert!(!policy.begin(now + COOLDOWN - seconds(1)));
        assert!(policy.begin(now + COOLDOWN));
    }

    #[test]
    fn a_key_that_is_asked_for_during_a_request_is_looked_for_again() {
        let (mut policy, now) = started();
        let now = now + REFRESH;
        assert!(policy.begin(now));
        // The set may have been read before the key was added.
        assert!(policy.on_unknown(Some("new"), ip(1), now));
        policy.on_keys(|_| false, now + seconds(1));
        assert!(policy.on_unknown(Some("new"), ip(1), now + seconds(1)));
        assert!(policy.begin(now + COOLDOWN));
        policy.on_keys(|_| false, now + COOLDOWN);
        assert!(!policy.on_unknown(Some("new"), ip(1), now + COOLDOWN));
    }

    #[test]
    fn a_failed_request_is_repeated_and_marks_no_key_as_absent() {
        let now = Instant::now();
        let mut policy = FetchPolicy::new(REFRESH, now);
        let mut at = now;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert!(policy.on_unknown(Some("new"), ip(1), at));
            assert!(policy.begin(at));
            policy.on_failure(at);
            assert!(!policy.begin(at + seconds(wait) - Duration::from_millis(1)));
            at += seconds(wait);
        }
        assert!(policy.begin(at));
        policy.on_keys(|_| true, at);
        assert!(!policy.begin(at + REFRESH - seconds(1)));
    }
}
