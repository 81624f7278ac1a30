//! From a tunnel's name to its service.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use adit_codec::{Pool as BufferPool, ResetCode, Side};
use adit_link::{
    Compression, Dispatch, Exchange, Opened, RequestHead, SendHalf, compress::is_compressible,
};
use adit_trace::{Observer, Unobserved};
use http::{HeaderName, HeaderValue};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    account::{Account, Course, Moved},
    arrival::{Arrival, Owner},
    asked::{Told as _, has_valid_target},
    config::{Config, Protocol, ProxyProtocol, ServiceConfig},
    dial::Address,
    fields::is_hop_by_hop,
    h2c, http1,
    job::{Job, give_up},
    tcp,
    tls::{Dialer, Tls},
    udp, websocket,
};

/// Read first of an answer: head and small body.
const SMALL_BUFFER_BYTES: usize = 16 * 1024;
/// Read while an answer keeps coming: a message's worth (P-2.1).
const LARGE_BUFFER_BYTES: usize = 64 * 1024;
/// Buffers that wait for use, of each size: more than are read into in one turn of a thread.
const MAX_FREE_BUFFERS: usize = 64;

/// Counters and gauges of an [`Egress`], over all services.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections, idle ones and those being made included.
    pub connections: usize,
    /// Connections that wait for a request.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// Connections made since the start.
    pub dialled: u64,
    /// Requests served on a connection that had served before.
    pub reused: u64,
    /// Requests taken.
    pub jobs: u64,
    /// Requests begun anew because their connection had died.
    pub retried: u64,
    /// Connections of WebSockets now, those being made included.
    pub websockets: usize,
    /// Connections of TCP.
    pub tcp: tcp::TcpStats,
    /// Flows of UDP.
    pub udp: udp::UdpStats,
}

/// Counted by every connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) jobs: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) websockets: AtomicUsize,
    pub(crate) tcp: tcp::Counters,
    pub(crate) udp: udp::Counters,
}

/// What all pools share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) small: BufferPool,
    pub(crate) large: BufferPool,
    pub(crate) websockets: adit_splice::websocket::Buffers,
    pub(crate) counters: Counters,
    /// Is told of each request.
    observer: Arc<dyn Observer>,
    /// Whose requests are of which nobody says it.
    owner: Arc<Owner>,
}

/// The connections of one address.
#[derive(Clone)]
pub(crate) enum Connections {
    Http1(Arc<http1::Pool>),
    H2c(Arc<h2c::Shared>),
    /// None are kept: each request has one of its own.
    Own,
}

/// Where one tunnel leads, ready to be used for each request.
pub(crate) struct Service {
    pub(crate) connections: Connections,
    pub(crate) address: Address,
    /// The address as people write it.
    pub(crate) endpoint: Box<str>,
    pub(crate) observer: Arc<dyn Observer>,
    protocol: Protocol,
    pub(crate) is_tls: bool,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) compression: Option<Compression>,
    pub(crate) session_timeout: Duration,
    /// Connections of TCP and of WebSockets. A change of the service's settings begins anew.
    pub(crate) open: AtomicUsize,
    /// Requests so far. A change of the service's settings begins anew.
    requests: AtomicU64,
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// Added to each request, replacing those of the same name.
    pub(crate) custom: Vec<(HeaderName, HeaderValue)>,
    /// Requests that run.
    pub(crate) running: AtomicUsize,
}

