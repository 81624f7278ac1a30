//! Client entries: listeners on this side that lead to upstreams of the server (F08).
//!
//! An entry is a public entry with another director: visitors pass the same rooms of `ingress` and the same layers, and
//! what they ask is opened on the link that the client has anyway.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use adit_auth::{ClientClaim, ClientId, Grant, GroupId, NameError, TunnelName, UserName};
use adit_flow::{Gate, Shares};
use adit_ingress::{
    Admission, Destination, Direction, Director, Http, HttpConfig, Layer, RetryBudget, Session,
    Tcp, TcpConfig, Visit, layers,
};
use adit_link::{Compression, Lane, LogLimit, Reason};
use adit_net::{
    AcceptLoop, AcceptReport, Accepted, BindError, Descriptors, Listener, Stream, bind,
    descriptors_for_visitors,
};
use adit_trace::Observer;
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    links::{Links, Up},
    settings::{EntryKind, EntrySettings, Settings},
    status::EntryStatus,
};

/// Why entries cannot be.
#[derive(Debug, Error)]
pub enum EntryError {
    /// An address is taken or not ours.
    #[error("client.entries[{index}].listen (entry `{name}`): {error}")]
    Bind {
        /// Which one in the list, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// Why, and what to do.
        error: BindError,
    },
    /// The socket is there and cannot be used.
    #[error("client.entries[{index}].listen (entry `{name}`): {error}")]
    Socket {
        /// Which one in the list, from 0.
        index: usize,
        /// Its name.
        name: String,
        /// What the system said.
        error: io::Error,
    },
    /// The client's own names are none.
    #[error(transparent)]
    Names(#[from] NameError),
}

/// All entries of a client, listening.
pub(crate) struct Entries {
    entries: Vec<Entry>,
    /// Where they find the link.
    pub(crate) links: Arc<Links>,
    /// Requests of all of them at a time (F12).
    permits: Arc<Gate>,
    max_requests: usize,
    visitors: TaskTracker,
    drain: watch::Sender<bool>,
}

struct Entry {
    settings: EntrySettings,
    addr: SocketAddr,
    /// Why it leads nowhere, as the server's list of upstreams says.
    error: Mutex<Option<String>>,
    /// Until it is accepted on.
    listener: Mutex<Option<StdListener>>,
    room: Room,
}

/// What takes an entry's visitors in.
#[derive(Clone)]
enum Room {
    Http(Arc<Http>),
    Tcp(Arc<Tcp>),
}

impl Entries {
    /// Binds all addresses. Visitors that come from now on wait to be accepted.
    pub(crate) fn bind(
        settings: &Settings,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, EntryError> {
        let limits = &settings.limits;
        let shares = Shares {
            tunnel_percent: limits.tunnel_share_percent,
            visitor_percent: limits.visitor_share_percent,
        };
        let permits = Gate::shared(limits.max_requests, limits.max_waiting, shares);
        let links = Arc::new(Links::default());
        let via = layers::Via::new(rand::random());
        let mut entries = Vec::new();
        for (index, entry) in settings.entries.iter().enumerate() {
            let name = || entry.name.clone();
            let listener = bind(entry.listen).map_err(|error| EntryError::Bind {
                index,
                name: name(),
                error,
            })?;
            let addr = listener.local_addr().map_err(|error| EntryError::Socket {
                index,
                name: name(),
                error,
            })?;
            let route = Route {
                upstream: entry.upstream.clone(),
                grant: grant(settings)?,
                links: links.clone(),
                wait: settings.timeouts.link_wait,
                compression: entry.compression.on_hop(),
                retries: RetryBudget::new(Instant::now()),
            };
            entries.push(Entry {
                settings: entry.clone(),
                addr,
                error: Mutex::default(),
                listener: Mutex::new(Some(listener)),
                room: room(
                    (entry, index as u64),
                    settings,
                    &permits,
                    &via,
                    route,
                    observer.clone(),
                ),
            });
        }
        Ok(Self {
            entries,
            links,
            permits,
            max_requests: limits.max_requests,
            visitors: TaskTracker::new(),
            drain: watch::Sender::new(false),
        })
    }

    /// Accepts on all of them until they drain.
    pub(crate) async fn accept(&self) {
        let mut listening = tokio::task::JoinSet::new();
        // The other half is for services.
        let descriptors = Descriptors::new(descriptors_for_visitors() / 2);
        let report = EntryReport::new();
        for (number, entry) in (0..).zip(&self.entries) {
            let Some(listener) = lock(&entry.listener).take() else {
                continue;
            };
            match Listener::from_std(listener) {
                Ok(listener) => {
                    let (room, visitors) = (entry.room.clone(), self.visitors.clone());
                    let drain = self.drain.subscribe();
                    let accepting = AcceptLoop::new(listener, report.clone())
                        .bounded(descriptors.clone(), number);
                    listening.spawn(accept(accepting, room, visitors, drain));
                }
                Err(error) => {
                    tracing::error!(entry = entry.settings.name, %error, "cannot be listened on");
                }
            }
        }
        listening.join_all().await;
    }

    /// A link has come, on which `max_requests` may be open at a time; 0 says nothing.
    pub(crate) fn link_up(&self, up: Up, max_requests: u32) {
        let theirs = match max_requests {
            0 => usize::MAX,
            theirs => usize::try_from(theirs).unwrap_or(usize::MAX),
        };
        // What the server would refuse (P-2.9) waits here for its turn.
        self.permits.set_permits(self.max_requests.min(theirs));
        self.links.up(up);
    }

    /// Compares with the upstreams that the server defines.
    pub(crate) fn check(&self, upstreams: &[String]) {
        for Entry {
            settings, error, ..
        } in &self.entries
        {
            let upstream = settings.upstream.as_str();
            let missing = !upstreams.iter().any(|known| known == upstream);
            let text = format!("the server defines no upstream `{upstream}`");
            if missing {
                tracing::warn!(entry = settings.name, "{text}");
            }
            *lock(error) = missing.then_some(text);
        }
    }

    /// Takes no more visitors; those that are here finish.
    pub(crate) fn drain(&self) {
        self.drain.send_replace(true);
        if !self.links.is_up() {
            self.links.over();
        }
        self.visitors.close();
    }

    /// Whether no visitor is left.
    pub(crate) fn is_idle(&self) -> bool {
        self.visitors.is_empty()
    }

    /// Connections of visitors.
    pub(crate) fn visitors(&self) -> usize {
        self.visitors.len()
    }

    pub(crate) fn status(&self) -> Vec<EntryStatus> {
        self.entries.iter().map(Entry::status).collect()
    }
}

impl Entry {
    fn status(&self) -> EntryStatus {
        let mut status = EntryStatus {
            name: self.settings.name.clone(),
            kind: self.settings.kind.as_str(),
            listen: self.addr.to_string(),
            upstream: self.settings.upstream.to_string(),
            error: lock(&self.error).clone(),
            connections_open: 0,
            requests_open: 0,
            requests: 0,
            failures: BTreeMap::new(),
        };
        match &self.room {
            Room::Http(http) => {
                let stats = http.stats();
                status.connections_open = stats.connections_open;
                status.requests_open = stats.requests_open;
                status.requests = stats.requests;
                status.failures = failures(|reason| stats.failed(reason));
            }
            Room::Tcp(tcp) => {
                let stats = tcp.stats();
                status.connections_open = stats.open;
                status.requests_open = stats.open;
                status.requests = stats.total;
                status.failures = failures(|reason| stats.failed(reason));
            }
        }
        status
    }
}

fn failures(failed: impl Fn(Reason) -> u64) -> BTreeMap<&'static str, u64> {
    let counts = Reason::ALL.map(|reason| (reason.as_str(), failed(reason)));
    counts.into_iter().filter(|(_, count)| *count > 0).collect()
}

/// What a visitor of the entry passes, in this order.
fn room(
    (entry, number): (&EntrySettings, u64),
    settings: &Settings,
    permits: &Arc<Gate>,
    via: &layers::Via,
    route: Route,
    observer: Arc<dyn Observer>,
) -> Room {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    let permits = layers::Permits::of_entry(permits.clone(), timeouts.permit_wait, number);
    let chain: Vec<Box<dyn Layer>> = match entry.kind {
        EntryKind::Http => vec![
            Box::new(layers::HopByHop),
            Box::new(via.clone()),
            Box::new(layers::Forwarded::new(entry.trusted_proxies.clone())),
            Box::new(permits),
        ],
        EntryKind::Tcp => vec![Box::new(permits)],
    };
    let admission = Admission::observed(chain, Arc::new(EntryDirector(Arc::new(route))), observer);
    match entry.kind {
        EntryKind::Tcp => Room::Tcp(Tcp::new(
            TcpConfig {
                max_connections: limits.max_entry_connections,
                accept_timeout: timeouts.session_setup,
                stall: timeouts.session_stall,
                shortage_grace: timeouts.shortage_grace,
                keepalive: (!timeouts.session_keepalive.is_zero())
                    .then_some(timeouts.session_keepalive),
                ..TcpConfig::default()
            },
            admission,
        )),
        EntryKind::Http => Room::Http(Http::new(
            HttpConfig {
                head_timeout: timeouts.head,
                idle_timeout: timeouts.idle,
                stall_timeout: timeouts.stall,
                min_rate_bytes_per_sec: limits.min_rate_bytes_per_sec,
                shortage_grace: timeouts.shortage_grace,
                service_timeout: timeouts.service,
                continue_wait: timeouts.continue_wait,
                half_close_timeout: timeouts.half_close,
                release_timeout: timeouts.release,
                session_stall: timeouts.session_stall,
                session_keepalive: (!timeouts.session_keepalive.is_zero())
                    .then_some(timeouts.session_keepalive),
                close_timeout: timeouts.session_close,
                max_connections: limits.max_entry_connections,
                turn_bytes: limits.turn_bytes,
                ..HttpConfig::default()
            },
            admission,
        )),
    }
}

impl Room {
    async fn serve(self, stream: Stream, peer: SocketAddr, drain: watch::Receiver<bool>) {
        // `Http` and `Tcp` take TCP alone for now; nothing else is listened on.
        let Ok(stream) = stream.try_into_tcp() else {
            return;
        };
        match self {
            Self::Http(http) => http.serve(stream, peer, said(drain)).await,
            Self::Tcp(tcp) => match stream.local_addr() {
                Ok(local) => tcp.serve(stream, peer, local).await,
                Err(error) => tracing::debug!(%peer, %error, "the visitor left"),
            },
        }
    }
}

/// Who asks, as this side knows it: the client answers to the server for whoever reaches its entries.
fn grant(settings: &Settings) -> Result<Grant, NameError> {
    let claim = ClientClaim {
        client_id: ClientId::parse(&settings.client_id)?,
        group_id: GroupId::parse(&settings.group_id)?,
    };
    Ok(Grant::for_link(
        UserName::parse(&settings.client_id)?,
        claim,
    ))
}

/// Where the visitors of one entry go: to its upstream, over whatever link there is.
struct Route {
    upstream: TunnelName,
    grant: Grant,
    links: Arc<Links>,
    wait: Duration,
    /// Of what visitors send.
    compression: Option<Compression>,
    retries: RetryBudget,
}

impl Route {
    fn destination(&self, (lane, up): (Arc<Lane>, Arc<Up>)) -> Destination {
        Destination {
            lane,
            grant: self.grant.for_tunnel(self.upstream.clone(), up.revision),
            tunnel: self.upstream.clone().into(),
            revision: up.revision,
            link: up.epoch,
            compression: self.compression,
            permit: None,
            hold: Box::new(()),
        }
    }
}

struct EntryDirector(Arc<Route>);

impl EntryDirector {
    /// A link that was tried is not tried again: the next one may come within the wait.
    fn direct_any(&self, avoid: &[u64]) -> Direction {
        let route = &self.0;
        if avoid.is_empty() {
            route.retries.on_request(Instant::now());
        }
        if let Some(found) = route.links.lane(avoid) {
            return Direction::Go(route.destination(found));
        }
        let (route, avoid) = (route.clone(), avoid.to_vec());
        Direction::Wait(Box::pin(async move {
            let found = route.links.wait(&avoid, route.wait).await?;
            Ok(route.destination(found))
        }))
    }
}

impl Director for EntryDirector {
    fn direct(&self, _: &Visit, avoid: &[u64]) -> Direction {
        self.direct_any(avoid)
    }

