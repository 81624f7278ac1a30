//! Upstreams: the destinations of the requests that clients open, and all that a client can reach on this side (section 12
//! of the protocol).
//!
//! A request names an upstream; neither its host nor its path affects the address. It takes the same permits as a
//! visitor's request, the policy of the upstream chooses the server, and `egress` serves the request on the thread of
//! the lane that opened it.
//!
//! The upstreams can be replaced while the server runs ([`Upstreams::replace`]). An upstream that is the same keeps its
//! state; a server that stays keeps its requests in flight and its connections; a server that is removed receives no new
//! requests, and its configuration is dropped when its last request has ended.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use adit_auth::TunnelName;
use adit_egress::{Egress, ServiceConfig};
use adit_flow::Gate;
use adit_trace::Observer;
use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::{
    settings::{Limits, Timeouts, UpstreamSettings},
    upstream::{Upstream, UpstreamError},
};

/// The upstreams of one configuration.
pub(crate) struct UpstreamSet {
    by_name: HashMap<TunnelName, Arc<Upstream>>,
}

/// The upstreams of this server, and the resources that their requests need.
pub(crate) struct Upstreams {
    current: ArcSwap<UpstreamSet>,
    /// Replaced or removed upstreams that requests still use.
    retired: Mutex<Vec<Arc<Upstream>>>,
    egress_config: Mutex<adit_egress::Config>,
    /// The wait, which is read when a request begins to wait.
    permit_wait: Mutex<Duration>,
    observer: Arc<dyn Observer>,
    /// Connections stay on the thread that created them, so each data thread has its own.
    egresses: Mutex<HashMap<ThreadId, Arc<Egress>>>,
    /// The permits of visitors: a request costs the same whichever side opened it (P-12.2).
    permits: Arc<Gate>,
    draining: AtomicBool,
}

impl UpstreamSet {
    /// The upstream of a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }
}

