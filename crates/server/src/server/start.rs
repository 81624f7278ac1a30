//! Builds a server from its settings, from the inside out: permits and upstreams, the directory, the clients' side, the
//! visitors' side, and last the threads that accept.

use std::{
    collections::HashSet,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use adit_auth::{NoRecords, RecordStore, UserName};
use adit_flow::{Budget, Gate};
use adit_ingress::layers::Access;
use adit_link::grpc::Methods;
use adit_net::{Descriptors, descriptors_for_visitors};
use adit_registry::Registry;
use adit_trace::{NoObserver, Observer};
use tokio::{
    runtime::Handle,
    sync::watch,
    task,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::task::TaskTracker;

use super::{
    Server,
    accept::{Serving, Sockets},
    error::StartError,
    https::Https,
    inner::Inner,
    part_configs::{access_bounds, directory_limits, registry_config, shares, upstream_limits},
    reconfigure::Reconfigure,
    visitors::Visitors,
};
use crate::{
    authentication::Authentication,
    authorization::Authorization,
    channels::Channels,
    client_port::ClientPort,
    clients_tls::ClientsTls,
    configuration::{ConfigSource, Configuration, FixedSource, InForce},
    connection_bounds::ConnectionBounds,
    director::ServerDirector,
    directory::{Directory, DirectoryConfig, HttpsUrls},
    enrolment::Enrolment,
    floods::Floods,
    forward_auth::providers,
    guesses::Guesses,
    identities::Identities,
    issued::Issued,
    lanes::Lanes,
    names::NamesFile,
    newcomers::Newcomers,
    ports::{PortContext, Ports},
    service::Service,
    settings::Settings,
    shortcuts::Shortcuts,
    threads::{Guard, Threads},
    traffic::{Traffic, UsageFile},
    upstreams::Upstreams,
    usage_keeper::UsageKeeper,
    worker::{self, Announcer},
};

/// How often removed servers of upstreams without requests are dropped.
const RETIRED_LOOK: Duration = Duration::from_secs(1);

/// How often the certificate for clients is compared with the clock.
const RENEWAL_LOOK: Duration = Duration::from_secs(1);

/// How often the credentials of clients are looked at: a revocation ends links within this time.
const IDENTITIES_LOOK: Duration = Duration::from_millis(250);

/// How often the times at which credentials were used are stored.
const USES_KEPT: Duration = Duration::from_secs(60);

/// How often tunnels without clients are removed: at least this often, and more often for a short retention.
const FORGET_LOOK: Duration = Duration::from_secs(10);
const FORGET_LOOK_LEAST: Duration = Duration::from_millis(100);

impl Server {
    /// Binds both ports and starts the data threads.
    ///
    /// # Errors
    /// [`StartError`], which names the setting to change.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        Self::start_observed(settings, &(Arc::new(NoObserver) as _))
    }

    /// [`Server::start`] with an observer, which receives the record of every request, of visitors and to upstreams.
    ///
    /// # Errors
    /// Returns the errors of [`Server::start`].
    pub fn start_observed(
        settings: &Settings,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let source = Arc::new(FixedSource::new(settings.clone()));
        Self::start_from(source, Arc::new(NoRecords), observer)
    }

    /// Starts with the newest configuration of a source and with the credentials of a store, and follows both.
    ///
    /// # Errors
    /// Returns the errors of [`Server::start`].
    pub fn start_from(
        source: Arc<dyn ConfigSource>,
        store: Arc<dyn RecordStore>,
        observer: &Arc<dyn Observer>,
    ) -> Result<Self, StartError> {
        let now = Instant::now();
        let mut changes = source.watch();
        let started = changes.borrow_and_update().clone();
        let in_force = InForce::new(started.clone(), source);
        let settings = &started.settings;
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        let identities = Identities::start(settings, store).map_err(StartError::Identities)?;
        let (clients_port, tunnel_addr) = bind("clients", settings.tunnel_addr)?;
        let (visitors_port, http_addr) = bind("visitors", settings.http_addr)?;
        let https_port = { settings.https.as_ref() }
            .map(|https| bind("HTTPS visitors", https.addr))
            .transpose()?;
        let (https_port, https_addr) = https_port.unzip();
        let tls = ClientsTls::start(&settings.tls, tunnel_addr, &settings.state_dir)?;
        let tls = Arc::new(tls);

        let shares = shares(limits);
        let permits = Gate::shared(limits.max_requests, limits.max_waiting, shares);
        let budget = Budget::new(limits.process_budget_bytes);
        let mut visitors_share = descriptors_for_visitors();
        if !settings.upstreams.is_empty() {
            // The other half is for connections to the servers of upstreams.
            visitors_share /= 2;
        }
        let upstream_limits = upstream_limits(limits, visitors_share);
        let upstreams = Upstreams::new(
            &settings.upstreams,
            &upstream_limits,
            timeouts,
            permits.clone(),
            observer.clone(),
        )?;
        let shortcuts = Shortcuts::new(upstreams.clone(), &upstream_limits, timeouts, &budget)?;

        let floods = Floods::new();
        let bounds = ConnectionBounds::of(visitors_share);
        let https = match (&settings.https, https_addr) {
            (Some(https), Some(addr)) => {
                let shared = (floods.clone(), in_force.clone());
                let https = Https::new(addr, settings, https, bounds, shared);
                Some(https.map_err(StartError::Https)?)
            }
            _ => None,
        };
        let access = Access::new(access_bounds(settings));
        access.set_providers(providers(&settings.forward_auth)?);
        let ports = Ports::new(tunnel_addr.ip(), limits.allow_ports.clone());
        let directory = Arc::new(Directory::new(
            directory_config(settings, (tunnel_addr, http_addr), https.as_deref()),
            &settings.rules,
            (&shortcuts, &upstreams.current()),
            ports.clone(),
            access.clone(),
        )?);
        let names = owners(&directory, &settings.state_dir, &identities);
        let usage = (!settings.state_dir.as_os_str().is_empty())
            .then(|| UsageFile::in_dir(&settings.state_dir));
        let used = usage.as_ref().map(UsageFile::read).transpose();
        let used = used.map_err(StartError::Usage)?.unwrap_or_default();
        let traffic = Traffic::new(&limits.traffic, used);
        if usage.is_none() && limits.traffic.has_quota() {
            tracing::warn!(
                "without a state directory (`server.state_dir`), quotas count from zero when the server restarts"
            );
        }
        directory.set_traffic(traffic.clone());
        let usage = UsageKeeper::new(traffic.clone(), usage);

        let registry = Registry::new(registry_config(settings, first_epoch()), directory.clone());
        let channels = Channels::new(registry.clone());
        let guesses = Arc::new(Guesses::new(limits.max_denials_per_minute));
        let authorization = Authorization::new(identities.clone(), registry.clone());
        let newcomers = Newcomers::new(
            limits.max_unauthenticated,
            limits.max_unauthenticated_per_address,
        );
        let lanes = Arc::new(Lanes {
            registry: registry.clone(),
            channels: channels.clone(),
            floods: floods.clone(),
            config: in_force.clone(),
            budget: budget.clone(),
            upstreams: upstreams.clone(),
            authorization: authorization.clone(),
            traffic: traffic.clone(),
        });
        let drain = watch::Sender::new(false);
        let stop = watch::Sender::new(false);
        let look = (timeouts.tunnel_retention / 4).clamp(FORGET_LOOK_LEAST, FORGET_LOOK);
        let (announcer, worker) =
            worker::start(directory.clone(), names, usage, look, stop.subscribe())
                .map_err(StartError::Thread)?;
        let service = Service::new(
            registry.clone(),
            (channels.clone(), floods.clone()),
            (directory.clone(), announcer.clone()),
            upstreams.clone(),
            (
                authorization.clone(),
                Authentication::new(
                    authorization.clone(),
                    identities.clone(),
                    (floods.clone(), guesses.clone()),
                    in_force.clone(),
                ),
                Enrolment::new(identities.clone(), tls.clone()),
            ),
            in_force.clone(),
        );
        let client_port = ClientPort {
            methods: Methods::new(Arc::new(service)),
            registry: registry.clone(),
            lanes: lanes.clone(),
            channels,
            tls: tls.acceptor(),
            newcomers: newcomers.clone(),
            floods: floods.clone(),
            config: in_force.clone(),
        };

        let director = Arc::new(ServerDirector::new(
            directory.clone(),
            authorization.clone(),
            traffic.clone(),
            timeouts,
            now,
        ));
        let entries = Visitors::new(
            settings,
            (permits.clone(), access.clone()),
            director,
            (observer.clone(), bounds),
        );

        let visitors = TaskTracker::new();
        let clients = TaskTracker::new();
        let serving = Serving {
            client_port,
            entries: entries.clone(),
            https: https.clone(),
            directory: directory.clone(),
            visitors: visitors.clone(),
            clients: clients.clone(),
            drain: drain.subscribe(),
            stop: stop.subscribe(),
        };
        let reconfigure = Reconfigure {
            in_force: in_force.clone(),
            started: started.clone(),
            registry: registry.clone(),
            directory: directory.clone(),
            entries: entries.clone(),
            shortcuts,
            upstreams: upstreams.clone(),
            tls: tls.clone(),
            identities: identities.clone(),
            authorization,
            guesses,
            https: https.clone(),
            newcomers: newcomers.clone(),
            permits: permits.clone(),
            access: access.clone(),
            budget,
            traffic: traffic.clone(),
            visitors_share,
            ports: ports.clone(),
        };
        let follow = follow(changes, reconfigure, announcer.clone(), upstreams.clone());
        let accept = {
            let (ports, udp) = (ports.clone(), entries.udp().clone());
            let sockets = Sockets {
                clients: clients_port,
                visitors: visitors_port,
                https: https_port,
            };
            let drain = drain.subscribe();
            let stop = stop.subscribe();
            move |acceptor| {
                let accepting = async move {
                    // This task ends with the runtime.
                    tokio::spawn(follow);
                    let context = Arc::new(PortContext {
                        accepting: Handle::current(),
                        acceptor,
                        udp,
                        drain: drain.clone(),
                    });
                    ports.start(&context);
                    sockets.accept(&context.acceptor, drain, stop).await;
                };
                Box::pin(accepting) as _
            }
        };
        // Before any client or visitor comes: stored certificates are in force, and URLs have the right scheme.
        let issued = match (&settings.https, &https) {
            (Some(own), Some(https)) => {
                let challenges = entries.challenges().cloned().unwrap_or_default();
                let hosts = (directory.clone(), in_force.clone());
                Issued::start(
                    own,
                    &settings.state_dir,
                    https.certificates(),
                    challenges,
                    hosts,
                )
                .map_err(StartError::Acme)?
            }
            _ => None,
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
            in_force,
            tunnel_addr,
            http_addr,
            https,
            issued,
            tls,
            registry,
            newcomers,
            floods,
            directory,
            announcer,
            lanes,
            upstreams,
            entries,
            ports,
            permits,
            access,
            traffic,
            identities,
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
        })
    }
}

