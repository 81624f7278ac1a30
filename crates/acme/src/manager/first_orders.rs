//! How many names are ordered for the first time, by owner and by registered domain.
//!
//! A CA limits the certificates of a registered domain and the orders of an account, and knows nothing about owners. Without
//! bounds of its own, one owner with many hosts would use up what the others need. Renewals are not bounded: CAs exempt them.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    name::CertName,
    schedule::{Policy, Quota, Reason},
};

/// The first orders of a period.
pub(super) struct FirstOrders {
    of_owner: Table,
    of_domain: Table,
}

/// The names by what they have in common, with the time of their first order.
struct Table {
    quota: Quota,
    names: HashMap<Arc<str>, HashMap<CertName, SystemTime>>,
}

/// A first order that has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) until: SystemTime,
    pub(super) reason: Reason,
    /// How many names were ordered for the first time.
    pub(super) names: usize,
    pub(super) period: Duration,
}

impl FirstOrders {
    pub(super) fn new(policy: &Policy) -> Self {
        Self {
            of_owner: Table::new(policy.owner_names),
            of_domain: Table::new(policy.domain_names),
        }
    }

    /// Why a first order cannot begin now. Names without an owner are bounded by their domain only. A name that was ordered
    /// within the period may be tried again: its own schedule bounds that.
    pub(super) fn hold(&self, name: &CertName, owner: &str, now: SystemTime) -> Option<Held> {
        let of_owner = { !owner.is_empty() }
            .then(|| self.of_owner.hold(owner, name, Reason::OwnerNames, now))
            .flatten();
        let domain = name.registered_domain();
        let of_domain = self.of_domain.hold(domain, name, Reason::DomainNames, now);
        let held = [of_owner, of_domain].into_iter().flatten();
        held.max_by_key(|held| held.until)
    }

    /// A first order began at this time. Returns whether it is the first of the name within the period.
    pub(super) fn add(
        &mut self,
        name: &CertName,
        owner: &str,
        at: SystemTime,
        now: SystemTime,
    ) -> bool {
        self.of_domain.add(name.registered_domain(), name, at, now);
        !owner.is_empty() && self.of_owner.add(owner, name, at, now)
    }

    /// The CA has certainly not issued a certificate: the order does not count for the domain. It counts for the owner, so that
    /// hosts that fail do not use up the orders of the account.
    pub(super) fn on_not_issued(&mut self, name: &CertName) {
        self.of_domain.remove(name.registered_domain(), name);
    }
}

impl Table {
    fn new(quota: Quota) -> Self {
        Self {
            quota,
            names: HashMap::new(),
        }
    }

    fn hold(&self, key: &str, name: &CertName, reason: Reason, now: SystemTime) -> Option<Held> {
        let Quota { most, period } = self.quota;
        let names = self.names.get(key);
        let mut times: Vec<_> = { names.into_iter().flatten() }
            .filter(|(_, at)| is_within(**at, period, now))
            .collect();
        if times.len() < most || times.iter().any(|(known, _)| *known == name) {
            return None;
        }
        times.sort_unstable_by_key(|(_, at)| **at);
        let oldest = times.len().checked_sub(most).and_then(|at| times.get(at));
        Some(Held {
            until: oldest.map_or(now, |(_, at)| **at) + period,
            reason,
            names: times.len(),
            period,
        })
    }

    fn add(&mut self, key: &str, name: &CertName, at: SystemTime, now: SystemTime) -> bool {
        let period = self.quota.period;
        // All of them: owners and domains that are gone leave nothing behind.
        self.names.retain(|_, names| {
            names.retain(|_, at| is_within(*at, period, now));
            !names.is_empty()
        });
        if !is_within(at, period, now) {
            return false;
        }
        let names = self.names.entry(key.into()).or_default();
        if names.contains_key(name) {
            return false;
        }
        names.insert(name.clone(), at);
        true
    }

    fn remove(&mut self, key: &str, name: &CertName) {
        if let Some(names) = self.names.get_mut(key) {
            names.remove(name);
        }
    }
}

/// Whether a time is within a period that ends now. One in the future was recorded by a wrong clock.
fn is_within(at: SystemTime, period: Duration, now: SystemTime) -> bool {
    at + period > now && at <= now + period
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn name(text: &str) -> CertName {
        CertName::parse(text).unwrap()
    }

    fn table() -> FirstOrders {
        FirstOrders::new(&Policy {
            owner_names: Quota {
                most: 2,
                period: 10 * HOUR,
            },
            domain_names: Quota {
                most: 3,
                period: 10 * HOUR,
            },
            ..Policy::default()
        })
    }

    #[test]
    fn an_owner_has_so_many_first_orders_in_a_period() {
        let mut table = table();
        let now = UNIX_EPOCH + 1_000_000 * HOUR;
        assert!(table.add(&name("a.one.example"), "ann", now, now));
        assert!(table.add(&name("a.two.example"), "ann", now + HOUR, now + HOUR));
        assert!(!table.add(&name("a.two.example"), "ann", now + HOUR, now + HOUR));
        let third = name("a.three.example");
        let held = table.hold(&third, "ann", now + HOUR).unwrap();
        assert_eq!(held.reason, Reason::OwnerNames);
        assert_eq!((held.until, held.names), (now + 10 * HOUR, 2));
        assert_eq!(table.hold(&third, "bob", now + HOUR), None);
        assert_eq!(table.hold(&third, "", now + HOUR), None);
        let again = table.hold(&name("a.one.example"), "ann", now + HOUR);
        assert_eq!(again, None, "another try of a name is not a new name");
        assert_eq!(table.hold(&third, "ann", now + 10 * HOUR), None);
    }

    #[test]
    fn a_domain_has_so_many_first_orders_whoever_owns_them() {
        let mut table = table();
        let now = UNIX_EPOCH + 1_000_000 * HOUR;
        for (host, owner) in [("a", "ann"), ("b", "bob"), ("c", "")] {
            table.add(&name(&format!("{host}.example.com")), owner, now, now);
        }
        let fourth = name("*.d.example.com");
        let held = table.hold(&fourth, "eve", now).unwrap();
        assert_eq!(held.reason, Reason::DomainNames);
        assert_eq!(table.hold(&name("d.example.org"), "eve", now), None);
        table.on_not_issued(&name("a.example.com"));
        assert_eq!(table.hold(&fourth, "eve", now), None);
    }

    #[test]
    fn owners_that_are_gone_leave_nothing_behind() {
        let mut table = table();
        let now = UNIX_EPOCH + 1_000_000 * HOUR;
        for number in 0..100_u32 {
            let name = name(&format!("a.x{number}.example"));
            let now = now + number * HOUR;
            table.add(&name, &format!("user-{number}"), now, now);
        }
        assert!(table.of_owner.names.len() <= 10);
        assert!(table.of_domain.names.len() <= 10);
    }
}