impl Upstreams {
    /// The upstreams of these settings.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub(crate) fn new(
        settings: &[UpstreamSettings],
        limits: &Limits,
        timeouts: &Timeouts,
        permits: Arc<Gate>,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let none = UpstreamSet {
            by_name: HashMap::new(),
        };
        let upstreams = Self {
            current: ArcSwap::from_pointee(none),
            retired: Mutex::default(),
            egress_config: Mutex::new(egress_config(limits, timeouts)),
            permit_wait: Mutex::new(timeouts.permit_wait),
            observer,
            egresses: Mutex::default(),
            permits,
            draining: AtomicBool::new(false),
        };
        let first = upstreams.prepare(settings)?;
        upstreams.replace(first);
        Ok(Arc::new(upstreams))
    }

    /// No upstreams, for tests.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        let (limits, timeouts) = (Limits::default(), Timeouts::default());
        let observer = Arc::new(adit_trace::NoObserver);
        Self::new(&[], &limits, &timeouts, Gate::new(1, 0), observer).unwrap()
    }

    /// The upstreams for [`Upstreams::replace`]. Changes nothing.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub(crate) fn prepare(
        &self,
        settings: &[UpstreamSettings],
    ) -> Result<Arc<UpstreamSet>, UpstreamError> {
        let current = self.current.load();
        let mut by_name = HashMap::new();
        for settings in settings {
            if by_name.contains_key(&settings.name) {
                return Err(UpstreamError::Wrong {
                    name: settings.name.clone(),
                    problem: "is defined twice",
                });
            }
            let upstream = match current.by_name.get(&settings.name) {
                Some(same) if same.settings() == settings => same.clone(),
                previous => Arc::new(Upstream::new(
                    settings,
                    previous.map(|previous| &**previous),
                )?),
            };
            by_name.insert(settings.name.clone(), upstream);
        }
        Ok(Arc::new(UpstreamSet { by_name }))
    }

    /// Replaces the current upstreams, and returns them. Requests that have chosen one of their servers, or are about
    /// to choose one, are served.
    pub(crate) fn replace(&self, next: Arc<UpstreamSet>) -> Arc<UpstreamSet> {
        let egresses = self.egresses.lock();
        let previous = self.current.load_full();
        let replaced = previous.by_name.values().filter(|upstream| {
            let same = next.find(upstream.name().as_str());
            !same.is_some_and(|same| Arc::ptr_eq(same, upstream))
        });
        {
            let mut retired = self.retired.lock();
            retired.extend(replaced.cloned());
            // A removed upstream may be added again.
            retired.retain(|upstream| {
                let current = next.find(upstream.name().as_str());
                !current.is_some_and(|current| Arc::ptr_eq(current, upstream))
            });
        }
        // The services of all servers are set first, then new requests can choose among them.
        let services = self.services(&next);
        for egress in egresses.values() {
            egress.set_services(services.clone());
        }
        self.current.store(next);
        previous
    }

    /// Drops removed servers without requests. Called from time to time.
    pub(crate) fn forget_retired(&self) {
        let egresses = self.egresses.lock();
        {
            let mut retired = self.retired.lock();
            let before = retired.len();
            let current = self.current.load();
            retired.retain(|upstream| {
                let successor = current.find(upstream.name().as_str());
                // If this is the only handle, no request is about to choose one of its servers.
                Arc::strong_count(upstream) > 1
                    || upstream.in_flight_beside(successor.map(|successor| &**successor)) > 0
            });
            if retired.len() == before {
                return;
            }
        }
        let services = self.services(&self.current.load());
        for egress in egresses.values() {
            egress.set_services(services.clone());
        }
    }

    /// The services of all servers, including those of retired upstreams.
    fn services(&self, current: &UpstreamSet) -> HashMap<Box<str>, ServiceConfig> {
        let retired = self.retired.lock();
        let all = retired.iter().chain(current.by_name.values());
        all.flat_map(|upstream| upstream.services()).collect()
    }

    /// Changes the bounds and times of new requests. Running requests keep theirs, and their connections. If bounds or
    /// times of connections have changed, new requests use new connections.
    pub(crate) fn follow(&self, limits: &Limits, timeouts: &Timeouts) {
        *self.permit_wait.lock() = timeouts.permit_wait;
        let config = egress_config(limits, timeouts);
        let egresses = self.egresses.lock();
        *self.egress_config.lock() = config.clone();
        for egress in egresses.values() {
            egress.set_config(config.clone());
        }
    }

    /// Whether there are no upstreams.
    pub(crate) fn is_empty(&self) -> bool {
        self.current.load().by_name.is_empty()
    }

    /// The current upstreams.
    pub(crate) fn current(&self) -> Arc<UpstreamSet> {
        self.current.load_full()
    }

    /// The upstream with this name.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Upstream>> {
        self.current.load().find(name).cloned()
    }

    /// A removed upstream, for a request that was routed to it before.
    pub(crate) fn find_retired(&self, name: &str) -> Option<Arc<Upstream>> {
        let retired = self.retired.lock();
        let mut newest = retired.iter().rev();
        newest
            .find(|upstream| upstream.name().as_str() == name)
            .cloned()
    }

    /// The egress of this thread.
    pub(crate) fn egress(&self) -> Arc<Egress> {
        let mut egresses = self.egresses.lock();
        let egress = egresses.entry(thread::current().id()).or_insert_with(|| {
            let config = self.egress_config.lock().clone();
            let egress = Egress::with_observer(config, self.observer.clone());
            egress.set_services(self.services(&self.current.load()));
            egress
        });
        egress.clone()
    }

    /// The permits of all requests of this side.
    pub(crate) const fn permits(&self) -> &Arc<Gate> {
        &self.permits
    }

    /// The longest wait for a permit.
    pub(crate) fn permit_wait(&self) -> Duration {
        *self.permit_wait.lock()
    }

    /// Accepts no more requests of clients; running ones finish.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.close_websockets();
    }

    /// Sends a close frame on the WebSockets that clients have opened: they would not end by themselves.
    pub(crate) fn close_websockets(&self) {
        for egress in self.egresses.lock().values() {
            egress.close_websockets();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests in flight at servers of upstreams, including removed servers.
    pub(crate) fn in_flight(&self) -> usize {
        let current = self.current.load();
        let own: usize = current.by_name.values().map(|one| one.in_flight()).sum();
        let retired = self.retired.lock();
        let left = retired.iter().map(|upstream| {
            let successor = current.find(upstream.name().as_str());
            upstream.in_flight_beside(successor.map(|successor| &**successor))
        });
        own + left.sum::<usize>()
    }

    /// Connections to servers of upstreams.
    pub(crate) fn connections(&self) -> usize {
        let egresses = self.egresses.lock();
        egresses
            .values()
            .map(|egress| egress.stats().connections)
            .sum()
    }

    /// All upstreams, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Upstream>> {
        let mut all: Vec<_> = self.current.load().by_name.values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}

fn egress_config(limits: &Limits, timeouts: &Timeouts) -> adit_egress::Config {
    adit_egress::Config {
        // The number of connections is bounded by the permits.
        max_connections: limits.max_requests,
        turn_bytes: limits.turn_bytes,
        ..adit_egress::Config::with_timeouts(&timeouts.edge)
    }
}
