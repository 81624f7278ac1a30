//! A running server: listeners, data threads, and the order in which they end.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_auth::{TokenAuthenticator, UserName};
use adit_flow::Gate;
use adit_ingress::{Http, HttpConfig, Layer, layers, listener};
use adit_link::{
    Failure, Reason,
    grpc::{ChannelId, Endpoint, prepare_socket, serve_connection},
};
use adit_proto::{Drain, control::Kind, tunnel_service_server::TunnelServiceServer};
use adit_registry::Registry;
use adit_router::Query;
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
};
use tokio_util::task::TaskTracker;

use crate::{
    channels::Channels,
    director::Steering,
    directory::{Directory, DirectoryConfig, RuleError},
    lanes::Lanes,
    service::{Service, control_message},
    settings::Settings,
    status::{
        ClientStatus, CoreCounters, ProcessStatus, RouteStatus, Status, TunnelStatus, VisitorStatus,
    },
    threads::{Dealer, Port, Threads},
};

/// A pause after `accept` failed, for want of file descriptors as a rule: there is nothing to do but wait.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is left of the connections may take this long to close after the last request is done.
const CLOSE_GRACE: Duration = Duration::from_millis(500);

/// Why a server did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address is taken or not ours.
    #[error("cannot listen for {what} on {addr}: {error}")]
    Bind {
        /// `clients` or `visitors`.
        what: &'static str,
        /// The address.
        addr: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The credentials in the settings are none.
    #[error("the tokens in the settings cannot be used: {0}")]
    Tokens(String),
    /// A static rule is wrong.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// No thread.
    #[error("cannot start a data thread: {0}")]
    Thread(io::Error),
}

/// Asks a running server; cheap to clone, and of no use to its end.
#[derive(Clone)]
pub struct ServerHandle {
    inner: Arc<Inner>,
}

/// A running server.
pub struct Server {
    inner: Arc<Inner>,
    threads: Threads,
    drain: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    visitors: TaskTracker,
    clients: TaskTracker,
    drain_within: Duration,
}

struct Inner {
    started: Instant,
    tunnel_addr: SocketAddr,
    http_addr: SocketAddr,
    registry: Arc<Registry>,
    directory: Arc<Directory>,
    lanes: Arc<Lanes>,
    http: Arc<Http>,
    permits: Arc<Gate>,
    drain: watch::Receiver<bool>,
    runtimes: Vec<Handle>,
}

impl Server {
    /// Binds both ports and starts the data threads.
    ///
    /// # Errors
    /// [`StartError`], which says what to change.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let now = Instant::now();
        let tokens = settings.tokens.iter().map(|named| {
            let user = UserName::parse(&named.user)
                .map_err(|error| StartError::Tokens(error.to_string()))?;
            Ok((user, named.token.clone()))
        });
        let tokens = tokens.collect::<Result<Vec<_>, StartError>>()?;
        let authenticator = TokenAuthenticator::new(tokens)
            .map_err(|error| StartError::Tokens(error.to_string()))?;

        let (clients_port, tunnel_addr) = bind("clients", settings.tunnel_addr)?;
        let (visitors_port, http_addr) = bind("visitors", settings.http_addr)?;

        let limits = settings.limits.clone();
        let timeouts = settings.timeouts.clone();
        let directory = Arc::new(Directory::new(
            DirectoryConfig {
                domain: settings.domain.clone(),
                max_tunnels_per_client: limits.max_tunnels_per_client,
                retention: timeouts.tunnel_retention,
                // All clients may lose their links at the same moment, and want them back.
                max_orphans: settings
                    .max_clients
                    .saturating_mul(limits.max_tunnels_per_client),
                public_port: http_addr.port(),
            },
            &settings.rules,
        )?);
        let registry = Registry::new(
            adit_registry::Config {
                max_clients: settings.max_clients,
                max_requests_per_client: limits.max_requests_per_client,
                max_waiting: limits.max_waiting,
                takeover_probe: timeouts.takeover_probe,
                setup: timeouts.setup,
                first_epoch: first_epoch(),
            },
            directory.clone(),
        );
        let channels = Channels::new(registry.clone());
        let lanes = Lanes::new(registry.clone(), channels.clone(), &limits, &timeouts);
        let lanes = Arc::new(lanes);
        let service = Service::new(
            registry.clone(),
            channels.clone(),
            directory.clone(),
            Arc::new(authenticator),
            limits.clone(),
            timeouts.clone(),
        );