/// Applies the configurations of a source, one after the other, until the source or the server ends.
async fn follow(
    mut changes: watch::Receiver<Arc<Configuration>>,
    reconfigure: Reconfigure,
    announcer: Announcer,
    upstreams: Arc<Upstreams>,
) {
    let reconfigure = Arc::new(reconfigure);
    tokio::spawn(follow_identities(reconfigure.clone()));
    tokio::spawn(keep_uses(reconfigure.clone()));
    let (mut renewal, mut look) = (every(RENEWAL_LOOK), every(RETIRED_LOOK));
    let mut is_open = true;
    loop {
        tokio::select! {
            changed = changes.changed(), if is_open => {
                is_open = changed.is_ok();
                if is_open {
                    let next = changes.borrow_and_update().clone();
                    let reconfigure = reconfigure.clone();
                    announcer.run(move || reconfigure.apply(&next)).await;
                }
            }
            _ = look.tick() => upstreams.forget_retired(),
            _ = renewal.tick() => {
                let reconfigure = reconfigure.clone();
                announcer.run(move || reconfigure.renew()).await;
            }
        }
    }
}

/// Follows the credentials in the store until the server ends. The store waits for its disk: it is used neither by data
/// threads nor by that of the directory.
async fn follow_identities(reconfigure: Arc<Reconfigure>) {
    let mut look = every(IDENTITIES_LOOK);
    loop {
        look.tick().await;
        let reconfigure = reconfigure.clone();
        let done = task::spawn_blocking(move || reconfigure.follow_identities());
        if let Err(error) = done.await {
            tracing::error!(%error, "the credentials of clients are not followed");
        }
    }
}

