//! The tunnels, and their index by host, path and port. All of it is determined by the set of tunnels and the rules of
//! the server. A change costs only the parts of the tunnel that is added or removed.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use adit_auth::{TunnelName, UserName};
use adit_router::{HostPattern, PathPrefix, Rule, ShardedMap, Table, TableError};

use super::{
    rule_hosts::{HeldHost, RuleHosts},
    rules::RuleError,
    target::{Static, Target},
};
use crate::{
    definition::Definition,
    port::PortKey,
    tunnel::{Tunnel, TunnelKey},
};

/// A tunnel, and the number of its first rule. Its rules follow in the order of hosts, then of paths.
struct Known {
    tunnel: Arc<Tunnel>,
    first_rule: usize,
}

#[derive(Default)]
pub(super) struct State {
    tunnels: HashMap<TunnelKey, Known>,
    /// The tunnel for each path of a host. All tunnels of a host are of one group (P-1.4).
    hosts: HashMap<HostPattern, HashMap<PathPrefix, TunnelKey>>,
    /// The tunnel for each host whose TLS is passed through.
    tls_hosts: HashMap<HostPattern, TunnelKey>,
    /// Tunnels that a rule of the server may select, by the name in the rule.
    named: HashMap<Arc<str>, BTreeSet<TunnelKey>>,
    /// The rules of the configuration, each under its number in the table.
    rules: Vec<(usize, Rule<Static>)>,
    /// The rules of the configuration that select a tunnel name, by their position in the list.
    rules_to: HashMap<Arc<str>, Vec<usize>>,
    rule_hosts: RuleHosts,
    /// Numbers below this are for rules of the configuration, so that they keep their numbers.
    first_tunnel_rule: usize,
    next_rule: usize,
    pub(super) routes: Table<Target>,
    /// By the hosts of TLS that is passed through.
    pub(super) tls_routes: Table<Target>,
    pub(super) ports: ShardedMap<PortKey, Arc<Tunnel>>,
    /// The number of ports of each user that has any.
    port_counts: HashMap<UserName, usize>,
    /// Ports whose tunnel may differ from the last snapshot, or that were bound for a refused tunnel.
    pub(super) changed_ports: Vec<PortKey>,
    /// Something differs from the last snapshot.
    pub(super) changed: bool,
    pub(super) revision: u64,
}

impl State {
    pub(super) fn new(rules: Vec<Rule<Static>>) -> Result<Self, RuleError> {
        let mut state = Self {
            next_rule: rules.len(),
            first_tunnel_rule: rules.len(),
            changed: true,
            ..Self::default()
        };
        state.set_rules(rules)?;
        Ok(state)
    }

