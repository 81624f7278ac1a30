//! Upstreams: what the requests that clients open lead to, and all of this side that a client can reach (section 12 of
//! the protocol).
//!
//! A request names an upstream and nothing else of it chooses the address: not its host, not its path. It passes the
//! same permits as a visitor's, the upstream's policy chooses the server, and `egress` serves it on the thread of the
//! lane that it came on.

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
use parking_lot::Mutex;

use crate::{
    settings::{Limits, Timeouts, UpstreamSettings},
    upstream::{Upstream, UpstreamError},
};

/// The upstreams of this server, and what their requests need.
pub(crate) struct Upstreams {
    by_name: HashMap<TunnelName, Arc<Upstream>>,
    services: HashMap<Box<str>, ServiceConfig>,
    config: adit_egress::Config,
    observer: Arc<dyn Observer>,
    /// Connections stay on the thread that made them, so each data thread has its own.
    egresses: Mutex<HashMap<ThreadId, Arc<Egress>>>,
    /// Those of visitors: a request costs the same whoever opened it (P-12.2).
    permits: Arc<Gate>,
    permit_wait: Duration,
    draining: AtomicBool,
}

impl Upstreams {
    pub(crate) fn new(
        settings: &[UpstreamSettings],
        limits: &Limits,
        timeouts: &Timeouts,
        permits: Arc<Gate>,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let mut by_name = HashMap::new();
        let mut services = HashMap::new();
        for settings in settings {
            if by_name.contains_key(&settings.name) {
                return Err(UpstreamError::Wrong {
                    name: settings.name.clone(),
                    problem: "is defined twice",
                });
            }
            let upstream = Upstream::new(settings, &mut services)?;
            by_name.insert(settings.name.clone(), Arc::new(upstream));
        }
        Ok(Arc::new(Self {
            by_name,
            services,
            config: adit_egress::Config {
                dial_timeout: timeouts.dial,
                response_timeout: timeouts.service,
                idle_timeout: timeouts.idle,
                stall_timeout: timeouts.stall,
                tcp_stall_timeout: timeouts.session_stall,
                tcp_keepalive: (!timeouts.session_keepalive.is_zero())
                    .then_some(timeouts.session_keepalive),
                close_timeout: timeouts.session_close,
                early_response_timeout: timeouts.early_answer,
                // The permits are the bound.
                max_connections: limits.max_requests,
                turn_bytes: limits.turn_bytes,
                ..adit_egress::Config::default()
            },
            observer,
            egresses: Mutex::default(),
            permits,
            permit_wait: timeouts.permit_wait,
            draining: AtomicBool::new(false),
        }))
    }

    /// For tests that have none.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        let (limits, timeouts) = (Limits::default(), Timeouts::default());
        let observer = Arc::new(adit_trace::NoObserver);
        Self::new(&[], &limits, &timeouts, Gate::new(1, 0), observer).unwrap()
    }

    /// Whether clients can open nothing here.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The upstream of a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// The way out of this thread.
    pub(crate) fn egress(&self) -> Arc<Egress> {
        let mut egresses = self.egresses.lock();
        let egress = egresses.entry(thread::current().id()).or_insert_with(|| {
            let egress = Egress::with_observer(self.config.clone(), self.observer.clone());
            egress.set_services(self.services.clone());
            egress
        });
        egress.clone()
    }

    /// Permits of all requests of this side.
    pub(crate) const fn permits(&self) -> &Arc<Gate> {
        &self.permits
    }

    /// What is opened waits this long for a permit.
    pub(crate) const fn permit_wait(&self) -> Duration {
        self.permit_wait
    }

    /// Takes no more requests of clients; those that run finish.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.close_websockets();
    }

    /// Says to those that clients have opened that we go away: they would not finish by themselves.
    pub(crate) fn close_websockets(&self) {
        for egress in self.egresses.lock().values() {
            egress.close_websockets();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests that servers of upstreams work on.
    pub(crate) fn in_flight(&self) -> usize {
        self.by_name.values().map(|one| one.in_flight()).sum()
    }

    /// Connections to servers of upstreams.
    pub(crate) fn connections(&self) -> usize {
        let egresses = self.egresses.lock();
        egresses
            .values()
            .map(|egress| egress.stats().connections)
            .sum()
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<&Arc<Upstream>> {
        let mut all: Vec<_> = self.by_name.values().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }
}
