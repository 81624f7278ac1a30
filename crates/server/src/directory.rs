//! The tunnels of the server, and the snapshot that visitors are routed by.
//!
//! Announcements and static rules only ever produce a new [`Snapshot`], immutable and numbered; routing reads the
//! current one without a lock. Which clients are live changes a tunnel's balancer, not the snapshot.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use adit_proto::{Error as ProtoError, Tunnel as Announced, TunnelResult};
use adit_registry::{Link, Observer};
use adit_router::{GrpcPattern, HeaderMatch, HostPattern, PathPrefix, Rule, Table};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::sync::Notify;

use crate::{
    settings::RuleSettings,
    tunnel::{Definition, HashOn, Tunnel, TunnelKey},
};

/// What visitors are routed by.
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) routes: Table<Target>,
}

/// Where a rule leads.
#[derive(Clone)]
pub(crate) enum Target {
    Tunnel(Arc<Tunnel>),
    /// A static rule to a tunnel that nobody has announced yet.
    Unannounced(Arc<str>),
}

impl Target {
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tunnel(tunnel) => &tunnel.name,
            Self::Unannounced(name) => name,
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
    /// Scheme and port of public URLs, such as `http` and 7080.
    pub(crate) public_port: u16,
}

#[derive(Default)]
struct State {
    tunnels: HashMap<TunnelKey, Arc<Tunnel>>,
    revision: u64,
}

/// The tunnels of the server.
pub(crate) struct Directory {
    config: DirectoryConfig,
    rules: Vec<Rule<Arc<str>>>,
    state: Mutex<State>,
    current: ArcSwap<Snapshot>,
    /// Wakes visitors whose host nobody has announced yet.
    pub(crate) changed: Notify,
}

impl Directory {
    pub(crate) fn new(config: DirectoryConfig, rules: &[RuleSettings]) -> Result<Self, RuleError> {
        let rules = rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                static_rule(rule).map_err(|problem| RuleError {
                    index: index + 1,
                    problem,
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let directory = Self {
            config,
            rules,
            state: Mutex::default(),
            current: ArcSwap::from_pointee(Snapshot {
                revision: 0,
                routes: Table::default(),
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
        let definition = self.definition(announced)?;
        let client = link.grant().client();
        if let Some(tunnel) = state.tunnels.get(&key) {
            if tunnel.definition == definition {
                tunnel.join(link, announced.weight.max(1));
                return Ok(self.public_url(tunnel));
            }
            if let Some(holder) = tunnel.holder(client) {
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
        self.check_hosts(state, &key, &definition, link)?;
        let tunnel = Arc::new(Tunnel::new(key.clone(), definition, now));
        let previous = state.tunnels.insert(key.clone(), tunnel.clone());
        if let Err(problem) = self.publish(state) {
            match previous {
                Some(previous) => state.tunnels.insert(key, previous),
                None => state.tunnels.remove(&key),
            };
            return Err(refusal("name_taken", problem));
        }
        tunnel.join(link, announced.weight.max(1));
        Ok(self.public_url(&tunnel))
    }

    fn definition(&self, announced: &Announced) -> Result<Definition, ProtoError> {
        let bad = |text: String| refusal("bad_request", text);
        if announced.protocol_type() != adit_proto::ProtocolType::Http {
            return Err(bad(format!(
                "tunnel type {} is not supported by this server; use http",
                announced.protocol_type().as_str_name()
            )));
        }
        let mut hosts = announced.domains.clone();
        if hosts.is_empty() {
            hosts.push(format!("{}.localhost", announced.name));
            hosts.extend(
                self.config
                    .domain
                    .iter()
                    .map(|domain| format!("{}.{domain}", announced.name)),
            );
        }
        let mut normal = Vec::new();
        for host in &hosts {
            let pattern: HostPattern = host
                .parse()
                .map_err(|error| bad(format!("domain `{host}`: {error}")))?;
            normal.push(pattern.to_string());
        }
        normal.sort();
        normal.dedup();
        let mut locations = announced.locations.clone();
        for location in &locations {
            location
                .parse::<PathPrefix>()
                .map_err(|error| bad(format!("location `{location}`: {error}")))?;
        }
        locations.sort();
        locations.dedup();
        let policy = if announced.load_balance.is_empty() {
            adit_balance::Policy::RoundRobin
        } else {
            announced
                .load_balance
                .parse()
                .map_err(|error: adit_balance::ParsePolicyError| bad(error.to_string()))?
        };
        let hash_on = HashOn::parse(&announced.hash_on).ok_or_else(|| {
            bad(format!(
                "hash_on `{}`: expected `host`, `header:NAME` or `cookie:NAME`",
                announced.hash_on
            ))
        })?;
        Ok(Definition {
            hosts: normal,
            locations,
            policy,
            hash_on,
        })
    }

    /// Refuses hosts that another tunnel holds under the same path, with the holder's client id.
    fn check_hosts(
        &self,
        state: &State,
        key: &TunnelKey,
        definition: &Definition,
        link: &Arc<Link>,
    ) -> Result<(), ProtoError> {
        for other in state.tunnels.values().filter(|other| other.key != *key) {
            let host = definition
                .hosts
                .iter()
                .find(|host| other.definition.hosts.contains(host));
            let other_paths = other.definition.paths();
            let same_path = definition
                .paths()
                .iter()
                .any(|path| other_paths.contains(path));
            if let Some(host) = host
                && same_path
            {
                let holder = other
                    .holder(link.grant().client())
                    .or_else(|| other.clients().into_iter().next());
                let holder = holder.map_or_else(
                    || format!("group `{}`", other.key.group),
                    |client| format!("client `{client}`"),
                );
                return Err(refusal(
                    "name_taken",
                    format!(
                        "host `{host}` is held by tunnel `{}` of {holder}",
                        other.key.name
                    ),
                ));
            }
        }
        Ok(())
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
            let tunnel = tunnels.iter().find(|tunnel| tunnel.name == rule.target);
            let target = tunnel.map_or_else(
                || Target::Unannounced(rule.target.clone()),
                |tunnel| Target::Tunnel(Arc::clone(tunnel)),
            );
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
        self.current.store(Arc::new(Snapshot {
            revision: state.revision,
            routes,
        }));
        self.changed.notify_waiters();
        Ok(())
    }

    fn public_url(&self, tunnel: &Tunnel) -> String {
        let hosts = &tunnel.definition.hosts;
        let host = match &self.config.domain {
            Some(domain) => hosts.iter().find(|host| host.ends_with(domain.as_str())),
            None => None,
        };
        let host = host.or(hosts.first()).map_or("", String::as_str);
        let path = tunnel
            .definition
            .locations
            .first()
            .map_or("", String::as_str);
        match self.config.public_port {
            80 => format!("http://{host}{path}"),
            port => format!("http://{host}:{port}{path}"),
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

fn static_rule(rule: &RuleSettings) -> Result<Rule<Arc<str>>, String> {
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
        target: rule.tunnel.as_str().into(),
    })
}
