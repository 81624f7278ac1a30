//! Takes the requests that the peer opens, and hands each to the module of its service's protocol.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use adit_codec::{ResetCode, Side};
use adit_link::{Dispatch, Exchange, IncomingRequest, RequestHead};
use adit_trace::{NoObserver, Observer};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    config::{Config, Protocol, ServiceConfig},
    connect::{
        dial::Address,
        tls::{Dialer, Tls},
    },
    protocol::{h2c, http1, tcp, udp, websocket},
    request::{
        account::Account,
        arrival::{RequestOrigin, RequestOwner},
        asked::{Told as _, has_valid_target},
        course::Course,
        job::Job,
        moved::Moved,
        reset::give_up,
    },
    resources::Resources,
    service::Service,
    stats::Stats,
};

/// Services with all of it in common share their connections.
type Key = (Address, Protocol, Option<Tls>);
type Services = HashMap<Box<str>, Route>;

/// Where one tunnel leads.
#[derive(Clone)]
struct Route {
    service: Arc<Service>,
    connections: Connections,
}

/// The connections of one address.
#[derive(Clone)]
enum Connections {
    Http1(Arc<http1::Pool>),
    Http2(Arc<h2c::Client>),
    /// None are kept: each request has one of its own.
    Own,
}

/// Serves the requests that the peer opens. [`Dispatch::dispatch`] is called within a tokio runtime: connections live
/// on the runtime that made them.
pub struct Egress {
    resources: Arc<Resources>,
    services: RwLock<Arc<Services>>,
    /// By address, so that tunnels to one service share its connections, and a change of settings keeps them.
    pools: Mutex<HashMap<Key, Connections>>,
    draining: AtomicBool,
    /// How often running WebSockets have been told to go.
    leaving: watch::Sender<u64>,
}

impl Egress {
    /// With no services yet: every request is reset with `NO_TUNNEL`.
    pub fn new(config: Config) -> Arc<Self> {
        Self::with_observer(config, Arc::new(NoObserver))
    }

    /// The same, where `observer` is told of each request once, when it is over, and of those that are refused. A record
    /// says whose the request is where [`Egress::dispatch_to`] was told.
    pub fn with_observer(config: Config, observer: Arc<dyn Observer>) -> Arc<Self> {
        Self::with_owner(config, observer, RequestOwner::default())
    }

    /// The same, where all of a lane's requests are of one owner.
    pub fn with_owner(
        config: Config,
        observer: Arc<dyn Observer>,
        owner: RequestOwner,
    ) -> Arc<Self> {
        Arc::new(Self {
            resources: Arc::new(Resources::new(config, observer, owner)),
            services: RwLock::default(),
            pools: Mutex::default(),
            draining: AtomicBool::new(false),
            leaving: watch::Sender::new(0),
        })
    }

    /// Replaces all services at once, by tunnel name. Running requests finish where they are; connections to addresses
    /// that are still served are kept, idle ones to others are closed.
    // By value: the settings are this object's from here on.
    #[allow(clippy::needless_pass_by_value)]
    pub fn set_services(&self, services: HashMap<Box<str>, ServiceConfig>) {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let mut kept = HashMap::new();
        let mut next = Services::new();
        for (tunnel, config) in &services {
            let address = Address {
                host: config.host.as_str().into(),
                port: config.port,
            };
            let key = (address.clone(), config.protocol, config.tls.clone());
            let connections = kept
                .entry(key)
                .or_insert_with_key(|key| {
                    pools.remove(key).unwrap_or_else(|| self.connections(key))
                })
                .clone();
            let observer = self.resources.observer.clone();
            let service = Arc::new(Service::new(config, address, observer));
            let route = Route {
                service,
                connections,
            };
            next.insert(tunnel.clone(), route);
        }
        let retired = std::mem::replace(&mut *pools, kept);
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        drop(pools);
        retired.into_values().for_each(|pool| pool.retire());
    }

