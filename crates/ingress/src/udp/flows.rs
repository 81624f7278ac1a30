//! The flows of one port, by visitor, and which of them has been silent longest.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

/// Tells when a datagram last went either way.
pub(super) trait Heard {
    /// Since the port was opened. Never goes back.
    fn heard(&self) -> Duration;
}

/// The flows of one port.
///
/// The order is looked after only when it is asked for: a flow stands in it at a time at or before its last datagram,
/// and whoever comes to the front is put where it belongs by now.
///
/// # Complexity
/// Finding a flow is one look-up in a hash table. What the order costs, logarithmic time for each flow that is moved, is
/// paid for by the datagrams since it was last moved.
#[derive(Debug)]
pub(super) struct Flows<F> {
    by_visitor: HashMap<SocketAddr, Listed<F>>,
    order: BTreeSet<(Duration, SocketAddr)>,
}

#[derive(Debug)]
struct Listed<F> {
    flow: F,
    /// Where it stands in the order.
    at: Duration,
}

impl<F: Heard> Flows<F> {
    pub(super) fn new() -> Self {
        Self {
            by_visitor: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_visitor.len()
    }

    pub(super) fn find(&self, visitor: &SocketAddr) -> Option<&F> {
        self.by_visitor.get(visitor).map(|listed| &listed.flow)
    }

    /// Adds a flow, in the place of the visitor's former one.
    pub(super) fn insert(&mut self, visitor: SocketAddr, flow: F) {
        self.remove(&visitor);
        let at = flow.heard();
        self.order.insert((at, visitor));
        self.by_visitor.insert(visitor, Listed { flow, at });
    }

    pub(super) fn remove(&mut self, visitor: &SocketAddr) -> Option<F> {
        let listed = self.by_visitor.remove(visitor)?;
        self.order.remove(&(listed.at, *visitor));
        Some(listed.flow)
    }

    /// Before this time none falls silent that has not been heard of until then.
    pub(super) fn earliest(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out the one that has been silent longest, if it has not been heard of after `until`.
    pub(super) fn take_silent(&mut self, until: Duration) -> Option<F> {
        loop {
            let (at, visitor) = *self.order.first().filter(|(at, _)| *at <= until)?;
            let listed = self.by_visitor.get_mut(&visitor)?;
            let heard = listed.flow.heard();
            if heard <= at {
                return self.remove(&visitor);
            }
            listed.at = heard;
            self.order.pop_first();
            self.order.insert((heard, visitor));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[derive(Debug, Clone)]
    struct Told(u16, Rc<Cell<u64>>);

    impl Heard for Told {
        fn heard(&self) -> Duration {
            Duration::from_secs(self.1.get())
        }
    }

    fn visitor(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// P-11.2, P-11.4: against a list that is searched from end to end, with dice that fall the same way each time.
    #[test]
    fn the_one_silent_longest_is_found_as_a_plain_search_finds_it() {
        let mut dice = 1_u64;
        let mut roll = |bound: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % bound
        };
        let mut flows = Flows::new();
        let mut plain: Vec<Told> = Vec::new();
        for now in 0..20_000_u64 {
            let port = u16::try_from(roll(40)).unwrap();
            match roll(10) {
                0..=1 => {
                    let flow = Told(port, Rc::new(Cell::new(now)));
                    flows.insert(visitor(port), flow.clone());
                    plain.retain(|told| told.0 != port);
                    plain.push(flow);
                }
                2 => {
                    let removed = flows.remove(&visitor(port)).map(|told| told.0);
                    let at = plain.iter().position(|told| told.0 == port);
                    assert_eq!(removed, at.map(|at| plain.remove(at).0));
                }
                3 => {
                    let until = now.saturating_sub(roll(60));
                    let expected = plain
                        .iter()
                        .filter(|told| told.1.get() <= until)
                        .min_by_key(|told| told.1.get())
                        .map(|told| told.0);
                    let taken = flows.take_silent(Duration::from_secs(until));
                    assert_eq!(taken.map(|told| told.0), expected);
                    plain.retain(|told| Some(told.0) != expected);
                }
                _ => {
                    // Heard of: nobody tells the order.
                    let found = flows.find(&visitor(port)).map(|told| told.0);
                    let told = plain.iter().find(|told| told.0 == port);
                    assert_eq!(found, told.map(|told| told.0));
                    if let Some(told) = told {
                        told.1.set(now);
                    }
                }
            }
            assert_eq!((flows.len(), flows.order.len()), (plain.len(), plain.len()));
            let first = plain.iter().map(Heard::heard).min();
            assert!(flows.earliest() <= first && flows.earliest().is_some() == first.is_some());
        }
    }
}
