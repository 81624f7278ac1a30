//! The tunnels of the server, and the snapshot that visitors are routed by.
//!
//! Announcements and static rules only ever produce a new [`Snapshot`], immutable and numbered; routing reads the
//! current one without a lock, and public ports follow it. Which clients are live changes a tunnel's balancer, not the
//! snapshot.

mod claims;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_codec::ProtocolType;
use adit_proto::{Error as ProtoError, Tunnel as Announced, TunnelResult};
use adit_registry::{Link, Observer};
use adit_router::{GrpcPattern, HeaderMatch, HostPattern, PathPrefix, Rule, Table};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use crate::{
    definition::Definition,
    ports::{PortKey, Ports, Transport},
    settings::{RuleSettings, RuleTarget},
    tunnel::{Tunnel, TunnelKey},
    upstreams::{ToUpstream, Upstreams},
};

/// What visitors are routed by.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) routes: Table<Target>,
    /// Who holds which public port.
    pub(crate) ports: HashMap<PortKey, Arc<Tunnel>>,
}

/// Where a rule leads.
#[derive(Clone)]
pub(crate) enum Target {
    Tunnel(Arc<Tunnel>),
    /// A static rule to a tunnel that nobody has announced yet.
    Unannounced(Arc<str>),
    /// A static rule to an upstream.
    Upstream(ToUpstream),
}

/// Where a static rule leads, whatever is announced.
enum Static {
    Tunnel(Arc<str>),
    Upstream(ToUpstream),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tunnel(tunnel) => &tunnel.name,
            Self::Unannounced(name) => name,
            Self::Upstream(to) => to.name().as_str(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tunnel(tunnel) => write!(
                f,
                "tunnel {} of group {}",
                tunnel.key.name, tunnel.key.group
            ),
            Self::Unannounced(name) => write!(f, "tunnel {name}, which no client has announced"),
            Self::Upstream(to) => write!(f, "upstream {}", to.name()),
        }
    }
}

/// A static rule that cannot be.
#[derive(Debug, Error)]
#[error("rule {index}: {problem}")]
pub struct RuleError {
    /// Which one, from 1.
    pub index: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// How the directory names hosts and when it forgets.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryConfig {
    pub(crate) domain: Option<String>,
    pub(crate) max_tunnels_per_client: usize,
    pub(crate) retention: Duration,
    /// Tunnels that are kept for clients that are gone; those that have been gone longest are forgotten first. A client
    /// that comes under one name after the other must not fill the table of routes.
    pub(crate) max_orphans: usize,
    /// Where public ports are bound; stands in public URLs when there is no domain.
    pub(crate) bind_ip: IpAddr,
    /// Where visitors of HTTP come in, such as 7080.
    pub(crate) public_port: u16,
    /// Where clients come in. Like the one above, it is no tunnel's.
    pub(crate) clients_port: u16,
}

#[derive(Default)]
struct State {
    tunnels: HashMap<TunnelKey, Arc<Tunnel>>,
    revision: u64,
}

/// The tunnels of the server.
pub(crate) struct Directory {
    config: DirectoryConfig,
    ports: Arc<Ports>,
    rules: Vec<Rule<Static>>,
    state: Mutex<State>,
    current: ArcSwap<Snapshot>,
    /// Wakes visitors whose host nobody has announced yet.
    pub(crate) changed: Notify,
}

