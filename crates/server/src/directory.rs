//! The tunnels of the server, and the snapshot by which visitors are routed.
//!
//! Announcements and static rules produce a new [`Snapshot`], immutable and numbered; routing reads the current one
//! without a lock, and public ports follow it. A snapshot shares unchanged parts with the previous one. A change of the
//! live clients changes a tunnel's balancer, not the snapshot.
//!
//! Long operations such as [`Directory::announce_each`] run on a thread of their own (`worker`), never on a data thread.

mod announce;
mod certificate_hosts;
mod claims;
mod clock;
mod enter_error;
mod index;
mod keep;
mod owner;
mod refusal;
mod rule_hosts;
mod rules;
mod scopes;
mod state;
mod target;
mod visitor_https;

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use adit_acme::Settings as AcmeSettings;
use adit_auth::Grant;
use adit_codec::ProtocolType;
use adit_ingress::layers::Access;
use adit_registry::{Link, MembershipObserver};
use adit_router::{HostPattern, HostRank, Query, ShardedMap, Table};
use adit_tls::Certificates;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

#[cfg(test)]
pub(crate) use self::owner::Owner;
pub use self::rules::RuleError;
use self::{clock::Clock, index::Index, state::State};
pub(crate) use self::{enter_error::EnterError, target::Target};
use crate::{
    names::{Claimant, Ledger, Name},
    port::{PortKey, Transport},
    ports::Ports,
    settings::{Limits, PublicUrl, RuleSettings, Scheme, SharedGroup},
    shortcuts::Shortcuts,
    traffic::Traffic,
    tunnel::{Tunnel, TunnelKey},
    upstreams::UpstreamSet,
};

/// The routes of visitors at one revision.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) routes: Table<Target>,
    /// By the hosts of TLS that is passed through.
    pub(crate) tls_routes: Table<Target>,
    /// The tunnel that holds each public port.
    pub(crate) ports: ShardedMap<PortKey, Arc<Tunnel>>,
}

/// How the directory names hosts, and how long it keeps tunnels and names.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryConfig {
    pub(crate) domain: Option<String>,
    pub(crate) limits: Limits,
    pub(crate) shared_groups: Vec<SharedGroup>,
    /// Tunnels, and names of users, are kept this long after their last use.
    pub(crate) retention: Duration,
    /// Bound of the tunnels without clients; above it those that have been without clients longest are removed, so that
    /// a client that registers again and again under new names cannot fill the table of routes.
    pub(crate) max_orphans: usize,
    /// The address on which public ports are bound; used in public URLs without a domain.
    pub(crate) bind_ip: IpAddr,
    /// Port of HTTP visitors, such as 7080.
    pub(crate) public_port: u16,
    pub(crate) public_url: PublicUrl,
    /// The port for HTTPS visitors, if the server has one.
    pub(crate) https: Option<HttpsUrls>,
    /// The port of the clients. A tunnel can hold neither this port nor the one above.
    pub(crate) clients_port: u16,
}

/// The public URLs of hosts that have certificates.
#[derive(Debug, Clone)]
pub(crate) struct HttpsUrls {
    /// Port of HTTPS visitors, such as 443.
    pub(crate) port: u16,
    pub(crate) certificates: Certificates,
    /// How certificates are obtained; `None`: they are not.
    pub(crate) acme: Option<Arc<AcmeSettings>>,
}

/// The tunnels of the server.
///
/// Locks are taken in this order: `state`, `index`, `names`. The first is held for as long as an announcement takes, the
/// others for some steps.
pub(crate) struct Directory {
    config: ArcSwap<DirectoryConfig>,
    public_port: u16,
    https_port: Option<u16>,
    clients_port: u16,
    ports: Arc<Ports>,
    /// The state of the access layers of tunnels and rules.
    access: Arc<Access>,
    clock: Clock,
    state: Mutex<State>,
    index: Mutex<Index>,
    names: Mutex<Ledger>,
    current: ArcSwap<Snapshot>,
    /// Wakes visitors that wait for an unknown host.
    pub(crate) changed: Notify,
    freed: watch::Sender<u64>,
    /// Counts the tunnels that limits refuse.
    traffic: OnceLock<Arc<Traffic>>,
}

