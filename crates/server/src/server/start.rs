//! Builds a server from its settings, from the inside out: permits and upstreams, the directory, the clients' side, the
//! visitors' side, and last the threads that accept.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_auth::{TokenAuthenticator, UserName};
use adit_flow::{Budget, Gate, Shares};
use adit_ingress::{Admission, Http, Tcp, Udp};
use adit_link::grpc::Methods;
use adit_net::{Descriptors, descriptors_for_visitors};
use adit_registry::Registry;
use adit_trace::{NoObserver, Observer};
use tokio::{runtime::Handle, sync::watch};
use tokio_util::task::TaskTracker;

use super::{
    Server,
    accept::{Serving, accept_both},
    error::StartError,
    inner::Inner,
    visitors::{chain, http_config, tcp_config, udp_config},
};
use crate::{
    channels::Channels,
    client_port::ClientPort,
    director::ServerDirector,
    directory::{Directory, DirectoryConfig},
    floods::Floods,
    lanes::Lanes,
    names::NamesFile,
    newcomers::Newcomers,
    ports::{PortContext, Ports},
    service::Service,
    settings::{Limits, Settings},
    shortcuts::Shortcuts,
    threads::{Guard, Threads},
    upstreams::Upstreams,
    worker,
};

/// How often tunnels are looked for that nobody has served for too long: at most, and for a short retention.
const FORGET_LOOK: Duration = Duration::from_secs(10);
const FORGET_LOOK_LEAST: Duration = Duration::from_millis(100);

impl Server {
    /// Binds both ports and starts the data threads.
    ///
    /// # Errors
    /// [`StartError`], which says what to change.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        Self::start_observed(settings, &(Arc::new(NoObserver) as _))
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
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        let (authenticator, users) = authenticator(settings)?;
        let (clients_port, tunnel_addr) = bind("clients", settings.tunnel_addr)?;
        let (visitors_port, http_addr) = bind("visitors", settings.http_addr)?;

        let shares = Shares {
            tunnel_percent: limits.tunnel_share_percent,
            visitor_percent: limits.visitor_share_percent,
        };
        let permits = Gate::shared(limits.max_requests, limits.max_waiting, shares);
        let budget = Budget::new(limits.process_budget_bytes);
        let mut visitors_share = descriptors_for_visitors();
        if !settings.upstreams.is_empty() {
            // The other half is for connections to the servers of upstreams.
            visitors_share /= 2;
        }
        let upstream_limits = Limits {
            max_requests: limits.max_requests.min(visitors_share),
            ..limits.clone()
        };
        let upstreams = Upstreams::new(
            &settings.upstreams,
            &upstream_limits,
            timeouts,
            permits.clone(),
            observer.clone(),
        )?;
        let shortcuts = Shortcuts::new(upstreams.clone(), &upstream_limits, timeouts, &budget)?;

        let ports = Ports::new(tunnel_addr.ip(), limits.allow_ports.clone());
        let directory = Arc::new(Directory::new(
            directory_config(settings, tunnel_addr, http_addr),
            &settings.rules,
            &shortcuts,
            ports.clone(),
        )?);
        let names = owners(&directory, &settings.state_dir, &users);

        let registry = Registry::new(registry_config(settings, shares), directory.clone());
        let channels = Channels::new(registry.clone());
        let floods = Floods::new();
        let newcomers = Newcomers::new(
            limits.max_unauthenticated,
            limits.max_unauthenticated_per_address,
        );
        let lanes = Arc::new(Lanes::new(
            registry.clone(),
            channels.clone(),
            floods.clone(),
            limits,
            timeouts,
            budget,
            upstreams.clone(),
        ));
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
        let client_port = ClientPort {
            methods: Methods::new(Arc::new(service)),
            registry: registry.clone(),
            lanes: lanes.clone(),
            channels,
            newcomers: newcomers.clone(),
            floods: floods.clone(),
            setup: timeouts.setup,
        };

        let admission = Admission::observed(
            chain(settings, &permits),
            Arc::new(ServerDirector::new(directory.clone(), timeouts, now)),
            observer.clone(),
        );
        let http = Http::new(http_config(limits, timeouts), admission.clone());
        let tcp = Tcp::new(tcp_config(limits, timeouts), admission.clone());
        let udp = Udp::new(udp_config(limits, timeouts), admission);

        let visitors = TaskTracker::new();
        let clients = TaskTracker::new();
        let serving = Serving {
            client_port,
            http: http.clone(),
            tcp: tcp.clone(),
            directory: directory.clone(),
            visitors: visitors.clone(),
            clients: clients.clone(),
            drain: drain.subscribe(),
            stop: stop.subscribe(),
        };
        let accept = {
            let (ports, udp) = (ports.clone(), udp.clone());
            let drain = drain.subscribe();
            let stop = stop.subscribe();
            move |acceptor| {
                let accepting = async move {
                    let context = Arc::new(PortContext {
                        accepting: Handle::current(),
                        acceptor,
                        udp,
                        drain: drain.clone(),
                    });
                    ports.start(&context);
                    accept_both(clients_port, visitors_port, &context.acceptor, drain, stop).await;
                };
                Box::pin(accepting) as _
            }
        };
        let guard = Guard {
            descriptors: Descriptors::new(visitors_share),
            floods: floods.clone(),
        };
        let serve = serving.into_serve();
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
}

/// Knows the tokens of the settings; beside it their users.
fn authenticator(settings: &Settings) -> Result<(TokenAuthenticator, Vec<UserName>), StartError> {
    let tokens = settings.tokens.iter().map(|named| {
        let user =
            UserName::parse(&named.user).map_err(|error| StartError::Tokens(error.to_string()))?;
        Ok((user, named.token.clone()))
    });
    let tokens = tokens.collect::<Result<Vec<_>, StartError>>()?;
    let users = tokens.iter().map(|(user, _)| user.clone()).collect();
    let authenticator =
        TokenAuthenticator::new(tokens).map_err(|error| StartError::Tokens(error.to_string()))?;
    Ok((authenticator, users))
}

fn directory_config(
    settings: &Settings,
    tunnel_addr: SocketAddr,
    http_addr: SocketAddr,
) -> DirectoryConfig {
    DirectoryConfig {
        domain: settings.domain.clone(),
        limits: settings.limits.clone(),
        shared_groups: settings.shared_groups.clone(),
        retention: settings.timeouts.tunnel_retention,
        // All clients may lose their links at the same moment, and want them back.
        max_orphans: settings
            .max_clients
            .saturating_mul(settings.limits.max_tunnels_per_client),
        bind_ip: tunnel_addr.ip(),
        public_port: http_addr.port(),
        public_url: settings.public_url,
        clients_port: tunnel_addr.port(),
    }
}

fn registry_config(settings: &Settings, shares: Shares) -> adit_registry::Config {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    adit_registry::Config {
        max_clients: settings.max_clients,
        max_requests_per_client: limits.max_requests_per_client,
        max_waiting: limits.max_waiting,
        shares,
        takeover_probe: timeouts.takeover_probe,
        setup: timeouts.setup,
        first_epoch: first_epoch(),
    }
}

/// Gives the directory the owners of names of an earlier run. Whatever is wrong with their file, the server starts.
fn owners(directory: &Directory, state_dir: &Path, users: &[UserName]) -> Option<NamesFile> {
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
        adit_net::bind(addr).map_err(|error| fail(io::Error::other(error.to_string())))?;
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
