//! Upstreams: what the requests that clients open lead to, and all of this side that a client can reach (section 12 of
//! the protocol).
//!
//! A request names an upstream and nothing else of it chooses the address: not its host, not its path. It passes the
//! same permits as a visitor's, the upstream's policy chooses the server, and `egress` serves it on the thread of the
//! lane that it came on.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use adit_auth::{ClientClaim, ClientId, Grant, GroupId, NameError, TunnelName, UserName};
use adit_balance::{Balancer, Draw, InFlight, Load, Member, Policy, hash_bytes};
use adit_codec::{HeaderBlock, ResetCode};
use adit_egress::{Egress, Protocol, ServiceConfig, Trust};
use adit_flow::{Budget, Gate};
use adit_ingress::Destination;
use adit_link::{Lane, LaneConfig, RequestHead};
use adit_trace::Observer;
use parking_lot::Mutex;
use thiserror::Error;

use crate::{
    definition::HashOn,
    director::cookie,
    entries::Entries,
    lanes::lane_config,
    settings::{Limits, Timeouts, UpstreamProtocol, UpstreamSettings},
    shortcut::Shortcut,
    status::{UpstreamServerStatus, UpstreamStatus},
};

/// Stands for the links of clients where there is none.
const NO_LINK: u64 = u64::MAX;

/// Whose a request is that no client opened.
const SELF: &str = "server";

