//! A running server: listeners, data threads, and the order in which they end.

mod report;

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_auth::{TokenAuthenticator, UserName};
use adit_codec::ProtocolType;
use adit_flow::{Budget, Gate, Shares};
use adit_ingress::{
    Admission, Http, HttpConfig, Layer, Tcp, TcpConfig, Udp, UdpConfig,
    descriptors::{self, Descriptors},
    layers, listener,
};
use adit_link::{Failure, Reason};
use adit_proto::{Drain, control::Kind};
use adit_registry::Registry;
use adit_router::Query;
use adit_trace::{Observer, Unobserved};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::watch,
};
use tokio_util::task::TaskTracker;

use crate::{
    channels::Channels,
    client_port::ClientPort,
    director::Steering,
    directory::{Directory, DirectoryConfig, RuleError, Target},
    floods::Floods,
    generated::Generated,
    lanes::Lanes,
    names::{Name, NamesFile},
    newcomers::Newcomers,
    ports::{Ground, Ports},
    service::{Service, control_message},
    settings::{Limits, Settings},
    status::{RouteStatus, Status},
    threads::{Dealer, Guard, Port, Threads, accept},
    upstreams::{UpstreamError, Upstreams},
    worker::{self, Announcer},
};

/// How often a drain looks whether what clients opened has finished.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// What is on its way in UDP flows may still come when everything else has finished: they have no end to wait for.
const FLOWS_GRACE: Duration = Duration::from_millis(500);

/// The last answers to clients have left the request table, and may still be on their way to the socket: of those to
/// visitors, their connections know.
const ANSWERS_GRACE: Duration = Duration::from_millis(250);

