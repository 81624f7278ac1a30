//! Ownership of groups, client ids, hosts, public ports, and tunnels that rules select.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use adit_auth::{Grant, UserName};
use adit_net::reserved_descriptors;
use adit_router::HostPattern;

use super::{
    Directory, claimant,
    enter_error::EnterError,
    names_of,
    owner::Owner,
    refusal::{Refusal, refusal},
    state::State,
};
use crate::{
    definition::Definition,
    names::{Claimant, Entry, Ledger, Name},
    port::{PortKey, Transport},
    ports::PortError,
    settings::is_reserved,
    tunnel::{Tunnel, TunnelKey, Vacancy},
};

/// The use of group and client id by a link. Dropping this releases them.
pub(crate) struct Entered<'d> {
    directory: &'d Directory,
    grant: Grant,
    is_kept: bool,
}

impl Entered<'_> {
    /// Keeps the claimed names: after this call they are released at the end of the link.
    pub(crate) fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            self.directory.exit(&self.grant, Instant::now());
        }
    }
}

impl Directory {
    /// Claims group and client id for a link that is about to register (P-1.9).
    pub(crate) fn enter(&self, grant: &Grant) -> Result<Entered<'_>, EnterError> {
        let claimant = claimant(grant);
        let now = self.clock.at(Instant::now());
        let mut names = self.names.lock();
        names.expire(now);
        if names.is_shared_without(&claimant) {
            return Err(EnterError::NotShared {
                group: claimant.group.to_string(),
            });
        }
        let [group, client] = names_of(grant);
        if let Some(entry) = names.conflict(&group, &claimant) {
            return Err(EnterError::Group {
                group: claimant.group.to_string(),
                kept: kept(&names, entry, now),
            });
        }
        if let Some(entry) = names.conflict(&client, &claimant) {
            return Err(EnterError::Client {
                client: grant.client().to_string(),
                group: entry.owner.group.to_string(),
                kept: kept(&names, entry, now),
            });
        }
        for name in [group, client] {
            names.hold(&name, &claimant, None);
        }
        drop(names);
        Ok(Entered {
            directory: self,
            grant: grant.clone(),
            is_kept: false,
        })
    }

    /// Releases group and client id of a link.
    pub(super) fn exit(&self, grant: &Grant, now: Instant) {
        let mut names = self.names.lock();
        for name in names_of(grant) {
            names.end_use(&name, self.clock.at(now));
        }
    }

    /// Refuses hosts that the settings do not allow for tunnels (P-1.10).
    pub(super) fn check_allowed(&self, definition: &Definition) -> Result<(), Refusal> {
        let config = self.config.load();
        let (rules, domain) = (&config.limits.allow_hosts, &config.domain);
        let mut hosts = definition.hosts.iter();
        let Some(host) = hosts.find(|host| !rules.allow(host, domain.as_deref())) else {
            return Ok(());
        };
        if is_reserved(host, domain.as_deref()) {
            return Err(refusal(
                "bad_request",
                format!(
                    "host `{host}` is reserved for the server itself; choose another name, or the operator gives it to tunnels by this name in `server.limits.allow_hosts`"
                ),
            ));
        }
        let why = if host.is_wildcard() {
            "wildcards are allowed below a name of the server's own domain, and inside"
        } else {
            "tunnels may have names below the server's own domain, and"
        };
        Err(refusal(
            "bad_request",
            format!(
                "host `{host}` is not allowed on this server: {why} {rules} (`server.limits.allow_hosts`)"
            ),
        ))
    }

    /// Refuses names that belong to another user, with the group and the tunnel that hold them (P-1.9).
    pub(super) fn check_owners(
        &self,
        state: &State,
        key: &TunnelKey,
        definition: &Definition,
        claimant: &Claimant,
        now: Instant,
    ) -> Result<(), Refusal> {
        let names = self.names.lock();
        let refuse = |name: &Name, entry: &Entry, code: &'static str| {
            let group = &entry.owner.group;
            let tunnel = entry.tunnel.clone().map(|name| TunnelKey {
                group: group.clone(),
                name,
            });
            let lost = tunnel
                .and_then(|key| state.get(&key)?.orphaned())
                .filter(|_| entry.uses > 0);
            let kept = match lost {
                Some(since) => self.kept_without_clients(since, now),
                None => kept(&names, entry, self.clock.at(now)),
            };
            let holder = match &entry.tunnel {
                Some(tunnel) => format!("tunnel `{tunnel}` of group `{group}`"),
                None => format!("group `{group}`"),
            };
            refusal(
                code,
                format!("{name} is held by {holder}, of another user{kept}"),
            )
        };
        if let Some(held) = state.rule_conflict(definition) {
            return Err(refuse_host_of_rule(held.host, definition));
        }
        for host in &definition.hosts {
            if let Some((name, entry)) = names.host_conflict(host, claimant) {
                return Err(refuse(&name, entry, "name_taken"));
            }
        }
        if definition.is_http() && state.is_ruled(&key.name) {
            let name = Name::Tunnel(key.name.clone());
            if let Some(entry) = names.conflict(&name, claimant) {
                return Err(refuse(&name, entry, "name_taken"));
            }
        }
        if let Some(transport) = definition.transport()
            && definition.remote_port != 0
        {
            let name = Name::Port(PortKey {
                transport,
                number: definition.remote_port,
            });
            if let Some(entry) = names.conflict(&name, claimant) {
                return Err(refuse(&name, entry, "port_taken"));
            }
        }
        Ok(())
    }

    /// Refuses hosts that another tunnel holds: any path of a host that another group holds, and the same path of a
    /// host in the same group (P-1.4). Returns the tunnels that the new one displaces.
    pub(super) fn check_hosts(
        &self,
        state: &State,
        key: &TunnelKey,
        definition: &Definition,
        now: Instant,
    ) -> Result<Vec<TunnelKey>, Refusal> {
        let mut displaced = Vec::new();
        for host in &definition.hosts {
            // A host may have a tunnel for requests and another one for TLS that is passed through, of one group.
            let tls = state.of_tls_host(host);
            let tls = tls.filter(|other| definition.passes_through() || other.group != key.group);
            let requests = state.of_host(host);
            let requests = requests.filter(|held| {
                definition.visitor_tls.is_none()
                    || held.values().all(|other| other.group != key.group)
            });
            let none = HashMap::new();
            let held = requests.unwrap_or(&none);
            let is_ours = held.values().any(|other| other.group == key.group);
            let same_paths = definition.paths.iter().filter_map(|path| held.get(path));
            let others: Vec<_> = if is_ours {
                same_paths.collect()
            } else {
                held.values().collect()
            };
            for other in others.into_iter().chain(tls) {
                if *other == *key || displaced.contains(other) {
                    continue;
                }
                let Some(tunnel) = state.get(other) else {
                    continue;
                };
                if !makes_room(tunnel, key) {
                    return Err(self.taken("name_taken", &Name::Host(host.clone()), tunnel, now));
                }
                displaced.push(other.clone());
            }
        }
        Ok(displaced)
    }

    /// Binds a requested port, unless it is bound already. Returns the tunnel that the new one displaces.
    pub(super) fn requested_port(
        &self,
        state: &State,
        key: &TunnelKey,
        port: PortKey,
        now: Instant,
    ) -> Result<Option<TunnelKey>, Refusal> {
        let is_own = port.number == self.clients_port() || self.is_shared(port.number);
        if port.transport == Transport::Tcp && is_own {
            return Err(refusal(
                "port_taken",
                format!(
                    "port {} is the server's own; choose another one",
                    port.number
                ),
            ));
        }
        let holder = state.ports.get(&port).filter(|other| other.key != *key);
        let displaced = match holder {
            Some(holder) if makes_room(holder, key) => Some(holder.key.clone()),
            Some(holder) => return Err(self.taken("port_taken", &Name::Port(port), holder, now)),
            None => None,
        };
        self.ports.bind(port).map_err(|error| refuse_port(&error))?;
        Ok(displaced)
    }

    /// Refuses a port beyond the number that a user may have (P-16.9). Those of tunnels without clients count as well: they
    /// are open. The ports of the tunnels that the new one replaces are about to be free.
    pub(super) fn check_ports_of(
        &self,
        state: &State,
        key: &TunnelKey,
        definition: &Definition,
        user: &UserName,
    ) -> Result<(), Refusal> {
        let Some(transport) = definition.transport() else {
            return Ok(());
        };
        let limit = self.config.load().limits.max_ports_per_user;
        let limit = limit.unwrap_or_else(|| reserved_descriptors() / 4);
        let requested = PortKey {
            transport,
            number: definition.remote_port,
        };
        let own = state.get(key).filter(|tunnel| tunnel.port.is_some());
        let holder = state.ports.get(&requested);
        let holder = holder.filter(|holder| holder.key != *key);
        let replaced = own.into_iter().chain(holder);
        let replaced = replaced.filter(|tunnel| tunnel.owner.user == *user).count();
        if state.ports_of(user).saturating_sub(replaced) < limit {
            return Ok(());
        }
        let text = format!(
            "user `{user}` has {limit} public ports, which is the limit (`server.limits.max_ports_per_user`, by default \
             a sixteenth of the file descriptors)"
        );
        Err(refusal("limit", text))
    }

    /// A port of the server's choice: the port of the previous tunnel, if the server chose that.
    pub(super) fn picked_port(
        &self,
        key: &TunnelKey,
        transport: Transport,
        previous: Option<&Tunnel>,
        owner: &Owner,
    ) -> Result<PortKey, Refusal> {
        let kept = previous.filter(|tunnel| tunnel.definition.remote_port == 0);
        match kept.and_then(|tunnel| tunnel.port) {
            Some(port) if port.transport == transport && owner.allows(port) => Ok(port),
            _ => {
                // The names are locked for each port separately: binding them may take long.
                let eligible = |port| {
                    let claimant = &owner.claimant;
                    owner.allows(port) && !self.names.lock().is_foreign(&Name::Port(port), claimant)
                };
                let picked = self.ports.pick(transport, key, eligible);
                picked.map_err(|error| refuse_port(&error))
            }
        }
    }

    /// Claims the names of a tunnel for its owner.
    pub(super) fn hold(&self, state: &State, tunnel: &Tunnel) {
        let mut names = self.names.lock();
        for name in names_of_tunnel(tunnel) {
            names.hold(&name, &tunnel.owner, Some(&tunnel.key.name));
        }
        if tunnel.definition.is_http() && state.is_ruled(&tunnel.key.name) {
            let name = Name::Tunnel(tunnel.key.name.clone());
            names.hold(&name, &tunnel.owner, Some(&tunnel.key.name));
        }
    }

    /// Ends the use of the names of a tunnel, unused since `since`.
    pub(super) fn end_use(&self, tunnel: &Tunnel, since: Instant) {
        let since = self.clock.at(since);
        let mut names = self.names.lock();
        for name in names_of_tunnel(tunnel) {
            names.end_use(&name, since);
        }
        if tunnel.definition.is_http() {
            names.end_use_by(&Name::Tunnel(tunnel.key.name.clone()), &tunnel.owner, since);
        }
    }

    /// Follows changed rules: the name of a tunnel that a rule selects has an owner, other tunnel names have none
    /// (P-1.9). If tunnels of several users have such a name, the first in the order of their groups owns it, and rules
    /// do not select the others.
    pub(super) fn follow_rules(
        &self,
        state: &mut State,
        ruled_before: &HashSet<Arc<str>>,
        now: Instant,
    ) {
        let now = self.clock.at(now);
        let tunnels = state.tunnels().filter(|tunnel| tunnel.definition.is_http());
        let mut tunnels: Vec<_> = tunnels.cloned().collect();
        tunnels.sort_by(|a, b| a.key.cmp(&b.key));
        let mut names = self.names.lock();
        for tunnel in tunnels {
            let name = Name::Tunnel(tunnel.key.name.clone());
            let was_ruled = ruled_before.contains(&tunnel.name);
            match (was_ruled, state.is_ruled(&tunnel.key.name)) {
                (_, true) if names.is_foreign(&name, &tunnel.owner) => state.unname(&tunnel),
                (false, true) => names.hold(&name, &tunnel.owner, Some(&tunnel.key.name)),
                (true, false) => names.end_use_by(&name, &tunnel.owner, now),
                _ => {}
            }
        }
    }

    /// The refusal because `name` is held by another tunnel of the same user.
    fn taken(&self, code: &'static str, name: &Name, other: &Tunnel, now: Instant) -> Refusal {
        let TunnelKey {
            group,
            name: tunnel,
        } = &other.key;
        let state = match (other.vacancy(), other.orphaned()) {
            (Vacancy::Served(client), _) => format!(", which client `{client}` serves"),
            (_, None) => ", whose clients are leaving".to_owned(),
            (_, Some(since)) => self.kept_without_clients(since, now),
        };
        refusal(
            code,
            format!("{name} is held by tunnel `{tunnel}` of group `{group}`{state}"),
        )
    }

    fn kept_without_clients(&self, since: Instant, now: Instant) -> String {
        let passed = now.saturating_duration_since(since);
        let left = self.config.load().retention.saturating_sub(passed);
        format!(
            "; it has no client now and is kept for its clients for another {}",
            seconds(left)
        )
    }
}