        let permits = Gate::new(limits.max_requests, limits.max_waiting);
        // Every request passes these, in this order.
        let chain: Vec<Box<dyn Layer>> = vec![
            Box::new(layers::HopByHop),
            Box::new(layers::Forwarded),
            Box::new(layers::Permits::new(permits.clone(), timeouts.permit_wait)),
        ];
        let http = Http::new(
            HttpConfig {
                head_timeout: timeouts.head,
                idle_timeout: timeouts.idle,
                stall_timeout: timeouts.stall,
                service_timeout: timeouts.service,
                max_connections: limits.max_connections,
                inline_body_bytes: (8 * 1024).min(limits.initial_window_bytes as usize / 2),
                ..HttpConfig::default()
            },
            chain,
            Arc::new(Steering::new(directory.clone(), &timeouts, now)),
        );

        let drain = watch::Sender::new(false);
        let stop = watch::Sender::new(false);
        let visitors = TaskTracker::new();
        let clients = TaskTracker::new();
        let serve = {
            let (http, registry, lanes) = (http.clone(), registry.clone(), lanes.clone());
            let (visitors, clients) = (visitors.clone(), clients.clone());
            let (drain, stop) = (drain.subscribe(), stop.subscribe());
            let setup = timeouts.setup;
            Arc::new(move |stream: TcpStream, peer, port| match port {
                Port::Visitors => {
                    let http = http.clone();
                    let drained = said(drain.clone());
                    let served = async move { http.serve(stream, peer, drained).await };
                    Box::pin(visitors.track_future(served)) as _
                }
                Port::Clients => {
                    let room = (service.clone(), lanes.clone(), registry.clone());
                    let channels = channels.clone();
                    let stopped = said(stop.clone());
                    let served = async move {
                        let channel = ChannelId::next();
                        tokio::select! {
                            () = serve_client(stream, peer, channel, &room, stopped) => {}
                            () = channels.unused(channel, setup) => {
                                tracing::debug!(%peer, "client connection closed: it was of no use");
                            }
                        }
                        room.2.channel_closed(channel);
                    };
                    Box::pin(clients.track_future(served)) as _
                }
            })
        };
        let accept = {
            let drain = drain.subscribe();
            let stop = stop.subscribe();
            move |dealer| {
                Box::pin(accept_both(
                    clients_port,
                    visitors_port,
                    dealer,
                    drain,
                    stop,
                )) as _
            }
        };
        let threads = Threads::start(settings.threads, serve, &stop.subscribe(), accept)
            .map_err(StartError::Thread)?;
        let inner = Arc::new(Inner {
            started: now,
            tunnel_addr,
            http_addr,
            registry,
            directory,
            lanes,
            http,
            permits,
            drain: drain.subscribe(),
            runtimes: threads.runtimes(),
        });
        Ok(Self {
            inner,
            threads,
            drain,
            stop,
            visitors,
            clients,
            drain_within: timeouts.drain,
        })
    }

    /// Where clients connect.
    pub fn tunnel_addr(&self) -> SocketAddr {
        self.inner.tunnel_addr
    }

    /// Where visitors connect.
    pub fn http_addr(&self) -> SocketAddr {
        self.inner.http_addr
    }

    /// For those who ask.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle {
            inner: self.inner.clone(),
        }
    }

    /// Takes no more visitors and lets those that are here finish, at most for the time in the settings.
    pub async fn drain(&self) {
        self.drain.send_replace(true);
        for link in self.inner.registry.links() {
            let drain = Kind::Drain(Drain {
                reason: "the server is stopping".into(),
                grace_millis: u64::try_from(self.drain_within.as_millis()).unwrap_or(u64::MAX),
            });
            link.send_control(control_message(0, drain));
        }
        self.visitors.close();
        let left = self.visitors.len();
        if left > 0 {
            tracing::info!(connections = left, within = ?self.drain_within, "finishing what is running");
        }
        if tokio::time::timeout(self.drain_within, self.visitors.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.visitors.len(),
                "broken off: the time to finish is over"
            );
        }
    }

    /// Ends everything at once and waits for the threads.
    pub async fn stop(mut self) {
        self.drain.send_replace(true);
        self.inner
            .registry
            .close(&Failure::new(Reason::Draining, "the server is stopping"));
        self.clients.close();
        self.visitors.close();
        let closed = async {
            self.clients.wait().await;
            self.visitors.wait().await;
        };
        // What is left after that is cut by the end of its runtime.
        let _ = tokio::time::timeout(CLOSE_GRACE, closed).await;
        self.stop.send_replace(true);
        self.threads.join();
    }
}

