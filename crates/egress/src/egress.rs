//! The entry of this crate: receives the requests that the peer opens, and has the services, their connections and the
//! drain.

mod dispatch;
mod route;

use adit_net::HostPort;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use adit_codec::ResetCode;
use adit_link::{Dispatch, IncomingRequest};
use adit_trace::{NoObserver, Observer};
use arc_swap::ArcSwap;
use tokio::sync::watch;

use self::{
    dispatch::Incoming,
    route::{Connections, ConnectionsKey, Route},
};
use crate::{
    config::{Config, ServiceConfig},
    forward::{
        origin::{RequestOrigin, RequestOwner},
        resources::Resources,
        service::Service,
    },
    stats::Stats,
};

type Routes = HashMap<Box<str>, Route>;

/// Serves the requests that the peer opens. [`Dispatch::dispatch`] must be called within a tokio runtime: connections
/// stay on the runtime that opened them.
pub struct Egress {
    /// The resources with the settings for new requests.
    resources: ArcSwap<Resources>,
    /// The routes by tunnel name.
    routes: RwLock<Arc<Routes>>,
    /// The pools by address, so that tunnels to one service share its connections, and connections survive a change of
    /// settings.
    pools: Mutex<HashMap<ConnectionsKey, Connections>>,
    draining: AtomicBool,
    /// Incremented to close running WebSockets.
    going_away: watch::Sender<u64>,
}

impl Egress {
    /// An egress without services: every request is reset with `NO_TUNNEL`.
    pub fn new(config: Config) -> Arc<Self> {
        Self::with_observer(config, Arc::new(NoObserver))
    }

    /// Like [`Egress::new`]; `observer` receives the record of each request once, when it has ended, refused ones included.
    /// A record names the owner that [`Egress::dispatch_to`] was given.
    pub fn with_observer(config: Config, observer: Arc<dyn Observer>) -> Arc<Self> {
        Self::with_owner(config, observer, RequestOwner::default())
    }

    /// Like [`Egress::with_observer`], with one owner for all requests of [`Dispatch::dispatch`].
    pub fn with_owner(
        config: Config,
        observer: Arc<dyn Observer>,
        owner: RequestOwner,
    ) -> Arc<Self> {
        Arc::new(Self {
            resources: ArcSwap::from_pointee(Resources::new(config, observer, owner)),
            routes: RwLock::default(),
            pools: Mutex::default(),
            draining: AtomicBool::new(false),
            going_away: watch::Sender::new(0),
        })
    }
}

impl Dispatch for Egress {
    /// Serves a request by the service of the tunnel that the request names.
    fn dispatch(&self, opened: IncomingRequest) {
        let tunnel = opened.head.open().tunnel.clone();
        let origin = RequestOrigin {
            owner: self.resources.load().owner.clone(),
            waited_since: None,
        };
        self.dispatch_to(&tunnel, origin, opened);
    }
}

impl Egress {
    /// Serves a request by the service of this name, which may differ from the tunnel in the request: for callers that
    /// choose among several services.
    pub fn dispatch_to(&self, name: &str, origin: RequestOrigin, opened: IncomingRequest) {
        let resources = self.resources.load();
        let incoming = Incoming::new(&resources, origin, opened);
        if self.draining.load(Ordering::Relaxed) {
            return incoming.refuse("", ResetCode::Draining, "this side is draining");
        }
        let route = {
            let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
            routes.get(name).cloned()
        };
        let Some(route) = route else {
            let reason = format!("no service is configured for {name:?}");
            return incoming.refuse("", ResetCode::NoTunnel, &reason);
        };
        resources.counters.requests.fetch_add(1, Ordering::Relaxed);
        route.service.requests.fetch_add(1, Ordering::Relaxed);
        incoming.forward(name, route, &self.going_away);
    }

    /// Resets a request for which no service exists, and reports it as refused; if its opener does not wait for it any
    /// more, as cancelled.
    pub fn refuse(
        &self,
        origin: RequestOrigin,
        opened: IncomingRequest,
        code: ResetCode,
        reason: &str,
    ) {
        let resources = self.resources.load();
        Incoming::new(&resources, origin, opened).refuse("", code, reason);
    }

