//! From a tunnel's name to its service.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use adit_codec::{Pool as BufferPool, ResetCode};
use adit_link::OpenHead;
use adit_link::{Dispatch, Opened};
use http::{HeaderName, HeaderValue};

use crate::{
    config::{Config, Protocol, ServiceConfig},
    dial::Address,
    fields::is_hop_by_hop,
    h2c, http1,
    job::Job,
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
}

/// Counted by every connection.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dialled: AtomicU64,
    pub(crate) reused: AtomicU64,
    pub(crate) jobs: AtomicU64,
    pub(crate) retried: AtomicU64,
}

/// What all pools share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) small: BufferPool,
    pub(crate) large: BufferPool,
    pub(crate) counters: Counters,
}

/// The connections of one address.
#[derive(Clone)]
pub(crate) enum Connections {
    Http1(Arc<http1::Pool>),
    H2c(Arc<h2c::Shared>),
}

/// Where one tunnel leads, ready to be used for each request.
pub(crate) struct Service {
    connections: Connections,
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// Added to each request, replacing those of the same name.
    pub(crate) custom: Vec<(HeaderName, HeaderValue)>,
}

impl Service {
    fn new(config: &ServiceConfig, connections: Connections) -> Self {
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
            connections,
            host_rewrite,
            custom,
        }
    }

    /// Whether this service's own header takes the place of the visitor's.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.custom
            .iter()
            .any(|(custom, _)| custom.as_str().as_bytes() == name)
    }
}

type Services = HashMap<Box<str>, Arc<Service>>;

/// Serves the requests that the peer opens. [`Dispatch::dispatch`] is called within a tokio runtime: connections live
/// on the runtime that made them.
pub struct Egress {
    shared: Arc<Shared>,
    services: RwLock<Arc<Services>>,
    /// By address, so that tunnels to one service share its connections, and a change of settings keeps them.
    pools: Mutex<HashMap<(Address, Protocol), Connections>>,
    draining: AtomicBool,
}

impl Egress {
    /// With no services yet: every request is reset with `NO_TUNNEL`.
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared {
                config,
                small: BufferPool::new(SMALL_BUFFER_BYTES, MAX_FREE_BUFFERS),
                large: BufferPool::new(LARGE_BUFFER_BYTES, MAX_FREE_BUFFERS),
                counters: Counters::default(),
            }),
            services: RwLock::default(),
            pools: Mutex::default(),
            draining: AtomicBool::new(false),
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
            let key = (address, config.protocol);
            let connections = kept
                .entry(key)
                .or_insert_with_key(|key| {
                    pools.remove(key).unwrap_or_else(|| match key.1 {
                        Protocol::Http1 => {
                            Connections::Http1(http1::Pool::new(key.0.clone(), self.shared.clone()))
                        }
                        Protocol::H2c => {
                            Connections::H2c(h2c::Shared::new(key.0.clone(), self.shared.clone()))
                        }
                    })
                })
                .clone();
            next.insert(tunnel.clone(), Arc::new(Service::new(config, connections)));
        }
        let retired = std::mem::replace(&mut *pools, kept);
        *self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        drop(pools);
        retired.into_values().for_each(|pool| pool.retire());
    }

    /// While draining, new requests are reset with `DRAINING` (P-6.6); running ones finish.
    pub fn set_draining(&self, draining: bool) {
        self.draining.store(draining, Ordering::Relaxed);
    }

    /// Counters and gauges.
    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let mut stats = Stats {
            dialled: counters.dialled.load(Ordering::Relaxed),
            reused: counters.reused.load(Ordering::Relaxed),
            jobs: counters.jobs.load(Ordering::Relaxed),
            retried: counters.retried.load(Ordering::Relaxed),
            ..Stats::default()
        };
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        for pool in pools.values() {
            match pool {
                Connections::Http1(pool) => pool.count(&mut stats),
                Connections::H2c(connection) => connection.count(&mut stats),
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
        }
    }
}

impl Dispatch for Egress {
    fn dispatch(&self, opened: Opened) {
        let Opened { head, exchange } = opened;
        if self.draining.load(Ordering::Relaxed) {
            exchange
                .send
                .reset(ResetCode::Draining, "this client is leaving");
            return;
        }
        #[allow(
            irrefutable_let_patterns,
            reason = "heads of other protocols are to come"
        )]
        let OpenHead::Http(head) = head else {
            exchange
                .send
                .reset(ResetCode::ProtocolError, "only HTTP is served here");
            return;
        };
        let service = {
            let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
            services.get(&head.open.tunnel).cloned()
        };
        let Some(service) = service else {
            let why = format!("this client serves no tunnel {:?}", head.open.tunnel);
            exchange.send.reset(ResetCode::NoTunnel, &why);
            return;
        };
        self.shared.counters.jobs.fetch_add(1, Ordering::Relaxed);
        if head.method == "CONNECT" {
            exchange
                .send
                .reset(ResetCode::ProtocolError, "CONNECT is not carried");
            return;
        }
        let connections = service.connections.clone();
        let job = Job {
            head,
            exchange,
            service,
            retried: false,
        };
        match connections {
            Connections::Http1(pool) => pool.dispatch(job),
            Connections::H2c(connection) => connection.dispatch(job),
        }
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