/// How often tunnels are looked for that nobody has served for too long: at most, and for a short retention.
const FORGET_LOOK: Duration = Duration::from_secs(10);
const FORGET_LOOK_LEAST: Duration = Duration::from_millis(100);

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
    /// An upstream is wrong.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
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
    worker: std::thread::JoinHandle<()>,
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
    newcomers: Arc<Newcomers>,
    floods: Arc<Floods>,
    directory: Arc<Directory>,
    announcer: Announcer,
    lanes: Arc<Lanes>,
    upstreams: Arc<Upstreams>,
    http: Arc<Http>,
    tcp: Arc<Tcp>,
    udp: Arc<Udp>,
    ports: Arc<Ports>,
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
        Self::start_observed(settings, &(Arc::new(Unobserved) as _))
    }

    /// [`Server::start`]; `observer` is told of every request, at the visitors' side and at that of the upstreams.
    ///
    /// # Errors
    /// Those of [`Server::start`].
    pub fn start_observed(
        settings: &Settings,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let now = Instant::now();
        let tokens = settings.tokens.iter().map(|named| {
            let user = UserName::parse(&named.user)
                .map_err(|error| StartError::Tokens(error.to_string()))?;
            Ok((user, named.token.clone()))
        });
        let tokens = tokens.collect::<Result<Vec<_>, StartError>>()?;
        let users: Vec<_> = tokens.iter().map(|(user, _)| user.clone()).collect();
        let authenticator = TokenAuthenticator::new(tokens)
            .map_err(|error| StartError::Tokens(error.to_string()))?;

        let (clients_port, tunnel_addr) = bind("clients", settings.tunnel_addr)?;
        let (visitors_port, http_addr) = bind("visitors", settings.http_addr)?;

        let limits = settings.limits.clone();
        let timeouts = settings.timeouts.clone();
        let mut visitors_share = descriptors::for_visitors();
        if !settings.upstreams.is_empty() {
            // The other half is for connections to the servers of upstreams.
            visitors_share /= 2;
        }
        let upstream_limits = Limits {
            max_requests: limits.max_requests.min(visitors_share),
            ..limits.clone()
        };
        let shares = Shares {
            tunnel_percent: limits.tunnel_share_percent,
            visitor_percent: limits.visitor_share_percent,
        };
        let permits = Gate::shared(limits.max_requests, limits.max_waiting, shares);
        let budget = Budget::new(limits.process_budget_bytes);
        let upstreams = Upstreams::new(
            &settings.upstreams,
            &upstream_limits,
            &timeouts,
            &budget,
            permits.clone(),
            observer.clone(),
        )?;
        let ports = Ports::new(tunnel_addr.ip(), limits.allow_ports.clone());
        let directory = Arc::new(Directory::new(
            DirectoryConfig {
                domain: settings.domain.clone(),
                limits: limits.clone(),
                shared_groups: settings.shared_groups.clone(),
                retention: timeouts.tunnel_retention,
                // All clients may lose their links at the same moment, and want them back.
                max_orphans: settings
                    .max_clients
                    .saturating_mul(limits.max_tunnels_per_client),
                bind_ip: tunnel_addr.ip(),
                public_port: http_addr.port(),
                public_url: settings.public_url,
                clients_port: tunnel_addr.port(),
            },
            &settings.rules,
            &upstreams,
            ports.clone(),
        )?);
        let names = owners(&directory, &settings.state_dir, &users);
        let registry = Registry::new(
            adit_registry::Config {
                max_clients: settings.max_clients,
                max_requests_per_client: limits.max_requests_per_client,
                max_waiting: limits.max_waiting,
                shares,
                takeover_probe: timeouts.takeover_probe,
                setup: timeouts.setup,
                first_epoch: first_epoch(),
            },
            directory.clone(),
        );
        let channels = Channels::new(registry.clone());
        let floods = Floods::new();
        let newcomers = Newcomers::new(
            limits.max_unauthenticated,
            limits.max_unauthenticated_per_address,
        );
        let lanes = Lanes::new(
            registry.clone(),
            channels.clone(),
            floods.clone(),
            &limits,
            &timeouts,
            budget,
            upstreams.clone(),
        );
        let lanes = Arc::new(lanes);
        let drain = watch::Sender::new(false);
        let stop = watch::Sender::new(false);
        let look = (timeouts.tunnel_retention / 4).clamp(FORGET_LOOK_LEAST, FORGET_LOOK);
        let (announcer, worker) = worker::start(directory.clone(), names, look, stop.subscribe())
            .map_err(StartError::Thread)?;
        let service = Service::new(
            registry.clone(),
            (channels.clone(), floods.clone()),
            (directory.clone(), announcer.clone()),
            upstreams.clone(),
            Arc::new(authenticator),
            limits.clone(),
            timeouts.clone(),
        );

        // Every request passes these, in this order.
        let chain: Vec<Box<dyn Layer>> = vec![
            Box::new(layers::HopByHop),
            Box::new(layers::Via::new(rand::random())),
            Box::new(layers::Forwarded::new(settings.trusted_proxies.clone())),
            Box::new(layers::Permits::new(permits.clone(), timeouts.permit_wait)),
        ];
        let admission = Admission::observed(
            chain,
            Arc::new(Steering::new(directory.clone(), &timeouts, now)),
            observer.clone(),
        );
        let http = Http::new(
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
                session_keepalive: Some(timeouts.session_keepalive)
                    .filter(|silence| !silence.is_zero()),
                close_timeout: timeouts.session_close,
                max_connections: limits.max_connections,
                turn_bytes: limits.turn_bytes,
                inline_body_bytes: (8 * 1024).min(limits.initial_window_bytes as usize / 2),
                ..HttpConfig::default()
            },
            admission.clone(),
        );
        let tcp = Tcp::new(
            TcpConfig {
                max_connections: limits.max_tcp_connections,
                accept_timeout: timeouts.session_setup,
                stall: timeouts.session_stall,
                shortage_grace: timeouts.shortage_grace,
                keepalive: Some(timeouts.session_keepalive).filter(|silence| !silence.is_zero()),
                ..TcpConfig::default()
            },
            admission.clone(),
        );
        let udp = Udp::new(
            UdpConfig {
                max_flows: limits.max_udp_flows,
                end_timeout: timeouts.session_close,
                ..UdpConfig::default()
            },
            admission,
        );

        let visitors = TaskTracker::new();
        let clients = TaskTracker::new();
        let serve = {
            let client_port = ClientPort {
                generated: Generated::new(&service),
                registry: registry.clone(),
                lanes: lanes.clone(),
                channels,
                newcomers: newcomers.clone(),
                floods: floods.clone(),
                setup: timeouts.setup,
            };
            let http = http.clone();
            let (tcp, directory) = (tcp.clone(), directory.clone());
            let (visitors, clients) = (visitors.clone(), clients.clone());
            let (drain, stop) = (drain.subscribe(), stop.subscribe());
            Arc::new(move |stream: TcpStream, peer, port| match port {
                Port::Tunnel(number) if !directory.is_http_port(number) => {
                    let tcp = tcp.clone();
                    let served = async move {
                        match stream.local_addr() {
                            Ok(local) => tcp.serve(stream, peer, local).await,
                            Err(error) => tracing::debug!(%peer, %error, "the visitor has left"),
                        }
                    };
                    Box::pin(visitors.track_future(served)) as _
                }
                Port::Visitors | Port::Tunnel(_) => {
                    let http = http.clone();
                    let drained = said(drain.clone());
                    let served = async move { http.serve(stream, peer, drained).await };
                    Box::pin(visitors.track_future(served)) as _
                }
                Port::Clients => {
                    let stopped = said(stop.clone());
                    let served = client_port.clone().serve(stream, peer, stopped);
                    Box::pin(clients.track_future(served)) as _
                }
            })
        };
        let accept = {
            let (ports, udp) = (ports.clone(), udp.clone());
            let drain = drain.subscribe();
            let stop = stop.subscribe();
            move |dealer| {
                let accepting = async move {
                    let ground = Arc::new(Ground {
                        accepting: Handle::current(),
                        dealer,
                        udp,
                        drain: drain.clone(),
                    });
                    ports.start(&ground);
                    accept_both(clients_port, visitors_port, &ground.dealer, drain, stop).await;
                };
                Box::pin(accepting) as _
            }
        };
        let guard = Guard {
            descriptors: Descriptors::new(visitors_share),
            floods: floods.clone(),
        };
        let threads = Threads::start(settings.threads, serve, guard, &stop.subscribe(), accept)
            .map_err(StartError::Thread)?;
        let inner = Arc::new(Inner {
            started: now,
            tunnel_addr,
            http_addr,
            registry,
            newcomers,
            floods,
            directory,
            announcer,
            lanes,
            upstreams,
            http,
            tcp,
            udp,
            ports,
            permits,
            drain: drain.subscribe(),
            runtimes: threads.runtimes(),
        });
        Ok(Self {
            inner,
            threads,
            worker,
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

    /// How long [`Server::drain`] takes at most.
    pub const fn drain_within(&self) -> Duration {
        self.drain_within
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
        self.inner.ports.close();
        self.inner.upstreams.drain();
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
        let finished = async {
            self.visitors.wait().await;
            while self.inner.upstreams.in_flight() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
                // Those too that were on their way.
                self.inner.upstreams.close_websockets();
            }
            if self.inner.udp.stats().flows_open > 0 {
                tokio::time::sleep(FLOWS_GRACE).await;
            } else if !self.inner.upstreams.is_empty() {
                tokio::time::sleep(ANSWERS_GRACE).await;
            }
        };
        if tokio::time::timeout(self.drain_within, finished)
            .await
            .is_err()
        {
            tracing::warn!(
                connections = self.visitors.len(),
                entries = self.inner.upstreams.in_flight(),
                "broken off: the time to finish is over"
            );
        }
    }

    /// Ends everything at once and waits for the threads.
    pub async fn stop(mut self) {
        self.drain.send_replace(true);
        self.inner.ports.close();
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
        if self.worker.join().is_err() {
            tracing::error!("the directory's thread panicked");
        }
    }
}