/// The names that a tunnel holds: its hosts and its port.
fn names_of_tunnel(tunnel: &Tunnel) -> impl Iterator<Item = Name> {
    let hosts = tunnel.definition.hosts.iter().cloned().map(Name::Host);
    hosts.chain(tunnel.port.map(Name::Port))
}

/// How long an unused name is kept.
fn kept(names: &Ledger, entry: &Entry, now: Duration) -> String {
    let left = names.kept_for(entry, now).map(|left| {
        format!(
            "; it is unused now and is kept for that user for another {}",
            seconds(left)
        )
    });
    left.unwrap_or_default()
}

/// A duration in minutes and whole seconds.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_millis().div_ceil(1_000);
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// Whether another tunnel of the same user may displace this one (P-1.11). After a drain it may: the clients may have
/// returned under another client id or group. After the loss of its clients it may not, because they may be
/// reconnecting, unless the new tunnel is of the same group: then they have renamed the tunnel.
fn makes_room(holder: &Tunnel, newcomer: &TunnelKey) -> bool {
    match holder.vacancy() {
        Vacancy::Served(_) => false,
        Vacancy::Left => true,
        Vacancy::Lost => holder.key.group == newcomer.group,
    }
}

fn refuse_host_of_rule(host: &HostPattern, definition: &Definition) -> Refusal {
    let why = if definition.visitor_tls.is_some() {
        "so that no tunnel has its TLS; choose another host"
    } else {
        "with every path below the rule's; choose another host or path"
    };
    let message = format!("host `{host}` belongs to a rule of the server, {why}");
    refusal("name_taken", message)
}

fn refuse_port(error: &PortError) -> Refusal {
    let code = match error {
        PortError::Bind(_) => "port_taken",
        PortError::Closed => "draining",
        PortError::NotAllowed { .. } => "bad_request",
        PortError::NoneFree { .. } | PortError::TooMany { .. } => "limit",
    };
    refusal(code, error.to_string())
}