/// Stores the last uses of credentials until the server ends, apart from the looks: a revocation does not wait for it.
async fn keep_uses(reconfigure: Arc<Reconfigure>) {
    let mut uses = every(USES_KEPT);
    loop {
        uses.tick().await;
        let reconfigure = reconfigure.clone();
        let done = task::spawn_blocking(move || reconfigure.keep_uses());
        if let Err(error) = done.await {
            tracing::error!(%error, "the last uses of credentials are not kept");
        }
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn directory_config(
    settings: &Settings,
    (tunnel_addr, http_addr): (SocketAddr, SocketAddr),
    https: Option<&Https>,
) -> DirectoryConfig {
    let mut config = DirectoryConfig {
        domain: settings.domain.clone(),
        limits: settings.limits.clone(),
        shared_groups: Vec::new(),
        retention: Duration::ZERO,
        max_orphans: 0,
        bind_ip: tunnel_addr.ip(),
        public_port: http_addr.port(),
        public_url: settings.public_url,
        https: https.map(|https| HttpsUrls {
            port: https.addr().port(),
            certificates: https.certificates().clone(),
            acme: { settings.https.as_ref() }.and_then(|https| https.acme.clone()),
        }),
        clients_port: tunnel_addr.port(),
    };
    directory_limits(&mut config, settings);
    config
}

/// Gives the directory the owners of names of an earlier run. The server starts even if their file is unusable.
fn owners(directory: &Directory, state_dir: &Path, identities: &Identities) -> Option<NamesFile> {
    if state_dir.as_os_str().is_empty() {
        return None;
    }
    let file = NamesFile::in_dir(state_dir);
    let path = file.path().display();
    match file.read() {
        Ok(records) => {
            let users = { records.iter() }.filter_map(|record| UserName::parse(&record.user).ok());
            // Those that issuers name are not known before they come.
            let users = users.filter(|user| identities.may_name(user));
            let users: HashSet<_> = users.chain(identities.users()).collect();
            let unreadable = directory.restore(records, &users);
            if unreadable > 0 {
                tracing::warn!(%path, entries = unreadable, "some owners of names have a form unknown to this version and are dropped");
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

/// Epochs grow across restarts without being stored: they begin at the time of the start, with room for a million
/// registrations a second.
fn first_epoch() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() << 20 | u64::from(since.subsec_micros())
}