    fn direct_session(&self, _: &Session, avoid: &[u64]) -> Direction {
        self.direct_any(avoid)
    }

    fn needs_host(&self, _: u16) -> bool {
        false
    }

    fn may_retry(&self) -> bool {
        self.0.retries.try_retry(Instant::now())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes when the flag says true, or nobody is left to say it.
async fn said(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|said| *said).await;
}

/// Logs what the accept loops of all entries report.
#[derive(Clone)]
struct EntryReport {
    full: Arc<LogLimit<usize>>,
    failed: Arc<LogLimit<String>>,
}

impl EntryReport {
    fn new() -> Self {
        Self {
            full: LogLimit::new(|limit, _| {
                tracing::warn!(
                    limit,
                    "visitors of entries wait: the descriptors of this process are used up; raise `ulimit -n`"
                );
            }),
            failed: LogLimit::new(|error, count| tracing::warn!(count, "accept failed: {error}")),
        }
    }
}

impl AcceptReport for EntryReport {
    fn on_full(&self, limit: usize) {
        self.full.note(limit);
    }

    fn on_failed(&self, error: &io::Error) {
        self.failed.note(error.to_string());
    }
}

/// Accepts on one entry until it drains.
async fn accept(
    accepting: AcceptLoop<EntryReport>,
    room: Room,
    visitors: TaskTracker,
    drain: watch::Receiver<bool>,
) {
    let serve = |accepted: Accepted| {
        let served = room
            .clone()
            .serve(accepted.stream, accepted.peer, drain.clone());
        visitors.spawn(async move {
            served.await;
            drop(accepted.descriptor);
        });
    };
    accepting.run(said(drain.clone()), serve).await;
}
