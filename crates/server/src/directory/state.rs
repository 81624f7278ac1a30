//! The tunnels, and what is found by their hosts, paths and ports. Everything here follows from the set of tunnels and the
//! rules of the server, and a change costs what belongs to the tunnel that comes or goes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use adit_auth::TunnelName;
use adit_router::{HostPattern, PathPrefix, Rule, ShardedMap, Table, TableError};

use super::target::{Static, Target};
use crate::{
    port::PortKey,
    tunnel::{Tunnel, TunnelKey},
};

/// A tunnel, and the number of the first rule that leads to it. Its rules follow in the order of hosts, then of paths.
struct Known {
    tunnel: Arc<Tunnel>,
    first_rule: usize,
}

#[derive(Default)]
pub(super) struct State {
    tunnels: HashMap<TunnelKey, Known>,
    /// Which tunnel answers under which paths of a host. All of one host are of one group (P-1.4).
    hosts: HashMap<HostPattern, HashMap<PathPrefix, TunnelKey>>,
    /// Tunnels that a rule of the server may lead to, by the name that the rule gives.
    named: HashMap<Arc<str>, BTreeSet<TunnelKey>>,
    rules: Vec<Rule<Static>>,
    /// The rules of the server that lead to tunnels of a name.
    rules_to: HashMap<Arc<str>, Vec<usize>>,
    next_rule: usize,
    pub(super) routes: Table<Target>,
    pub(super) ports: ShardedMap<PortKey, Arc<Tunnel>>,
    /// Ports that may be held by another tunnel than in the last snapshot, or were bound in vain.
    pub(super) changed_ports: Vec<PortKey>,
    /// Something differs from the last snapshot.
    pub(super) changed: bool,
    pub(super) revision: u64,
}

impl State {
    pub(super) fn new(rules: Vec<Rule<Static>>) -> Result<Self, TableError> {
        let mut state = Self {
            next_rule: rules.len(),
            changed: true,
            ..Self::default()
        };
        for (index, rule) in rules.iter().enumerate() {
            let target = match &rule.target {
                Static::Tunnel(name) => {
                    let known = state.rules_to.entry(name.clone()).or_default();
                    known.push(index);
                    Target::Unannounced(name.clone())
                }
                Static::Upstream(to) => Target::Upstream(to.clone()),
            };
            state.routes.insert(index, with_target(rule, target))?;
        }
        state.rules = rules;
        Ok(state)
    }

    pub(super) fn get(&self, key: &TunnelKey) -> Option<&Arc<Tunnel>> {
        self.tunnels.get(key).map(|known| &known.tunnel)
    }

    pub(super) fn tunnels(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        self.tunnels.values().map(|known| &known.tunnel)
    }

    /// The tunnels of a host, by path.
    pub(super) fn of_host(&self, host: &HostPattern) -> Option<&HashMap<PathPrefix, TunnelKey>> {
        self.hosts.get(host)
    }

    /// Whether a rule of the server leads to tunnels of this name.
    pub(super) fn is_ruled(&self, name: &TunnelName) -> bool {
        self.rules_to.contains_key(name.as_str())
    }

    /// Adds a tunnel; there must be none of its key, and none that holds a host and path, or the port, of it.
    ///
    /// # Errors
    /// A rule of the server leads elsewhere from a host and path of it. Nothing has changed then.
    pub(super) fn insert(&mut self, tunnel: &Arc<Tunnel>) -> Result<(), TableError> {
        let first_rule = self.next_rule;
        let definition = &tunnel.definition;
        let pairs = || {
            let hosts = definition.hosts.iter();
            hosts.flat_map(|host| definition.paths.iter().map(move |path| (host, path)))
        };
        for (count, (host, path)) in pairs().enumerate() {
            let mut rule = Rule::new(Target::Tunnel(Arc::clone(tunnel)));
            rule.host = Some(host.clone());
            rule.path = Some(path.clone());
            if let Err(error) = self.routes.insert(first_rule + count, rule) {
                for (number, (host, path)) in pairs().take(count).enumerate() {
                    self.routes
                        .remove(first_rule + number, Some(host), Some(path));
                }
                return Err(error);
            }
        }
        self.next_rule += definition.routes();
        for (host, path) in pairs() {
            let paths = self.hosts.entry(host.clone()).or_default();
            paths.insert(path.clone(), tunnel.key.clone());
        }
        if let Some(port) = tunnel.port {
            self.ports.insert(port, Arc::clone(tunnel));
            self.changed_ports.push(port);
        }
        let known = Known {
            tunnel: Arc::clone(tunnel),
            first_rule,
        };
        self.tunnels.insert(tunnel.key.clone(), known);
        self.changed = true;
        // Rules are for hosts and paths.
        if tunnel.definition.is_http() && self.rules_to.contains_key(&tunnel.name) {
            let named = self.named.entry(tunnel.name.clone()).or_default();
            named.insert(tunnel.key.clone());
            self.lead_rules(&tunnel.name);
        }
        Ok(())
    }

    /// Removes a tunnel.
    pub(super) fn remove(&mut self, key: &TunnelKey) -> Option<Arc<Tunnel>> {
        let Known { tunnel, first_rule } = self.tunnels.remove(key)?;
        let definition = &tunnel.definition;
        let mut number = first_rule;
        for host in &definition.hosts {
            for path in &definition.paths {
                self.routes.remove(number, Some(host), Some(path));
                number += 1;
                if let Some(paths) = self.hosts.get_mut(host) {
                    paths.remove(path);
                    if paths.is_empty() {
                        self.hosts.remove(host);
                    }
                }
            }
        }
        if let Some(port) = tunnel.port {
            self.ports.remove(&port);
            self.changed_ports.push(port);
        }
        self.changed = true;
        if let Some(named) = self.named.get_mut(&tunnel.name)
            && named.remove(key)
        {
            if named.is_empty() {
                self.named.remove(&tunnel.name);
            }
            self.lead_rules(&tunnel.name);
        }
        Some(tunnel)
    }

    /// Leads the rules of the server that give this name to a tunnel that has it.
    fn lead_rules(&mut self, name: &Arc<str>) {
        let first = self.named.get(name).and_then(BTreeSet::first);
        let tunnel = first.and_then(|key| self.tunnels.get(key));
        let tunnel = tunnel.map(|known| known.tunnel.clone());
        for index in self.rules_to.get(name).into_iter().flatten() {
            let Some(rule) = self.rules.get(*index) else {
                continue;
            };
            let target = match &tunnel {
                Some(tunnel) => Target::Tunnel(tunnel.clone()),
                None => Target::Unannounced(name.clone()),
            };
            self.routes
                .remove(*index, rule.host.as_ref(), rule.path.as_ref());
            if let Err(error) = self.routes.insert(*index, with_target(rule, target)) {
                // The same conditions were there before.
                tracing::error!(%error, "a rule of the server was lost");
            }
        }
    }
}

fn with_target(rule: &Rule<Static>, target: Target) -> Rule<Target> {
    Rule {
        host: rule.host.clone(),
        path: rule.path.clone(),
        headers: rule.headers.clone(),
        grpc: rule.grpc.clone(),
        target,
    }
}
