//! The flows of one port, by visitor, and which of them has been silent longest.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

/// A flow with the time of its last datagram.
pub(super) trait LastSeen {
    /// The time of the last datagram in either direction, since the port was opened. Never decreases.
    fn last_seen(&self) -> Duration;
}

/// The flows of one port.
///
/// The order is updated lazily: each flow is in it at the time of its last datagram or before, and is moved to its current
/// place when it reaches the front.
///
/// # Complexity
/// Finding a flow is one lookup in a hash table. Each move of a flow in the order takes logarithmic time, amortized over
/// the datagrams since its last move.
#[derive(Debug)]
pub(super) struct Flows<F> {
    by_visitor: HashMap<SocketAddr, Listed<F>>,
    order: BTreeSet<(Duration, SocketAddr)>,
}

#[derive(Debug)]
struct Listed<F> {
    flow: F,
    /// The time at which the flow is listed in the order.
    at: Duration,
}

impl<F: LastSeen> Flows<F> {
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

    /// Adds a flow, and replaces the visitor's former one.
    pub(super) fn insert(&mut self, visitor: SocketAddr, flow: F) {
        self.remove(&visitor);
        let at = flow.last_seen();
        self.order.insert((at, visitor));
        self.by_visitor.insert(visitor, Listed { flow, at });
    }

    pub(super) fn remove(&mut self, visitor: &SocketAddr) -> Option<F> {
        let listed = self.by_visitor.remove(visitor)?;
        self.order.remove(&(listed.at, *visitor));
        Some(listed.flow)
    }

    /// A time before which no flow has its last datagram.
    pub(super) fn earliest(&self) -> Option<Duration> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Removes the flow that has been silent longest, if its last datagram was not after `until`.
    pub(super) fn take_silent(&mut self, until: Duration) -> Option<F> {
        loop {
            let (at, visitor) = *self.order.first().filter(|(at, _)| *at <= until)?;
            let listed = self.by_visitor.get_mut(&visitor)?;
            let last_seen = listed.flow.last_seen();
            if last_seen <= at {
                return self.remove(&visitor);
            }
            listed.at = last_seen;
            self.order.pop_first();
            self.order.insert((last_seen, visitor));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[derive(Debug, Clone)]
    struct TestFlow(u16, Rc<Cell<u64>>);

    impl LastSeen for TestFlow {
        fn last_seen(&self) -> Duration {
            Duration::from_secs(self.1.get())
        }
    }

    fn visitor(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    /// P-11.2, P-11.4: compares with a list that is searched from end to end, with a fixed random sequence.
    #[test]
    fn flow_silent_longest_is_the_one_a_plain_search_finds() {
        let mut dice = 1_u64;
        let mut roll = |bound: u64| {
            dice = dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % bound
        };
        let mut flows = Flows::new();
        let mut plain: Vec<TestFlow> = Vec::new();
        for now in 0..20_000_u64 {
            let port = u16::try_from(roll(40)).unwrap();
            match roll(10) {
                0..=1 => {
                    let flow = TestFlow(port, Rc::new(Cell::new(now)));
                    flows.insert(visitor(port), flow.clone());
                    plain.retain(|flow| flow.0 != port);
                    plain.push(flow);
                }
                2 => {
                    let removed = flows.remove(&visitor(port)).map(|flow| flow.0);
                    let at = plain.iter().position(|flow| flow.0 == port);
                    assert_eq!(removed, at.map(|at| plain.remove(at).0));
                }
                3 => {
                    let until = now.saturating_sub(roll(60));
                    let expected = plain
                        .iter()
                        .filter(|flow| flow.1.get() <= until)
                        .min_by_key(|flow| flow.1.get())
                        .map(|flow| flow.0);
                    let taken = flows.take_silent(Duration::from_secs(until));
                    assert_eq!(taken.map(|flow| flow.0), expected);
                    plain.retain(|flow| Some(flow.0) != expected);
                }
                _ => {
                    // For a datagram of an existing flow, the order is not updated.
                    let found = flows.find(&visitor(port)).map(|flow| flow.0);
                    let flow = plain.iter().find(|flow| flow.0 == port);
                    assert_eq!(found, flow.map(|flow| flow.0));
                    if let Some(flow) = flow {
                        flow.1.set(now);
                    }
                }
            }
            assert_eq!((flows.len(), flows.order.len()), (plain.len(), plain.len()));
            let first = plain.iter().map(LastSeen::last_seen).min();
            assert!(flows.earliest() <= first && flows.earliest().is_some() == first.is_some());
        }
    }
}