    fn connections(&self, (address, protocol, tls): &Key) -> Connections {
        let (address, resources) = (address.clone(), self.resources.clone());
        match (protocol, tls) {
            (Protocol::Http1, None) => Connections::Http1(http1::Pool::new(address, resources)),
            (Protocol::Http2, tls) => {
                let dialer = Dialer::new(address, tls.as_ref());
                Connections::Http2(h2c::Client::new(dialer, resources))
            }
            // Never in clear text what was to be encrypted.
            (Protocol::Tcp | Protocol::Udp, _) | (Protocol::Http1, Some(_)) => Connections::Own,
        }
    }

    /// While draining, new requests are reset with `DRAINING` (P-6.6); running ones finish, but for WebSockets, which
    /// would not: [`Egress::close_websockets`].
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
        if draining {
            self.close_websockets();
        }
    }

    /// Says to both ends of every running WebSocket that this side goes away (P-9.6). Each ends when both have answered,
    /// or after [`Config::close_timeout`].
    pub fn close_websockets(&self) {
        self.leaving.send_modify(|times| *times += 1);
    }

    /// Requests taken so far for the service of this name; 0 where there is none.
    pub fn requests_of(&self, name: &str) -> u64 {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let route = services.get(name);
        route.map_or(0, |route| route.service.requests.load(Ordering::Relaxed))
    }

    /// The requests that run, by the name of their service, where there are any. Flows of UDP, which have no end of their
    /// own, are left out.
    pub fn running(&self) -> Vec<(Box<str>, usize)> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let running = services.iter().map(|(name, route)| {
            let running = route.service.running.load(Ordering::Relaxed);
            (name.clone(), running)
        });
        let mut running: Vec<_> = running.filter(|(_, running)| *running > 0).collect();
        running.sort();
        running
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let counters = &self.resources.counters;
        let mut stats = Stats {
            dialled: counters.dialled.load(Ordering::Relaxed),
            reused: counters.reused.load(Ordering::Relaxed),
            requests: counters.requests.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            connections: counters.tcp.stats().open + counters.websockets.load(Ordering::Relaxed),
            websockets: counters.websockets.load(Ordering::Relaxed),
            tcp: counters.tcp.stats(),
            udp: counters.udp.stats(),
            ..Stats::default()
        };
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in pools.values() {
            match pool {
                Connections::Http1(pool) => pool.count(&mut stats),
                Connections::Http2(connection) => connection.count(&mut stats),
                Connections::Own => {}
            }
        }
        stats
    }
}

impl Dispatch for Egress {
    /// Serves a request of the tunnel that it names.
    fn dispatch(&self, opened: IncomingRequest) {
        let tunnel = opened.head.open().tunnel.clone();
        let arrival = RequestOrigin {
            owner: self.resources.owner.clone(),
            waited_since: None,
        };
        self.dispatch_to(&tunnel, arrival, opened);
    }
}

impl Egress {
    /// Serves a request by the service of this name, whatever the request itself says: for whoever chooses among
    /// several.
    pub fn dispatch_to(&self, name: &str, arrival: RequestOrigin, opened: IncomingRequest) {
        let observer = &*self.resources.observer;
        let incoming = Incoming::new(observer, arrival, opened);
        if self.draining.load(Ordering::Relaxed) {
            let why = "this side is leaving";
            incoming.refuse(observer, "", ResetCode::Draining, why);
            return;
        }
        let route = {
            let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
            services.get(name).cloned()
        };
        let Some(route) = route else {
            let why = format!("no service stands behind {name:?} here");
            incoming.refuse(observer, "", ResetCode::NoTunnel, &why);
            return;
        };
        self.resources
            .counters
            .requests
            .fetch_add(1, Ordering::Relaxed);
        route.service.requests.fetch_add(1, Ordering::Relaxed);
        let open = incoming.head.open();
        tracing::debug!(
            target: "adit::egress",
            request_id = %Uuid::from_bytes(open.request_uuid),
            protocol = incoming.head.protocol().as_str(),
            opener = match incoming.exchange.id().opener() {
                Side::Server => "server",
                Side::Client => "client",
            },
            tunnel = &*open.tunnel,
            service = name,
            "request taken"
        );
        self.serve(name, incoming, route);
    }

    /// Resets a request for which no service exists, and records it as refused; when its opener has gone, as cancelled.
    pub fn refuse(
        &self,
        arrival: RequestOrigin,
        opened: IncomingRequest,
        code: ResetCode,
        why: &str,
    ) {
        let observer = &*self.resources.observer;
        Incoming::new(observer, arrival, opened).refuse(observer, "", code, why);
    }