impl ServerHandle {
    /// What the server is doing. Walks links and open requests.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Which rule takes a URL, and why no other does.
    ///
    /// # Errors
    /// A text when it is no URL.
    pub fn explain(&self, url: &str) -> Result<RouteStatus, String> {
        let uri: http::Uri = url
            .parse()
            .map_err(|error| format!("`{url}` is no URL: {error}"))?;
        let host = uri.authority().map(http::uri::Authority::as_str);
        let snapshot = self.inner.directory.snapshot();
        let explanation = snapshot.routes.explain(&Query::new(host, uri.path()));
        let chosen = explanation
            .chosen()
            .and_then(|chosen| snapshot.routes.rules().get(chosen.index));
        Ok(RouteStatus {
            url: url.to_owned(),
            revision: snapshot.revision,
            tunnel: chosen.map(|rule| rule.target.name().to_owned()),
            explanation: explanation.to_string(),
        })
    }
}

impl Inner {
    fn status(&self) -> Status {
        let tasks = self
            .runtimes
            .iter()
            .map(|runtime| runtime.metrics().num_alive_tasks())
            .sum();
        let mut cores = CoreCounters {
            router_revision: self.directory.revision(),
            auth_accepted: self.registry.stats().registered,
            ..CoreCounters::default()
        };
        let mut pending = 0;
        let mut clients = Vec::new();
        for link in self.registry.links() {
            let stats = link.stats();
            let mut client = ClientStatus {
                client_id: link.grant().client().to_string(),
                group_id: link.grant().group().to_string(),
                user: link.grant().user().to_string(),
                epoch: link.epoch(),
                lanes: stats.lanes.len(),
                control: stats.control,
                draining: link.is_draining(),
                requests: link.permits().in_use(),
                waiting_bytes: 0,
                pinned_bytes: 0,
                queued_bytes: 0,
                opened: 0,
                messages_per_batch: 0.0,
            };
            let (mut messages, mut batches) = (0, 0);
            for lane in &stats.lanes {
                client.waiting_bytes += lane.waiting_bytes;
                client.pinned_bytes += lane.pinned_bytes;
                client.queued_bytes += lane.mux.queued;
                client.opened += lane.mux.opened;
                messages += lane.mux.messages_sent;
                batches += lane.mux.batches_sent;
                cores.codec_messages += lane.mux.messages_sent + lane.mux.messages_received;
                cores.mux_batches += lane.mux.batches_sent;
                cores.flow_windows += lane.mux.windows_sent;
                let settled = &lane.pending;
                cores.pending_settled +=
                    settled.completed + settled.failed + settled.cancelled + settled.expired;
                pending += usize::try_from(settled.waiting).unwrap_or(usize::MAX);
            }
            #[allow(clippy::cast_precision_loss)] // a ratio for people
            if batches > 0 {
                client.messages_per_batch = messages as f64 / batches as f64;
            }
            clients.push(client);
        }
        let mut tunnels = Vec::new();
        for (tunnel, public_url) in self.directory.tunnels() {
            cores.balance_choices += tunnel.choices().chosen;
            tunnels.push(TunnelStatus {
                name: tunnel.name.to_string(),
                group_id: tunnel.key.group.to_string(),
                public_url,
                load_balance: tunnel.definition.policy.name(),
                clients: tunnel.clients().iter().map(ToString::to_string).collect(),
            });
        }
        let visitors = self.http.stats();
        let registry = self.registry.stats();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            uptime_millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            tunnel_addr: self.tunnel_addr.to_string(),
            http_addr: self.http_addr.to_string(),
            phase: if *self.drain.borrow() {
                "draining"
            } else {
                "running"
            },
            clients,
            tunnels,
            visitors: VisitorStatus {
                connections_open: visitors.connections_open,
                connections: visitors.connections,
                requests_open: visitors.requests_open,
                requests: visitors.requests,
                retries: visitors.retries,
                failures: Reason::ALL
                    .iter()
                    .map(|reason| (reason.as_str(), visitors.failed(*reason)))
                    .filter(|(_, count)| *count > 0)
                    .collect::<BTreeMap<_, _>>(),
            },
            process: ProcessStatus {
                tasks,
                sessions: registry.links,
                channels: registry.channels,
                pending,
                permits_in_use: self.permits.in_use(),
                budget_used_bytes: self.lanes.budget_used(),
            },
            cores,
        }
    }
}