/// Upstreams that cannot be.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// One is wrong.
    #[error("upstream `{name}`: {problem}")]
    Wrong {
        /// Which one.
        name: TunnelName,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The server's own name is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The upstreams of this server, and the way to them.
pub(crate) struct Upstreams {
    by_name: HashMap<TunnelName, Arc<Upstream>>,
    services: HashMap<Box<str>, ServiceConfig>,
    config: adit_egress::Config,
    observer: Arc<dyn Observer>,
    /// Connections stay on the thread that made them, so each data thread has its own.
    egresses: Mutex<HashMap<ThreadId, Arc<Egress>>>,
    /// How visitors of this side come here, on each data thread.
    shortcuts: Mutex<HashMap<ThreadId, Shortcut>>,
    shortcut_config: LaneConfig,
    shortcut_budget: Budget,
    /// Those of visitors: a request costs the same whoever opened it (P-12.2).
    permits: Arc<Gate>,
    permit_wait: Duration,
    /// Of visitors of this side.
    grant: Grant,
    draining: AtomicBool,
}

/// A name, and the servers that share its requests.
pub(crate) struct Upstream {
    name: TunnelName,
    protocol: UpstreamProtocol,
    /// For status.
    protocol_name: &'static str,
    hash_on: HashOn,
    balancer: Balancer<Server>,
}

/// One server of an upstream.
pub(crate) struct Server {
    /// As people write it.
    pub(crate) address: Box<str>,
    /// What `egress` knows it by.
    pub(crate) service: Box<str>,
}

impl Upstreams {
    pub(crate) fn new(
        settings: &[UpstreamSettings],
        limits: &Limits,
        timeouts: &Timeouts,
        budget: &Budget,
        permits: Arc<Gate>,
        observer: Arc<dyn Observer>,
    ) -> Result<Arc<Self>, UpstreamError> {
        let mut by_name = HashMap::new();
        let mut services = HashMap::new();
        for settings in settings {
            if by_name.contains_key(&settings.name) {
                return Err(UpstreamError::Wrong {
                    name: settings.name.clone(),
                    problem: "is defined twice",
                });
            }
            let upstream = Upstream::new(settings, &mut services)?;
            by_name.insert(settings.name.clone(), Arc::new(upstream));
        }
        Ok(Arc::new(Self {
            by_name,
            services,
            config: adit_egress::Config {
                dial_timeout: timeouts.dial,
                answer_timeout: timeouts.service,
                idle_timeout: timeouts.idle,
                stall_timeout: timeouts.stall,
                tcp_stall_timeout: timeouts.session_stall,
                tcp_keepalive: (!timeouts.session_keepalive.is_zero())
                    .then_some(timeouts.session_keepalive),
                close_timeout: timeouts.session_close,
                early_answer_timeout: timeouts.early_answer,
                // The permits are the bound.
                max_connections: limits.max_requests,
                turn_bytes: limits.turn_bytes,
                ..adit_egress::Config::default()
            },
            observer,
            egresses: Mutex::default(),
            shortcut_config: {
                let mut config = lane_config(limits, timeouts);
                config.mux.max_requests = limits.max_requests;
                config
            },
            shortcut_budget: budget.child(limits.link_budget_bytes),
            shortcuts: Mutex::default(),
            permits,
            permit_wait: timeouts.permit_wait,
            grant: own_grant()?,
            draining: AtomicBool::new(false),
        }))
    }

    /// For tests that have none.
    #[cfg(test)]
    pub(crate) fn none() -> Arc<Self> {
        let (limits, timeouts) = (Limits::default(), Timeouts::default());
        let observer = Arc::new(adit_trace::Unobserved);
        Self::new(
            &[],
            &limits,
            &timeouts,
            &Budget::new(0),
            Gate::new(1, 0),
            observer,
        )
        .unwrap()
    }

    /// Takes what the client with this grant opens on a lane of this thread. `permits` are those of its link.
    pub(crate) fn entries(self: &Arc<Self>, grant: &Grant, permits: &Arc<Gate>) -> Arc<Entries> {
        let permits = Some(permits.clone());
        Arc::new(Entries::new(self.clone(), self.egress(), grant, permits))
    }

    /// The way of visitors of this side to the upstream of a name.
    pub(crate) fn way_to(self: &Arc<Self>, name: &str) -> Option<ToUpstream> {
        let (name, _) = self.by_name.get_key_value(name)?;
        Some(ToUpstream {
            upstreams: self.clone(),
            name: name.clone(),
        })
    }

    /// The lane to the upstreams on this thread.
    fn shortcut(self: &Arc<Self>) -> Arc<Lane> {
        let mut shortcuts = self.shortcuts.lock();
        let id = thread::current().id();
        if let Some(lane) = shortcuts.get(&id).and_then(Shortcut::lane) {
            return lane.clone();
        }
        let entries = Entries::new(self.clone(), self.egress(), &self.grant, None);
        let (config, budget) = (&self.shortcut_config, &self.shortcut_budget);
        let shortcut = Shortcut::new(config, budget, Arc::new(entries));
        let lane = shortcut.near().clone();
        shortcuts.insert(id, shortcut);
        lane
    }

    /// Whether clients can open nothing here.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The upstream of a name.
    pub(crate) fn find(&self, name: &str) -> Option<&Arc<Upstream>> {
        self.by_name.get(name)
    }

    /// The way out of this thread.
    fn egress(&self) -> Arc<Egress> {
        let mut egresses = self.egresses.lock();
        let egress = egresses.entry(thread::current().id()).or_insert_with(|| {
            let egress = Egress::observed(self.config.clone(), self.observer.clone());
            egress.set_services(self.services.clone());
            egress
        });
        egress.clone()
    }

    /// Permits of all requests of this side.
    pub(crate) const fn permits(&self) -> &Arc<Gate> {
        &self.permits
    }

    /// What is opened waits this long for a permit.
    pub(crate) const fn permit_wait(&self) -> Duration {
        self.permit_wait
    }

    /// Takes no more requests of clients; those that run finish.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.close_websockets();
    }

    /// Says to those that clients have opened that we go away: they would not finish by themselves.
    pub(crate) fn close_websockets(&self) {
        for egress in self.egresses.lock().values() {
            egress.close_websockets();
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Requests that servers of upstreams work on.
    pub(crate) fn in_flight(&self) -> usize {
        self.by_name.values().map(|one| one.in_flight()).sum()
    }

    /// Connections to servers of upstreams.
    pub(crate) fn connections(&self) -> usize {
        let egresses = self.egresses.lock();
        egresses
            .values()
            .map(|egress| egress.stats().connections)
            .sum()
    }

    /// All of them, by name.
    pub(crate) fn list(&self) -> Vec<&Arc<Upstream>> {
        let mut all: Vec<_> = self.by_name.values().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }
}

/// Leads visitors of this side, who hold their permits already, to an upstream.
#[derive(Clone)]
pub(crate) struct ToUpstream {
    upstreams: Arc<Upstreams>,
    name: TunnelName,
}

impl ToUpstream {
    pub(crate) const fn name(&self) -> &TunnelName {
        &self.name
    }

    /// For one request, on the data thread that it came in on.
    pub(crate) fn destination(&self, revision: u64) -> Destination {
        let upstreams = &self.upstreams;
        Destination {
            lane: upstreams.shortcut(),
            grant: upstreams.grant.for_tunnel(self.name.clone(), revision),
            tunnel: self.name.clone().into(),
            revision,
            link: NO_LINK,
            compression: None,
            permit: None,
            hold: Box::new(()),
        }
    }
}

impl Upstream {
    fn new(
        settings: &UpstreamSettings,
        services: &mut HashMap<Box<str>, ServiceConfig>,
    ) -> Result<Self, UpstreamError> {
        let refused = |problem| UpstreamError::Wrong {
            name: settings.name.clone(),
            problem,
        };
        let hash_on = HashOn::parse(&settings.hash_on)
            .ok_or_else(|| refused("hash_on is not `host`, `header:NAME` or `cookie:NAME`"))?;
        let protocol = match settings.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::H2c => Protocol::H2c,
            UpstreamProtocol::Tcp => Protocol::Tcp,
        };
        if let Some(tls) = &settings.tls {
            if settings.protocol != UpstreamProtocol::H2c {
                return Err(refused("is reached over TLS by HTTP/2 only"));
            }
            if tls.trust == Trust::Anyone {
                tracing::warn!(
                    upstream = settings.name.as_str(),
                    "tls.insecure: any certificate of its servers is believed; whoever gets in between can read and \
                     change everything"
                );
            }
        }
        let mut members = Vec::new();
        for server in &settings.servers {
            let address = if server.host.contains(':') {
                format!("[{}]:{}", server.host, server.port)
            } else {
                format!("{}:{}", server.host, server.port)
            };
            // No upstream's name has a slash in it: names of services are no names that a client could give.
            let service: Box<str> = format!("{}/{address}", settings.name).into();
            let mut config = ServiceConfig::new(&server.host, server.port, protocol);
            config.host_rewrite.clone_from(&settings.host_rewrite);
            config.tls.clone_from(&settings.tls);
            config.compression = settings.compression;
            if services.insert(service.clone(), config).is_some() {
                return Err(refused("has one address twice"));
            }
            let key = hash_bytes(address.as_bytes());
            let address = address.into();
            let server_known = Server { address, service };
            members.push(Member::new(server_known, key, server.weight, Load::new()));
        }
        if members.is_empty() {
            return Err(refused("has no servers"));
        }
        Ok(Self {
            name: settings.name.clone(),
            protocol: settings.protocol,
            protocol_name: match settings.tls {
                Some(_) => "h2",
                None => settings.protocol.as_str(),
            },
            hash_on,
            balancer: Balancer::new(settings.policy, members),
        })
    }

    pub(crate) const fn name(&self) -> &TunnelName {
        &self.name
    }

    pub(crate) fn policy(&self) -> Policy {
        self.balancer.policy()
    }

    /// Whether its servers understand the request at all.
    pub(crate) fn check(&self, head: &RequestHead) -> Result<(), (ResetCode, &'static str)> {
        match (head, self.protocol) {
            // An absolute target would overrule the host that we send (RFC 9112, 3.2.2).
            (RequestHead::Http(head), UpstreamProtocol::Http1 | UpstreamProtocol::H2c)
                if !head.path.starts_with(b"/") && head.path != b"*"[..] =>
            {
                Err((ResetCode::ProtocolError, "the target is no path"))
            }
            (
                RequestHead::Http(_) | RequestHead::Grpc(_) | RequestHead::WebSocket(_),
                UpstreamProtocol::Http1 | UpstreamProtocol::H2c,
            )
            | (RequestHead::Tcp(_), UpstreamProtocol::Tcp) => Ok(()),
            (RequestHead::Udp(_), _) => {
                Err((ResetCode::NoTunnel, "upstreams are not reached by UDP"))
            }
            (RequestHead::Tcp(_), _) => Err((
                ResetCode::NoTunnel,
                "this upstream speaks HTTP; its entry must be `type: http`",
            )),
            (_, UpstreamProtocol::Tcp) => Err((
                ResetCode::NoTunnel,
                "this upstream speaks TCP; its entry must be `type: tcp`",
            )),
        }
    }

    /// The server for a request.
    pub(crate) fn choose(&self, head: &RequestHead) -> Option<(&Server, InFlight)> {
        let policy = self.policy();
        let mut draw = Draw::default();
        if policy.uses_random() {
            draw.random = rand::random();
        }
        if policy.uses_hash() {
            draw.hash = self.hash(policy, head);
        }
        let member = self.balancer.choose(draw, |_| true)?;
        Some((member.id(), member.load().begin()))
    }

    fn hash(&self, policy: Policy, head: &RequestHead) -> u64 {
        let (authority, headers): (&[u8], Option<&HeaderBlock>) = match head {
            RequestHead::Http(head) => (&head.authority, Some(&head.headers)),
            RequestHead::Grpc(head) => (&head.authority, Some(&head.metadata)),
            RequestHead::WebSocket(head) => (&head.authority, Some(&head.headers)),
            RequestHead::Tcp(_) | RequestHead::Udp(_) => (b"", None),
        };
        let Some(headers) = headers.filter(|_| policy != Policy::IpHash) else {
            // A connection is known by where it comes from, whatever is hashed of requests.
            return hash_visitor(&head.open().visitor);
        };
        match &self.hash_on {
            HashOn::Host => hash_bytes(authority),
            HashOn::Header(name) => hash_bytes(headers.first(name.as_bytes()).unwrap_or_default()),
            HashOn::Cookie(name) => {
                let lines = headers.lines().filter(|(header, _)| *header == b"cookie");
                hash_bytes(cookie(lines.map(|(_, value)| value), name))
            }
        }
    }

    fn in_flight(&self) -> usize {
        let members = self.balancer.members();
        members.iter().map(|one| one.load().in_flight()).sum()
    }

    /// Requests that its servers were chosen for.
    pub(crate) fn chosen(&self) -> u64 {
        self.balancer.stats().chosen
    }

    pub(crate) fn status(&self) -> UpstreamStatus {
        let members = self.balancer.members();
        UpstreamStatus {
            name: self.name.to_string(),
            policy: self.policy().name(),
            protocol: self.protocol_name,
            requests: self.chosen(),
            servers: members
                .iter()
                .map(|member| UpstreamServerStatus {
                    address: member.id().address.to_string(),
                    weight: member.weight(),
                    requests_open: member.load().in_flight(),
                })
                .collect(),
        }
    }
}

fn own_grant() -> Result<Grant, NameError> {
    let claim = ClientClaim {
        client_id: ClientId::parse(SELF)?,
        group_id: GroupId::parse(SELF)?,
    };
    Ok(Grant::for_link(UserName::parse(SELF)?, claim))
}

/// The address without the port: of one visitor it is the same on each connection.
fn hash_visitor(visitor: &str) -> u64 {
    match visitor.parse::<SocketAddr>().map(|addr| addr.ip()) {
        Ok(ip) => match ip.to_canonical() {
            IpAddr::V4(ip) => hash_bytes(&ip.octets()),
            IpAddr::V6(ip) => hash_bytes(&ip.octets()),
        },
        Err(_) => hash_bytes(visitor.as_bytes()),
    }
}