    /// Replaces the rules of the configuration.
    ///
    /// # Errors
    /// A rule contradicts another one or the route of a tunnel. Nothing has changed then.
    ///
    /// # Complexity
    /// That of removing and adding each rule; routes of tunnels are not changed.
    pub(super) fn set_rules(&mut self, rules: Vec<Rule<Static>>) -> Result<(), RuleError> {
        let rule_hosts = RuleHosts::of(rules.iter());
        if let Some(error) = self.tunnel_in_the_way(&rule_hosts) {
            return Err(error);
        }
        // The copy shares the unchanged parts.
        let mut routes = self.routes.clone();
        for (number, rule) in &self.rules {
            routes.remove(*number, rule.host.as_ref(), rule.path.as_ref());
        }
        let mut next_rule = self.next_rule;
        let mut numbered = Vec::with_capacity(rules.len());
        let mut rules_to: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, rule) in rules.into_iter().enumerate() {
            let number = if index < self.first_tunnel_rule {
                index
            } else {
                next_rule += 1;
                next_rule - 1
            };
            let target = match &rule.target {
                Static::Tunnel(name, _) => {
                    rules_to.entry(name.clone()).or_default().push(index);
                    Target::Unannounced(name.clone())
                }
                Static::Upstream(to) => Target::Upstream(to.clone()),
            };
            if let Err(error) = routes.insert(number, with_target(&rule, target)) {
                return Err(RuleError {
                    index: index + 1,
                    problem: self.why_rejected(&rule, &error),
                });
            }
            numbered.push((number, rule));
        }
        self.routes = routes;
        self.next_rule = next_rule;
        self.rule_hosts = rule_hosts;
        self.rules = numbered;
        self.rules_to = rules_to;
        self.changed = true;
        self.name_tunnels();
        Ok(())
    }

    /// Finds the tunnels that the rules of the configuration may select.
    fn name_tunnels(&mut self) {
        self.named.clear();
        for known in self.tunnels.values() {
            let tunnel = &known.tunnel;
            if tunnel.definition.is_http() && self.rules_to.contains_key(&tunnel.name) {
                let named = self.named.entry(tunnel.name.clone()).or_default();
                named.insert(tunnel.key.clone());
            }
        }
        let names: Vec<_> = self.named.keys().cloned().collect();
        for name in names {
            self.lead_rules(&name);
        }
    }

    /// A tunnel that has what belongs to a rule.
    fn tunnel_in_the_way(&self, rule_hosts: &RuleHosts) -> Option<RuleError> {
        let (held, key) = self.tunnels().find_map(|tunnel| {
            let held = rule_hosts.conflict(&tunnel.definition)?;
            Some((held, &tunnel.key))
        })?;
        let TunnelKey { group, name } = key;
        Some(RuleError {
            index: held.index + 1,
            problem: format!(
                "tunnel `{name}` of group `{group}` has the host `{}` already, with a path below the rule's or for its \
                 TLS; give the rule another host or path, or end the tunnel",
                held.host
            ),
        })
    }

    /// The host of a rule that a tunnel may not have.
    pub(super) fn rule_conflict(&self, definition: &Definition) -> Option<HeldHost<'_>> {
        self.rule_hosts.conflict(definition)
    }

    fn why_rejected(&self, rule: &Rule<Static>, error: &TableError) -> String {
        let path = rule.path.clone().unwrap_or_else(PathPrefix::root);
        let holder = rule
            .host
            .as_ref()
            .and_then(|host| self.of_host(host)?.get(&path));
        match holder {
            Some(TunnelKey { group, name }) => format!(
                "tunnel `{name}` of group `{group}` has a route with the same host and path; \
                 give the rule another condition or end the tunnel"
            ),
            None => error.to_string(),
        }
    }

    /// The tunnel names that rules of the configuration select.
    pub(super) fn ruled_names(&self) -> HashSet<Arc<str>> {
        self.rules_to.keys().cloned().collect()
    }

    /// Excludes this tunnel from the rules of the configuration.
    pub(super) fn unname(&mut self, tunnel: &Tunnel) {
        if let Some(named) = self.named.get_mut(&tunnel.name) {
            named.remove(&tunnel.key);
            if named.is_empty() {
                self.named.remove(&tunnel.name);
            }
            self.lead_rules(&tunnel.name);
        }
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

    /// The tunnel of a host whose TLS is passed through.
    pub(super) fn of_tls_host(&self, host: &HostPattern) -> Option<&TunnelKey> {
        self.tls_hosts.get(host)
    }

    /// Number of routes of all tunnels and rules.
    pub(super) fn routes(&self) -> usize {
        self.routes.len() + self.tls_routes.len()
    }

    /// Number of public ports that the tunnels of a user hold.
    pub(super) fn ports_of(&self, user: &UserName) -> usize {
        self.port_counts.get(user).copied().unwrap_or_default()
    }

    /// Whether a rule of the server selects tunnels of this name.
    pub(super) fn is_ruled(&self, name: &TunnelName) -> bool {
        self.rules_to.contains_key(name.as_str())
    }

    /// Adds a tunnel. No tunnel may have its key, one of its hosts with the same path, or its port.
    ///
    /// # Errors
    /// A rule of the server has another target for a host and path of the tunnel. Nothing has changed then.
    pub(super) fn insert(&mut self, tunnel: &Arc<Tunnel>) -> Result<(), TableError> {
        let first_rule = self.next_rule;
        let definition = &tunnel.definition;
        let routes = routes_of(definition, &mut self.routes, &mut self.tls_routes);
        let pairs = || {
            let hosts = definition.hosts.iter();
            let hosts = hosts.filter(|_| !definition.terminates());
            hosts.flat_map(|host| definition.paths.iter().map(move |path| (host, path)))
        };
        for (count, (host, path)) in pairs().enumerate() {
            let mut rule = Rule::new(Target::Tunnel(Arc::clone(tunnel), tunnel.layers.clone()));
            rule.host = Some(host.clone());
            rule.path = Some(path.clone());
            if let Err(error) = routes.insert(first_rule + count, rule) {
                for (number, (host, path)) in pairs().take(count).enumerate() {
                    routes.remove(first_rule + number, Some(host), Some(path));
                }
                return Err(error);
            }
        }
        self.next_rule += definition.routes();
        for (host, path) in pairs() {
            if definition.passes_through() {
                self.tls_hosts.insert(host.clone(), tunnel.key.clone());
                continue;
            }
            let paths = self.hosts.entry(host.clone()).or_default();
            paths.insert(path.clone(), tunnel.key.clone());
        }
        if let Some(port) = tunnel.port {
            self.ports.insert(port, Arc::clone(tunnel));
            let count = self.port_counts.entry(tunnel.owner.user.clone());
            *count.or_default() += 1;
            self.changed_ports.push(port);
        }
        let known = Known {
            tunnel: Arc::clone(tunnel),
            first_rule,
        };
        self.tunnels.insert(tunnel.key.clone(), known);
        self.changed = true;
        // A tunnel that is selected by port has no rules.
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
        let routes = routes_of(definition, &mut self.routes, &mut self.tls_routes);
        let mut number = first_rule;
        let hosts = definition.hosts.iter();
        for host in hosts.filter(|_| !definition.terminates()) {
            for path in &definition.paths {
                routes.remove(number, Some(host), Some(path));
                number += 1;
                if definition.passes_through() {
                    self.tls_hosts.remove(host);
                    continue;
                }
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
            if let Some(count) = self.port_counts.get_mut(&tunnel.owner.user) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.port_counts.remove(&tunnel.owner.user);
                }
            }
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

    /// Sets a tunnel with this name as the target of the server's rules that name it.
    fn lead_rules(&mut self, name: &Arc<str>) {
        let first = self.named.get(name).and_then(BTreeSet::first);
        let tunnel = first.and_then(|key| self.tunnels.get(key));
        let tunnel = tunnel.map(|known| known.tunnel.clone());
        for index in self.rules_to.get(name).into_iter().flatten() {
            let Some((number, rule)) = self.rules.get(*index) else {
                continue;
            };
            let target = match (&tunnel, &rule.target) {
                (Some(tunnel), Static::Tunnel(_, layers)) => {
                    Target::Tunnel(tunnel.clone(), layers.followed_by(&tunnel.layers))
                }
                _ => Target::Unannounced(name.clone()),
            };
            self.routes
                .remove(*number, rule.host.as_ref(), rule.path.as_ref());
            if let Err(error) = self.routes.insert(*number, with_target(rule, target)) {
                // The table had a rule with the same conditions before, so this cannot fail.
                tracing::error!(%error, "a rule of the server is missing from the routes");
            }
        }
    }
}

/// The table with the routes of a tunnel.
const fn routes_of<'t>(
    definition: &Definition,
    requests: &'t mut Table<Target>,
    tls: &'t mut Table<Target>,
) -> &'t mut Table<Target> {
    if definition.passes_through() {
        tls
    } else {
        requests
    }
}

fn with_target(rule: &Rule<Static>, target: Target) -> Rule<Target> {
    Rule {
        host: rule.host.clone(),
        path: rule.path.clone(),
        headers: rule.headers.clone(),
        grpc: rule.grpc.clone(),
        any_content_type: rule.any_content_type,
        target,
    }
}