impl Directory {
    pub(crate) fn new(
        config: DirectoryConfig,
        rules: &[RuleSettings],
        upstreams: &Arc<Upstreams>,
        ports: Arc<Ports>,
    ) -> Result<Self, RuleError> {
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                static_rule(rule, upstreams).map_err(|problem| RuleError {
                    index: index + 1,
                    problem,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let directory = Self {
            config,
            ports,
            rules,
            state: Mutex::default(),
            current: ArcSwap::from_pointee(Snapshot {
                revision: 0,
                routes: Table::default(),
                ports: HashMap::new(),
            }),
            changed: Notify::new(),
        };
        let mut state = directory.state.lock();
        directory
            .publish(&mut state)
            .map_err(|problem| RuleError { index: 0, problem })?;
        drop(state);
        Ok(directory)
    }

    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Whether a TCP port is that of a tunnel of HTTP or what rides on it.
    pub(crate) fn is_http_port(&self, number: u16) -> bool {
        let port = PortKey {
            transport: Transport::Tcp,
            number,
        };
        let snapshot = self.current.load();
        let tunnel = snapshot.ports.get(&port);
        tunnel.is_some_and(|tunnel| tunnel.definition.is_http())
    }

    /// Where tunnels are told apart by host.
    pub(crate) const fn public_port(&self) -> u16 {
        self.config.public_port
    }

    pub(crate) fn revision(&self) -> u64 {
        self.current.load().revision
    }

    /// Takes a client's announcements: one result each; those that cannot be leave the others standing (P-1.4).
    pub(crate) fn announce(
        &self,
        link: &Arc<Link>,
        announced: &[Announced],
        now: Instant,
    ) -> Vec<TunnelResult> {
        let mut state = self.state.lock();
        self.forget_orphans(&mut state, now);
        let limit = self.config.max_tunnels_per_client;
        announced
            .iter()
            .map(|tunnel| {
                // Counted over all announcements of the link, not of this call: more may come on the control stream.
                let others = state.tunnels.values().filter(|served| {
                    *served.name != *tunnel.name && served.is_served_by(link.id())
                });
                let result = if others.count() < limit {
                    self.announce_one(&mut state, link, tunnel, now)
                } else {
                    Err(refusal(
                        "limit",
                        format!("a client may announce no more than {limit} tunnels"),
                    ))
                };
                match result {
                    Ok(public_url) => TunnelResult {
                        name: tunnel.name.clone(),
                        public_url,
                        error: None,
                    },
                    Err(error) => TunnelResult {
                        name: tunnel.name.clone(),
                        public_url: String::new(),
                        error: Some(error),
                    },
                }
            })
            .collect()
    }

    fn announce_one(
        &self,
        state: &mut State,
        link: &Arc<Link>,
        announced: &Announced,
        now: Instant,
    ) -> Result<String, ProtoError> {
        let name = adit_auth::TunnelName::parse(&announced.name)
            .map_err(|error| refusal("bad_request", error.to_string()))?;
        let key = TunnelKey {
            group: link.grant().group().clone(),
            name,
        };
        let definition = Definition::parse(announced, self.config.domain.as_deref())
            .map_err(|problem| refusal("bad_request", problem))?;
        let protocol = definition.protocol;
        if protocol != ProtocolType::Http && !link.understands(protocol.as_str()) {
            return Err(refusal(
                "bad_request",
                format!(
                    "this client has not said that it carries {}; install the same version of adit on both sides",
                    protocol.as_str()
                ),
            ));
        }
        let previous = state.tunnels.get(&key).cloned();
        if let Some(tunnel) = &previous {
            if tunnel.definition == definition {
                tunnel.join(link, announced.weight.max(1));
                return Ok(self.public_url(tunnel));
            }
            if let Some(holder) = tunnel.holder(link.grant().client()) {
                return Err(refusal(
                    "name_taken",
                    format!(
                        "tunnel `{}` of group `{}` is served by client `{holder}` with other settings; \
                         use the same settings, another name or another group",
                        key.name, key.group
                    ),
                ));
            }
        }
        let mut displaced = self.check_hosts(state, &key, &definition, link)?;
        let port = match definition.transport() {
            None => None,
            Some(transport) if definition.remote_port == 0 => {
                Some(self.picked_port(&key, transport, previous.as_deref())?)
            }
            Some(transport) => {
                let port = PortKey {
                    transport,
                    number: definition.remote_port,
                };
                displaced.extend(self.asked_port(state, &key, port, link)?);
                Some(port)
            }
        };
        let tunnel = Arc::new(Tunnel::new(key.clone(), definition, port, now));
        for displaced in &displaced {
            tracing::info!(tunnel = %displaced.name, by = %key.name, "a tunnel that nobody serves makes room");
        }
        let leaving = displaced.iter().chain([&key]);
        let removed: Vec<_> = leaving
            .filter_map(|leaving| state.tunnels.remove_entry(leaving))
            .collect();
        state.tunnels.insert(key.clone(), tunnel.clone());
        if let Err(problem) = self.publish(state) {
            state.tunnels.remove(&key);
            state.tunnels.extend(removed);
            // What was bound for it is closed.
            self.ports.follow(&self.current.load().ports);
            return Err(refusal("name_taken", problem));
        }
        tunnel.join(link, announced.weight.max(1));
        Ok(self.public_url(&tunnel))
    }

    /// Destroys a tunnel for one client; the others of its group go on. Without others it is forgotten at once: nobody
    /// is on the way back. Whether the client served it.
    pub(crate) fn withdraw(&self, link: &Arc<Link>, name: &str, now: Instant) -> bool {
        let mut state = self.state.lock();
        let tunnel = state
            .tunnels
            .values()
            .find(|tunnel| &*tunnel.name == name && tunnel.key.group == *link.grant().group())
            .cloned();
        let Some(tunnel) = tunnel.filter(|tunnel| tunnel.leave(link.id(), now)) else {
            return false;
        };
        if tunnel.orphaned().is_some() {
            state.tunnels.remove(&tunnel.key);
            // Fewer rules than a set that was good are good.
            let _ = self.publish(&mut state);
        }
        true
    }

    /// Forgets tunnels that nobody has served for too long, and closes their ports.
    pub(crate) fn forget(&self, now: Instant) {
        self.forget_orphans(&mut self.state.lock(), now);
    }

    fn forget_orphans(&self, state: &mut State, now: Instant) {
        let before = state.tunnels.len();
        let retention = self.config.retention;
        let mut orphans: Vec<_> = state
            .tunnels
            .values()
            .filter_map(|tunnel| Some((tunnel.orphaned()?, tunnel.key.clone())))
            .collect();
        orphans.sort_unstable_by_key(|(since, _)| *since);
        let too_many = orphans.len().saturating_sub(self.config.max_orphans);
        for (index, (since, key)) in orphans.iter().enumerate() {
            if index < too_many || now.saturating_duration_since(*since) >= retention {
                state.tunnels.remove(key);
            }
        }
        if state.tunnels.len() != before {
            // Fewer rules than a set that was good are good.
            let _ = self.publish(state);
        }
    }

    /// Makes the next snapshot out of static rules and tunnels.
    fn publish(&self, state: &mut State) -> Result<(), String> {
        let mut rules = Vec::new();
        let mut tunnels: Vec<_> = state.tunnels.values().collect();
        tunnels.sort_by(|a, b| a.key.cmp(&b.key));
        for rule in &self.rules {
            let target = match &rule.target {
                Static::Tunnel(name) => {
                    // Rules are for what has a host and a path.
                    let is_meant = |tunnel: &&&Arc<Tunnel>| {
                        tunnel.name == *name && tunnel.definition.is_http()
                    };
                    let tunnel = tunnels.iter().find(is_meant);
                    tunnel.map_or_else(
                        || Target::Unannounced(name.clone()),
                        |tunnel| Target::Tunnel(Arc::clone(tunnel)),
                    )
                }
                Static::Upstream(to) => Target::Upstream(to.clone()),
            };
            rules.push(Rule {
                host: rule.host.clone(),
                path: rule.path.clone(),
                headers: rule.headers.clone(),
                grpc: rule.grpc.clone(),
                target,
            });
        }
        for tunnel in tunnels {
            for host in &tunnel.definition.hosts {
                let host: HostPattern = host.parse().map_err(|error| format!("{host}: {error}"))?;
                for location in tunnel.definition.paths() {
                    let path = location
                        .parse()
                        .map_err(|error| format!("{location}: {error}"))?;
                    rules.push(Rule {
                        host: Some(host.clone()),
                        path: Some(path),
                        ..Rule::new(Target::Tunnel(Arc::clone(tunnel)))
                    });
                }
            }
        }
        let routes = Table::try_new(rules).map_err(|error| error.to_string())?;
        state.revision += 1;
        let tunnels = state.tunnels.values();
        let holding = tunnels.filter_map(|tunnel| Some((tunnel.port?, tunnel.clone())));
        let snapshot = Arc::new(Snapshot {
            revision: state.revision,
            routes,
            ports: holding.collect(),
        });
        self.current.store(snapshot.clone());
        // After it can be read: who comes in by a new port finds its tunnel.
        self.ports.follow(&snapshot.ports);
        self.changed.notify_waiters();
        Ok(())
    }

    fn public_url(&self, tunnel: &Tunnel) -> String {
        let definition = &tunnel.definition;
        let scheme = match definition.protocol {
            ProtocolType::Tcp => "tcp",
            ProtocolType::Udp => "udp",
            ProtocolType::WebSocket => "ws",
            _ => "http",
        };
        let hosts = &definition.hosts;
        let domain = self.config.domain.as_deref();
        let path = definition.locations.first().map_or("", String::as_str);
        let named = domain.and_then(|domain| hosts.iter().find(|host| host.ends_with(domain)));
        match (named.or(hosts.first()), tunnel.port) {
            (Some(host), _) if self.config.public_port == 80 => format!("{scheme}://{host}{path}"),
            (Some(host), _) => format!("{scheme}://{host}:{}{path}", self.config.public_port),
            (None, Some(port)) => match (domain, self.config.bind_ip) {
                (Some(domain), _) => format!("{scheme}://{domain}:{}{path}", port.number),
                (None, IpAddr::V4(ip)) => format!("{scheme}://{ip}:{}{path}", port.number),
                (None, IpAddr::V6(ip)) => format!("{scheme}://[{ip}]:{}{path}", port.number),
            },
            (None, None) => String::new(),
        }
    }

    pub(crate) fn tunnels(&self) -> Vec<(Arc<Tunnel>, String)> {
        let state = self.state.lock();
        let mut tunnels: Vec<_> = state
            .tunnels
            .values()
            .map(|tunnel| (tunnel.clone(), self.public_url(tunnel)))
            .collect();
        tunnels.sort_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        tunnels
    }

    fn each_of(&self, link: &Arc<Link>, change: impl Fn(&Tunnel)) {
        let state = self.state.lock();
        for tunnel in state.tunnels.values() {
            if tunnel.key.group == *link.grant().group() {
                change(tunnel);
            }
        }
    }
}

impl Observer for Directory {
    fn link_up(&self, link: &Arc<Link>) {
        self.each_of(link, |tunnel| tunnel.refresh(link.id()));
    }

    fn link_down(&self, link: &Arc<Link>) {
        self.each_of(link, |tunnel| tunnel.refresh(link.id()));
    }

    fn link_gone(&self, link: &Arc<Link>) {
        let now = Instant::now();
        self.each_of(link, |tunnel| {
            tunnel.leave(link.id(), now);
        });
    }
}

fn refusal(code: &str, message: String) -> ProtoError {
    ProtoError {
        code: code.into(),
        message,
        detail: String::new(),
    }
}

fn static_rule(rule: &RuleSettings, upstreams: &Arc<Upstreams>) -> Result<Rule<Static>, String> {
    let host = rule
        .host
        .as_deref()
        .map(|host| {
            host.parse::<HostPattern>()
                .map_err(|error| format!("host `{host}`: {error}"))
        })
        .transpose()?;
    let path = rule
        .path
        .as_deref()
        .map(|path| {
            path.parse::<PathPrefix>()
                .map_err(|error| format!("path `{path}`: {error}"))
        })
        .transpose()?;
    let headers = rule
        .headers
        .iter()
        .map(|(name, value)| HeaderMatch::try_new(name, value).map_err(|error| error.to_string()))
        .collect::<Result<Vec<_>, _>>()?;
    let grpc = rule
        .grpc
        .as_deref()
        .map(|grpc| {
            grpc.parse::<GrpcPattern>()
                .map_err(|error| format!("grpc `{grpc}`: {error}"))
        })
        .transpose()?;
    Ok(Rule {
        host,
        path,
        headers,
        grpc,
        target: match &rule.to {
            RuleTarget::Tunnel(name) => Static::Tunnel(name.as_str().into()),
            RuleTarget::Upstream(name) => {
                let to = upstreams.way_to(name);
                Static::Upstream(to.ok_or_else(|| format!("there is no upstream `{name}`"))?)
            }
        },
    })
}