impl Directory {
    pub(crate) fn new(
        config: DirectoryConfig,
        rules: &[RuleSettings],
        (shortcuts, upstreams): (&Arc<Shortcuts>, &UpstreamSet),
        ports: Arc<Ports>,
        access: Arc<Access>,
    ) -> Result<Self, RuleError> {
        let state = State::new(rules::read(rules, shortcuts, upstreams, &access)?)?;
        let names = Ledger::new(
            config.retention,
            config.limits.max_kept_names_per_user,
            &config.shared_groups,
        );
        let directory = Self {
            public_port: config.public_port,
            https_port: config.https.as_ref().map(|https| https.port),
            clients_port: config.clients_port,
            config: ArcSwap::from_pointee(config),
            ports,
            access,
            clock: Clock::start(),
            state: Mutex::new(state),
            index: Mutex::default(),
            names: Mutex::new(names),
            current: ArcSwap::from_pointee(Snapshot {
                revision: 0,
                routes: Table::default(),
                tls_routes: Table::default(),
                ports: ShardedMap::default(),
            }),
            changed: Notify::new(),
            freed: watch::Sender::new(0),
            traffic: OnceLock::new(),
        };
        directory.publish(&mut directory.state.lock());
        Ok(directory)
    }

    /// Counts the tunnels that limits refuse, from now on. Called once.
    pub(crate) fn set_traffic(&self, traffic: Arc<Traffic>) {
        let _ = self.traffic.set(traffic);
    }

    /// Replaces the rules of the configuration, in one snapshot.
    ///
    /// # Errors
    /// [`RuleError`] for the first rule that contradicts another one or a tunnel. Nothing has changed then.
    pub(crate) fn set_rules(
        &self,
        rules: &[RuleSettings],
        (shortcuts, upstreams): (&Arc<Shortcuts>, &UpstreamSet),
        now: Instant,
    ) -> Result<(), RuleError> {
        let rules = rules::read(rules, shortcuts, upstreams, &self.access)?;
        let mut state = self.state.lock();
        let ruled_before = state.ruled_names();
        state.set_rules(rules)?;
        self.follow_rules(&mut state, &ruled_before, now);
        self.publish(&mut state);
        drop(state);
        self.notify_freed();
        Ok(())
    }