impl Service {
    fn new(
        config: &ServiceConfig,
        address: Address,
        connections: Connections,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut host_rewrite = config.host_rewrite.as_deref().and_then(|host| {
            let value = HeaderValue::from_str(host)
                .ok()
                .filter(|host| !host.is_empty());
            if value.is_none() {
                tracing::warn!(host, "host_rewrite is no host name; it is ignored");
            }
            value
        });
        let mut custom = Vec::new();
        for (name, value) in &config.custom_headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) if name == http::header::HOST => {
                    host_rewrite.get_or_insert(value);
                }
                (Ok(header), Ok(value))
                    if !is_hop_by_hop(header.as_str().as_bytes())
                        && header != http::header::CONTENT_LENGTH =>
                {
                    custom.push((header, value));
                }
                _ => tracing::warn!(name, "custom header cannot be sent; it is ignored"),
            }
        }
        Self {
            running: AtomicUsize::new(0),
            connections,
            endpoint: address.to_string().into(),
            address,
            observer,
            protocol: config.protocol,
            is_tls: config.tls.is_some(),
            proxy_protocol: config.proxy_protocol,
            compression: config.compression,
            session_timeout: config.session_timeout,
            open: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            host_rewrite,
            custom,
        }
    }

    /// Whether it speaks this, in clear text.
    fn is_plain(&self, protocol: Protocol) -> bool {
        self.protocol == protocol && !self.is_tls
    }

    /// How an answer with these header lines crosses; with none, whatever a connection carries.
    pub(crate) fn compress<'a>(
        &self,
        send: &SendHalf,
        lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        let compression = self.compression.filter(|_| is_compressible(lines));
        send.set_compression(compression);
    }

    /// Whether this service's own header takes the place of the visitor's.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.custom
            .iter()
            .any(|(custom, _)| custom.as_str().as_bytes() == name)
    }
}

/// Services with all of it in common share their connections.
type Key = (Address, Protocol, Option<Tls>);
type Services = HashMap<Box<str>, Arc<Service>>;

/// Serves the requests that the peer opens. [`Dispatch::dispatch`] is called within a tokio runtime: connections live
/// on the runtime that made them.
pub struct Egress {
    shared: Arc<Shared>,
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
        Self::observed(config, Arc::new(Unobserved))
    }

    /// The same, where `observer` is told of each request once, when it is over, and of those that are refused. A record
    /// says whose the request is where [`Egress::dispatch_to`] was told.
    pub fn observed(config: Config, observer: Arc<dyn Observer>) -> Arc<Self> {
        Self::observed_of(config, observer, Owner::default())
    }

    /// The same, where all of a lane's requests are of one owner.
    pub fn observed_of(config: Config, observer: Arc<dyn Observer>, owner: Owner) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                config,
                small: BufferPool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
                large: BufferPool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
                websockets: adit_splice::websocket::Buffers::default(),
                counters: Counters::default(),
                observer,
                owner: Arc::new(owner),
            }),
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
            let observer = self.shared.observer.clone();
            let service = Service::new(config, address, connections, observer);
            next.insert(tunnel.clone(), Arc::new(service));
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
        let (address, shared) = (address.clone(), self.shared.clone());
        match (protocol, tls) {
            (Protocol::Http1, None) => Connections::Http1(http1::Pool::new(address, shared)),
            (Protocol::H2c, tls) => {
                let dialer = Dialer::new(address, tls.as_ref());
                Connections::H2c(h2c::Shared::new(dialer, shared))
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
        let service = services.get(name);
        service.map_or(0, |service| service.requests.load(Ordering::Relaxed))
    }

    /// The requests that run, by the name of their service, where there are any. Flows of UDP, which have no end of their
    /// own, are left out.
    pub fn running(&self) -> Vec<(Box<str>, usize)> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        let running = services.iter().map(|(name, service)| {
            let running = service.running.load(Ordering::Relaxed);
            (name.clone(), running)
        });
        let mut running: Vec<_> = running.filter(|(_, running)| *running > 0).collect();
        running.sort();
        running
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let mut stats = Stats {
            dialled: counters.dialled.load(Ordering::Relaxed),
            reused: counters.reused.load(Ordering::Relaxed),
            jobs: counters.jobs.load(Ordering::Relaxed),
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
                Connections::H2c(connection) => connection.count(&mut stats),
                Connections::Own => {}
            }
        }
        stats
    }
}

impl Connections {
    fn retire(&self) {
        match self {
            Self::Http1(pool) => pool.retire(),
            Self::H2c(connection) => connection.retire(),
            Self::Own => {}
        }
    }
}