impl ServerHandle {
    /// The requests that run, by tunnel, where there are any; those that clients opened under `upstreams`. Flows of UDP,
    /// which have no end of their own, are left out.
    pub fn running(&self) -> Vec<(String, usize)> {
        let tunnels = self.inner.directory.tunnels().into_iter();
        let tunnels = tunnels.filter(|(tunnel, _)| tunnel.definition.protocol != ProtocolType::Udp);
        let mut running: Vec<_> = tunnels
            .map(|(tunnel, _)| (tunnel.name.to_string(), tunnel.running()))
            .collect();
        running.push(("upstreams".to_owned(), self.inner.upstreams.in_flight()));
        running.retain(|(_, running)| *running > 0);
        running
    }

    /// What the server is doing. Walks links and open requests.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Takes a name from the user that owns it, and with a group all names of the group. How many names were released.
    ///
    /// # Errors
    /// A text when something uses the name.
    pub async fn release(&self, name: Name) -> Result<usize, String> {
        self.inner.announcer.release(name).await
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
        let chosen = explanation.chosen().map(|chosen| &chosen.rule.target);
        let (upstream, tunnel) = match chosen {
            Some(Target::Upstream(to)) => (Some(to.name().to_string()), None),
            other => (None, other.map(|target| target.name().to_owned())),
        };
        Ok(RouteStatus {
            url: url.to_owned(),
            revision: snapshot.revision,
            tunnel,
            upstream,
            explanation: explanation.to_string(),
        })
    }
}

/// Gives the directory the owners of names of an earlier run. Whatever is wrong with their file, the server starts.
fn owners(
    directory: &Directory,
    state_dir: &std::path::Path,
    users: &[UserName],
) -> Option<NamesFile> {
    if state_dir.as_os_str().is_empty() {
        return None;
    }
    let file = NamesFile::in_dir(state_dir);
    let path = file.path().display();
    match file.read() {
        Ok(records) => {
            let unreadable = directory.restore(records, users);
            if unreadable > 0 {
                tracing::warn!(%path, entries = unreadable, "owners of names that this version does not know are forgotten");
            }
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let aside = file.put_aside();
            let aside = aside.map(|aside| aside.display().to_string());
            tracing::warn!(%path, %error, aside = aside.unwrap_or_default(), "the owners of names cannot be read: every name is free");
        }
        Err(error) => {
            tracing::warn!(%path, %error, "the owners of names cannot be read: every name is free");
        }
    }
    Some(file)
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
    dealer: &Dealer,
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
    tokio::join!(accept(&clients, Port::Clients, dealer, said(stop)), async {
        accept(&visitors, Port::Visitors, dealer, said(drain)).await;
        drop(visitors);
    },);
}