    /// Hands a request to the module of its protocol.
    fn serve(&self, name: &str, incoming: Incoming, route: Route) {
        let Route {
            service,
            connections,
        } = route;
        let Incoming {
            head,
            exchange,
            course,
        } = incoming;
        let (head, code, why) = match (head, connections) {
            (RequestHead::Http(head), _) if head.method == "CONNECT" => {
                let why = "CONNECT is not carried".to_owned();
                (RequestHead::Http(head), ResetCode::ProtocolError, why)
            }
            (head, _) if !has_valid_target(&head) => {
                let why = "the request target is neither a path nor `*` of OPTIONS".to_owned();
                (head, ResetCode::ProtocolError, why)
            }
            (RequestHead::Http(head), Connections::Http1(pool)) => {
                let job = Job::new(Account::new(head, service, course), exchange);
                return http1::dispatch(&pool, job);
            }
            (RequestHead::Http(head), Connections::Http2(connection)) => {
                if !head.upgrade.is_empty() {
                    // HTTP/2 has no such offer: the request is an ordinary one, and its body is there (P-3.7).
                    exchange.recv.close(ResetCode::Cancelled);
                }
                let head = h2c::Head::Http(head);
                return connection.dispatch(Account::new(head, service, course), exchange);
            }
            (RequestHead::Grpc(head), Connections::Http2(connection)) => {
                let head = h2c::Head::Grpc(head);
                return connection.dispatch(Account::new(head, service, course), exchange);
            }
            (head @ RequestHead::Grpc(_), Connections::Http1(_)) => {
                let why = format!(
                    "the service of {name:?} speaks HTTP/1.1; gRPC wants a tunnel of `type: grpc`"
                );
                (head, ResetCode::NoTunnel, why)
            }
            // Also of a service that speaks HTTP/2: an upgrade is HTTP/1.1, and most that speak the one speak both.
            (RequestHead::WebSocket(head), Connections::Http1(_) | Connections::Http2(_))
                if !service.is_tls =>
            {
                let leaving = self.leaving.subscribe();
                let account = Account::new(head, service, course);
                return websocket::dispatch(account, exchange, self.resources.clone(), leaving);
            }
            (RequestHead::Tcp(head), _) if service.is_plain(Protocol::Tcp) => {
                let account = Account::new(head, service, course);
                return tcp::dispatch(account, exchange, self.resources.clone());
            }
            (RequestHead::Udp(head), _) if service.is_plain(Protocol::Udp) => {
                let account = Account::new(head, service, course);
                return udp::dispatch(account, exchange, self.resources.clone());
            }
            (head, _) => {
                let why = format!(
                    "the service of {name:?} is not reached by {}{}",
                    head.protocol().as_str(),
                    if service.is_tls { " over TLS" } else { "" },
                );
                (head, ResetCode::ProtocolError, why)
            }
        };
        let incoming = Incoming {
            head,
            exchange,
            course,
        };
        incoming.refuse(&*self.resources.observer, &service.endpoint, code, &why);
    }
}

impl Connections {
    fn retire(&self) {
        match self {
            Self::Http1(pool) => pool.retire(),
            Self::Http2(connection) => connection.retire(),
            Self::Own => {}
        }
    }
}

/// A request that no service has yet.
struct Incoming {
    head: RequestHead,
    exchange: Exchange,
    course: Course,
}

impl Incoming {
    fn new(observer: &dyn Observer, arrival: RequestOrigin, opened: IncomingRequest) -> Self {
        let IncomingRequest { head, exchange } = opened;
        let course = Course::new(observer, head.open(), &exchange, arrival);
        Self {
            head,
            exchange,
            course,
        }
    }

    fn refuse(mut self, observer: &dyn Observer, service: &str, code: ResetCode, why: &str) {
        self.course.on_reset(code);
        self.course.on_gone(&self.exchange.send);
        let asked = self.head.asked();
        self.course
            .tell(observer, &asked, service, &Moved::default());
        give_up(self.exchange.send, self.head.open(), code, why);
    }
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