impl Dispatch for Egress {
    /// Serves a request of the tunnel that it names.
    fn dispatch(&self, opened: Opened) {
        let tunnel = opened.head.open().tunnel.clone();
        let arrival = Arrival {
            owner: self.shared.owner.clone(),
            waited_since: None,
        };
        self.dispatch_to(&tunnel, arrival, opened);
    }
}

impl Egress {
    /// Serves a request by the service of this name, whatever the request itself says: for whoever chooses among
    /// several.
    pub fn dispatch_to(&self, name: &str, arrival: Arrival, opened: Opened) {
        let observer = &*self.shared.observer;
        let coming = Coming::new(observer, arrival, opened);
        if self.draining.load(Ordering::Relaxed) {
            let why = "this side is leaving";
            coming.refuse(observer, "", ResetCode::Draining, why);
            return;
        }
        let service = {
            let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
            services.get(name).cloned()
        };
        let Some(service) = service else {
            let why = format!("no service stands behind {name:?} here");
            coming.refuse(observer, "", ResetCode::NoTunnel, &why);
            return;
        };
        self.shared.counters.jobs.fetch_add(1, Ordering::Relaxed);
        service.requests.fetch_add(1, Ordering::Relaxed);
        let open = coming.head.open();
        tracing::debug!(
            target: "adit::egress",
            request_id = %Uuid::from_bytes(open.request_uuid),
            protocol = coming.head.protocol().as_str(),
            opener = match coming.exchange.id().opener() {
                Side::Server => "server",
                Side::Client => "client",
            },
            tunnel = &*open.tunnel,
            service = name,
            "request taken"
        );
        self.lead(name, coming, service);
    }

    /// Resets a request that is to have no service, and tells of it as of those that are refused here. Of one whose
    /// opener has gone, that is told.
    pub fn refuse(&self, arrival: Arrival, opened: Opened, code: ResetCode, why: &str) {
        let observer = &*self.shared.observer;
        Coming::new(observer, arrival, opened).refuse(observer, "", code, why);
    }

    /// Leads a request to its service by the way that both speak.
    fn lead(&self, name: &str, coming: Coming, service: Arc<Service>) {
        let connections = service.connections.clone();
        let Coming {
            head,
            exchange,
            course,
        } = coming;
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
                return pool.dispatch(Job::new(Account::new(head, service, course), exchange));
            }
            (RequestHead::Http(head), Connections::H2c(connection)) => {
                if !head.upgrade.is_empty() {
                    // HTTP/2 has no such offer: the request is an ordinary one, and its body is there (P-3.7).
                    exchange.recv.close(ResetCode::Cancelled);
                }
                let head = h2c::Head::Http(head);
                return connection.dispatch(Account::new(head, service, course), exchange);
            }
            (RequestHead::Grpc(head), Connections::H2c(connection)) => {
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
            (RequestHead::WebSocket(head), Connections::Http1(_) | Connections::H2c(_))
                if !service.is_tls =>
            {
                let leaving = self.leaving.subscribe();
                let account = Account::new(head, service, course);
                return websocket::dispatch(account, exchange, self.shared.clone(), leaving);
            }
            (RequestHead::Tcp(head), _) if service.is_plain(Protocol::Tcp) => {
                let account = Account::new(head, service, course);
                return tcp::dispatch(account, exchange, self.shared.clone());
            }
            (RequestHead::Udp(head), _) if service.is_plain(Protocol::Udp) => {
                let account = Account::new(head, service, course);
                return udp::dispatch(account, exchange, self.shared.clone());
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
        let coming = Coming {
            head,
            exchange,
            course,
        };
        coming.refuse(&*self.shared.observer, &service.endpoint, code, &why);
    }
}

/// A request that no service has yet.
struct Coming {
    head: RequestHead,
    exchange: Exchange,
    course: Course,
}

impl Coming {
    fn new(observer: &dyn Observer, arrival: Arrival, opened: Opened) -> Self {
        let Opened { head, exchange } = opened;
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