    /// Replaces all services at once, by tunnel name. Unchanged ones keep their counters. Running requests finish with
    /// the old services. Connections to addresses that are still served are kept; idle connections to other addresses
    /// are closed.
    // The settings are passed by value: this object owns them after the call.
    #[allow(clippy::needless_pass_by_value)]
    pub fn set_services(&self, services: HashMap<Box<str>, ServiceConfig>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = self.resources.load_full();
        let before = self
            .routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let mut kept = HashMap::new();
        let mut next = Routes::new();
        for (tunnel, config) in &services {
            let key = connections_key(config);
            let address = key.0.clone();
            let connections = kept
                .entry(key)
                .or_insert_with_key(|key| {
                    let new = || Connections::new(key, &resources);
                    pools.remove(key).unwrap_or_else(new)
                })
                .clone();
            let known = before.get(tunnel).map(|route| &route.service);
            let service = match known.filter(|known| known.config == *config) {
                Some(known) => known.clone(),
                None => {
                    let observer = resources.observer.clone();
                    Arc::new(Service::new(config, address, observer))
                }
            };
            let route = Route {
                service,
                connections,
            };
            next.insert(tunnel.clone(), route);
        }
        let retired = std::mem::replace(&mut *pools, kept);
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        drop(pools);
        retired.into_values().for_each(|pool| pool.retire());
    }

    /// Serves new requests with these bounds and times, on new connections. Running requests finish on their
    /// connections.
    pub fn set_config(&self, config: Config) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.resources.load_full();
        if before.config == config {
            return;
        }
        let resources = Arc::new(before.with_config(config));
        let renew = |key: &ConnectionsKey| Connections::new(key, &resources);
        let renewed: HashMap<_, _> = pools.keys().map(|key| (key.clone(), renew(key))).collect();
        let routes = self
            .routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let moved = routes.iter().map(|(tunnel, route)| {
            let key = connections_key(&route.service.config);
            let connections = renewed.get(&key).unwrap_or(&route.connections);
            let route = Route {
                service: route.service.clone(),
                connections: connections.clone(),
            };
            (tunnel.clone(), route)
        });
        let next = Arc::new(moved.collect::<Routes>());
        self.resources.store(resources.clone());
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = next;
        let retired = std::mem::replace(&mut *pools, renewed);
        drop(pools);
        retired.into_values().for_each(|pool| pool.retire());
    }

    /// While draining, new requests are reset with `DRAINING` (P-6.6). Running ones finish, except WebSockets, which have
    /// no end of their own: they are closed as by [`Egress::close_websockets`].
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
        if draining {
            self.close_websockets();
        }
    }

    /// Sends a close frame with 1001 (Going Away) to both ends of every running WebSocket (P-9.6). Each ends when both
    /// ends have closed, or after [`Config::close_timeout`].
    pub fn close_websockets(&self) {
        self.going_away.send_modify(|times| *times += 1);
    }

    /// Requests so far for the service of this name; 0 if the service does not exist.
    pub fn requests_of(&self, name: &str) -> u64 {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let route = routes.get(name);
        route.map_or(0, |route| route.service.requests.load(Ordering::Relaxed))
    }

    /// The number of running requests of each service that has at least one, by name, UDP flows included.
    pub fn running(&self) -> Vec<(Box<str>, usize)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let running = routes.iter().map(|(name, route)| {
            let running = route.service.running.load(Ordering::Relaxed);
            (name.clone(), running)
        });
        let mut running: Vec<_> = running.filter(|(_, running)| *running > 0).collect();
        running.sort();
        running
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let mut stats = self.resources.load().counters.stats();
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.values().for_each(|pool| pool.count(&mut stats));
        stats
    }
}

fn connections_key(config: &ServiceConfig) -> ConnectionsKey {
    let address = HostPort::new(&config.host, config.port);
    (address, config.protocol, config.tls.clone())
}

impl Drop for Egress {
    fn drop(&mut self) {
        let pools = self.pools.get_mut().unwrap_or_else(PoisonError::into_inner);
        pools.values().for_each(Connections::retire);
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