    /// Changes bounds and times. Existing tunnels stay as they are.
    pub(crate) fn set_config(&self, change: impl FnOnce(&mut DirectoryConfig)) {
        let mut config = DirectoryConfig::clone(&self.config.load());
        change(&mut config);
        self.names.lock().set_config(
            config.retention,
            config.limits.max_kept_names_per_user,
            &config.shared_groups,
        );
        self.config.store(Arc::new(config));
        self.notify_freed();
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Whether a TCP port belongs to a tunnel of HTTP, gRPC or WebSocket.
    pub(crate) fn is_http_port(&self, number: u16) -> bool {
        let port = PortKey {
            transport: Transport::Tcp,
            number,
        };
        let snapshot = self.current.load();
        let tunnel = snapshot.ports.get(&port);
        tunnel.is_some_and(|tunnel| tunnel.definition.is_http())
    }

    /// The tunnel whose TLS ends at this TCP port.
    pub(crate) fn terminating(&self, number: u16) -> Option<Arc<Tunnel>> {
        let port = PortKey {
            transport: Transport::Tcp,
            number,
        };
        let snapshot = self.current.load();
        let tunnel = snapshot.ports.get(&port)?;
        tunnel.definition.terminates().then(|| tunnel.clone())
    }

    /// Whether the TLS of visitors that ask for this host is passed through: the most specific host of a tunnel or rule
    /// decides, and between equal ones that of the passed-through TLS (P-14.8).
    pub(crate) fn passes_through(&self, host: &str) -> bool {
        self.passed_through(host).is_some()
    }

    /// The name of the tunnel to which the TLS for this host is passed through, if it is.
    pub(crate) fn passed_through(&self, host: &str) -> Option<Arc<str>> {
        let snapshot = self.current.load();
        if snapshot.tls_routes.is_empty() {
            return None;
        }
        let tls = snapshot.tls_routes.host_rank(host);
        if tls == HostRank::Any || tls < snapshot.routes.host_rank(host) {
            return None;
        }
        let query = Query::new(Some(host), "/");
        match snapshot.tls_routes.route(&query).ok()??.target() {
            Target::Tunnel(tunnel, _) => Some(tunnel.name.clone()),
            Target::Upstream(_) | Target::Unannounced(_) => None,
        }
    }

    /// Whether tunnels share a TCP port of the server, so that the host selects the tunnel.
    pub(crate) fn is_shared(&self, port: u16) -> bool {
        port == self.public_port || Some(port) == self.https_port
    }

    /// The port for clients.
    pub(crate) const fn clients_port(&self) -> u16 {
        self.clients_port
    }

    pub(crate) fn revision(&self) -> u64 {
        self.current.load().revision
    }

    /// Changes whenever a name, a host or a port may have become free: a refused tunnel may be announced again.
    pub(crate) fn freed(&self) -> watch::Receiver<u64> {
        self.freed.subscribe()
    }

    fn notify_freed(&self) {
        self.freed.send_modify(|count| *count += 1);
    }

    /// Removes one client from a tunnel; the other clients of the group keep serving it. A tunnel without other clients
    /// is removed at once. Returns whether the client served it.
    pub(crate) fn withdraw(&self, link: &Arc<Link>, name: &str, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Ok(name) = adit_auth::TunnelName::parse(name) else {
            return false;
        };
        let group = link.grant().group().clone();
        let Some(tunnel) = state.get(&TunnelKey { group, name }).cloned() else {
            return false;
        };
        if !self.index.lock().leave(&tunnel, link, now) {
            return false;
        }
        if tunnel.orphaned().is_some() {
            self.remove(&mut state, &tunnel.key, now);
            self.publish(&mut state);
            self.notify_freed();
        }
        true
    }

    /// Removes tunnels that have had no client for the retention, and closes their ports; and names that were unused
    /// for the retention.
    pub(crate) fn forget(&self, now: Instant) {
        let mut state = self.state.lock();
        self.forget_orphans(&mut state, now);
        self.publish(&mut state);
    }

    /// The cost is proportional to the number of removed tunnels.
    fn forget_orphans(&self, state: &mut State, now: Instant) {
        let mut freed = false;
        let (retention, max_orphans) = {
            let config = self.config.load();
            (config.retention, config.max_orphans)
        };
        while let Some((since, key, orphans)) = self.oldest_orphan() {
            let is_over = now.saturating_duration_since(since) >= retention;
            if !is_over && orphans <= max_orphans {
                break;
            }
            self.forget_orphan(state, since, key);
            freed = true;
        }
        freed |= self.names.lock().expire(self.clock.at(now)) > 0;
        if freed {
            self.notify_freed();
        }
    }

    fn oldest_orphan(&self) -> Option<(Instant, TunnelKey, usize)> {
        self.index.lock().oldest_orphan()
    }

    fn forget_orphan(&self, state: &mut State, since: Instant, key: TunnelKey) {
        let known = state.get(&key);
        if known.is_some_and(|tunnel| tunnel.orphaned() == Some(since)) {
            self.remove(state, &key, since);
        }
        self.index.lock().drop_orphan(since, key);
    }

    /// Removes a tunnel, whose names have been unused since `since`.
    fn remove(&self, state: &mut State, key: &TunnelKey, since: Instant) -> Option<Arc<Tunnel>> {
        let tunnel = state.remove(key)?;
        self.index.lock().forget(&tunnel);
        self.end_use(&tunnel, since);
        Some(tunnel)
    }

    /// Publishes the next snapshot, if anything has changed.
    fn publish(&self, state: &mut State) {
        if std::mem::take(&mut state.changed) {
            state.revision += 1;
            self.current.store(Arc::new(Snapshot {
                revision: state.revision,
                routes: state.routes.clone(),
                tls_routes: state.tls_routes.clone(),
                ports: state.ports.clone(),
            }));
            self.changed.notify_waiters();
        }
        if !state.changed_ports.is_empty() {
            // This is done when the snapshot can be read, so that visitors of a new port find its tunnel.
            let changed = std::mem::take(&mut state.changed_ports);
            self.ports.follow(&state.ports, &changed);
        }
    }

    fn public_url(&self, tunnel: &Tunnel) -> String {
        let definition = &tunnel.definition;
        let config = self.config.load();
        let hosts = &definition.hosts;
        let domain = config.domain.as_deref();
        let path = definition.paths.first().filter(|path| !path.is_root());
        let path = path.map(ToString::to_string).unwrap_or_default();
        let is_own = |host: &&HostPattern| {
            let above = domain.and_then(|domain| host.name().strip_suffix(domain));
            above.is_some_and(|above| above.is_empty() || above.ends_with('.'))
        };
        let host = hosts.iter().find(is_own).or(hosts.first());
        let (public_scheme, public_port) = config.url_of(host);
        let is_tls = tunnel.port.is_none() && public_scheme == Scheme::Https;
        let scheme = match definition.protocol {
            ProtocolType::Tcp if definition.passes_through() => {
                return config.tls_url(host);
            }
            ProtocolType::Tcp if definition.terminates() => "tls",
            ProtocolType::Tcp => "tcp",
            ProtocolType::Udp => "udp",
            ProtocolType::WebSocket if is_tls => "wss",
            ProtocolType::WebSocket => "ws",
            _ if is_tls => "https",
            _ => "http",
        };
        match (host, tunnel.port) {
            (Some(host), Some(port)) if definition.terminates() => {
                format!("{scheme}://{host}:{}", port.number)
            }
            (Some(host), _) => match public_port {
                None => format!("{scheme}://{host}{path}"),
                Some(port) => format!("{scheme}://{host}:{port}{path}"),
            },
            (None, Some(port)) => match (domain, config.bind_ip) {
                (Some(domain), _) => format!("{scheme}://{domain}:{}{path}", port.number),
                (None, IpAddr::V4(ip)) => format!("{scheme}://{ip}:{}{path}", port.number),
                (None, IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{}{path}", port.number),
            },
            (None, None) => String::new(),
        }
    }

    pub(crate) fn tunnels(&self) -> Vec<(Arc<Tunnel>, String)> {
        let mut tunnels: Vec<_> = self.state.lock().tunnels().cloned().collect();
        tunnels.sort_by(|a, b| a.key.cmp(&b.key));
        let with_url = tunnels.into_iter().map(|tunnel| {
            let public_url = self.public_url(&tunnel);
            (tunnel, public_url)
        });
        with_url.collect()
    }

    fn refresh(&self, link: &Link) {
        for tunnel in self.index.lock().of_link(link.id()) {
            tunnel.refresh(link.id());
        }
    }
}

impl MembershipObserver for Directory {
    fn link_up(&self, link: &Arc<Link>) {
        self.refresh(link);
    }

    fn link_down(&self, link: &Arc<Link>) {
        self.refresh(link);
        if link.is_draining() {
            // The names of the tunnel are now free for other clients of the same user.
            self.notify_freed();
        }
    }

    fn link_gone(&self, link: &Arc<Link>) {
        let now = Instant::now();
        self.index.lock().leave_all(link, now);
        self.exit(link.grant(), now);
    }
}

/// The user and the group of a link.
fn claimant(grant: &Grant) -> Claimant {
    Claimant {
        user: grant.user().clone(),
        group: grant.group().clone(),
    }
}

/// The names that a link itself holds.
fn names_of(grant: &Grant) -> [Name; 2] {
    [
        Name::Group(grant.group().clone()),
        Name::Client(grant.client().clone()),
    ]
}