fn bind(what: &'static str, addr: SocketAddr) -> Result<(StdListener, SocketAddr), StartError> {
    let fail = |error| StartError::Bind { what, addr, error };
    let listener =
        listener::bind(addr).map_err(|error| fail(io::Error::other(error.to_string())))?;
    let local = listener.local_addr().map_err(fail)?;
    Ok((listener, local))
}

/// Epochs grow over restarts without being stored: the time of the start, with room for a million registrations a
/// second.
fn first_epoch() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() << 20 | u64::from(since.subsec_micros())
}

/// Completes when the flag says true, or nobody is left to say it.
async fn said(mut flag: watch::Receiver<bool>) {
    let _ = flag.wait_for(|said| *said).await;
}

async fn accept_both(
    clients: StdListener,
    visitors: StdListener,
    dealer: Dealer,
    drain: watch::Receiver<bool>,
    stop: watch::Receiver<bool>,
) {
    let listeners = TcpListener::from_std(clients)
        .and_then(|clients| TcpListener::from_std(visitors).map(|visitors| (clients, visitors)));
    let (clients, visitors) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => {
            tracing::error!(%error, "the listening sockets cannot be used");
            return;
        }
    };
    // Clients may come as long as visitors are being served; new visitors no longer.
    tokio::join!(
        accept(&clients, Port::Clients, &dealer, said(stop)),
        async {
            accept(&visitors, Port::Visitors, &dealer, said(drain)).await;
            drop(visitors);
        },
    );
}

async fn accept(
    listener: &TcpListener,
    port: Port,
    dealer: &Dealer,
    until: impl Future<Output = ()>,
) {
    let mut until = std::pin::pin!(until);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = until.as_mut() => return,
        };
        match accepted {
            Ok((stream, peer)) => dealer.deal(stream, peer, port),
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Whoever left the queue before it was taken costs the others no time.
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_client(
    stream: TcpStream,
    peer: SocketAddr,
    channel: ChannelId,
    (service, lanes, _): &(Service, Arc<Lanes>, Arc<Registry>),
    stopped: impl Future<Output = ()>,
) {
    if let Err(error) = prepare_socket(&stream) {
        tracing::debug!(%peer, %error, "socket options");
    }
    let generated = TunnelServiceServer::new(service.clone());
    let endpoint = Endpoint::new(generated, lanes.clone(), channel, peer);
    tracing::debug!(%peer, channel = channel.value(), "client connected");
    if let Err(error) = serve_connection(stream, endpoint, stopped).await {
        tracing::debug!(%peer, channel = channel.value(), %error, "client connection ended");
    }
}
