//! Announcements: the result for each tunnel that a client announces.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_auth::{TunnelName, Wanted};
use adit_codec::ProtocolType;
use adit_ingress::layers::LayerConfig;
use adit_proto::{Tunnel as Announced, TunnelResult};
use adit_registry::Link;

use super::{
    Directory,
    owner::Owner,
    refusal::{Refusal, refusal},
    scopes::{check_scopes, keep_allowed},
    state::State,
};
use crate::{
    definition::{Definition, DefinitionError},
    port::PortKey,
    tunnel::{Tunnel, TunnelKey},
};

/// Tunnels of one message beyond the limit for a client that get a result each; the rest of the message is ignored.
const EXCESS: usize = 100;

impl Directory {
    /// [`Directory::announce_each`] for one client.
    #[cfg(test)]
    pub(crate) fn announce(
        &self,
        link: &Arc<Link>,
        announced: &[Announced],
        now: Instant,
    ) -> Vec<TunnelResult> {
        let mut results = self.announce_each(&[(link, announced)], now);
        results.pop().unwrap_or_default().0
    }

    /// Creates one tunnel for an owner, as an announcement does.
    #[cfg(test)]
    pub(crate) fn create_one(
        &self,
        owner: &Owner,
        announced: &Announced,
        now: Instant,
    ) -> Result<String, Refusal> {
        let name = TunnelName::parse(&announced.name)
            .map_err(|_| refusal("bad_request", String::new()))?;
        let config = self.config.load();
        let definition = Definition::parse(announced, config.domain.as_deref(), &config.limits)
            .map_err(|error| refusal("bad_request", error.to_string()))?;
        let mut state = self.state.lock();
        let created = self.create(&mut state, owner, name, definition, 1, now);
        self.publish(&mut state);
        created
    }

    /// Processes announcements of clients: one result for each tunnel; a tunnel that is refused does not affect the
    /// others (P-1.4). All of them make one snapshot. In a message with far more tunnels than a client may have, the
    /// rest gets no result. The results of each client are returned with the time that its announcements took.
    pub(crate) fn announce_each(
        &self,
        announced: &[(&Arc<Link>, &[Announced])],
        now: Instant,
    ) -> Vec<(Vec<TunnelResult>, Duration)> {
        let mut state = self.state.lock();
        self.forget_orphans(&mut state, now);
        let results = announced
            .iter()
            .map(|(link, tunnels)| {
                let began = Instant::now();
                let results = self.announce_to(&mut state, link, tunnels, now);
                (results, began.elapsed())
            })
            .collect();
        self.publish(&mut state);
        results
    }

    fn announce_to(
        &self,
        state: &mut State,
        link: &Arc<Link>,
        announced: &[Announced],
        now: Instant,
    ) -> Vec<TunnelResult> {
        let limit = self.config.load().limits.max_tunnels_per_client;
        let own_limit = link.grant().max_tunnels();
        let own_limit = own_limit.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(limit));
        let processed = announced.iter().take(limit.saturating_add(EXCESS));
        let results = processed.map(|tunnel| {
            // Tunnels are counted over all announcements of the link, not only this one: more may follow on the control
            // stream.
            let others = self.index.lock().others(link.id(), &tunnel.name);
            let result = if let Err(refusal) = self.check_user(state, link, tunnel) {
                Err(refusal)
            } else if others < limit.min(own_limit) {
                self.announce_one(state, link, tunnel, now)
            } else if others < limit {
                let user = link.grant().user();
                Err(refusal(
                    "limit",
                    format!(
                        "a client of user `{user}` may have at most {own_limit} tunnels (`max_tunnels` of its scopes)"
                    ),
                ))
            } else {
                Err(refusal(
                    "limit",
                    format!(
                        "a client may have at most {limit} tunnels \
                         (`server.limits.max_tunnels_per_client`)"
                    ),
                ))
            };
            let (public_url, error) = match result {
                Ok(public_url) => (public_url, None),
                Err(refusal) => (String::new(), Some(refusal.into())),
            };
            let note = if error.is_none() && tunnel.obtain_certificates {
                self.certificate_note(state, link, &tunnel.name)
            } else {
                String::new()
            };
            TunnelResult {
                name: tunnel.name.clone(),
                public_url,
                error,
                note,
            }
        });
        results.collect()
    }

    /// Refuses a tunnel beyond the number that its user may have (P-16.5). Tunnels without clients count as well: they hold
    /// names.
    fn check_user(&self, state: &State, link: &Link, announced: &Announced) -> Result<(), Refusal> {
        let (user, group) = (link.grant().user(), link.grant().group());
        let config = self.config.load();
        let Some(most) = config.limits.traffic.of_user(user).max_tunnels else {
            return Ok(());
        };
        let others = state.tunnels().filter(|tunnel| {
            let is_same = tunnel.key.group == *group && *tunnel.name == *announced.name;
            tunnel.owner.user == *user && !is_same
        });
        if others.take(most).count() < most {
            return Ok(());
        }
        if let Some(traffic) = self.traffic.get() {
            traffic.on_tunnel_refused();
        }
        let text = format!(
            "user `{user}` may have at most {most} tunnels (`server.limits.per_user.max_tunnels`, or that of the user in \
             `server.limits.users`)"
        );
        Err(refusal("limit", text))
    }

    fn announce_one(
        &self,
        state: &mut State,
        link: &Arc<Link>,
        announced: &Announced,
        now: Instant,
    ) -> Result<String, Refusal> {
        let name = TunnelName::parse(&announced.name)
            .map_err(|error| refusal("bad_request", error.to_string()))?;
        let config = self.config.load();
        let domain = config.domain.as_deref();
        let mut definition = Definition::parse(announced, domain, &config.limits)
            .map_err(|error| refusal("bad_request", error.to_string()))?;
        if announced.domains.is_empty() {
            keep_allowed(link.grant(), &mut definition.hosts);
        }
        check_scopes(link.grant(), &name, &definition)?;
        self.check_providers(&definition)?;
        let weight = announced.weight.max(1);
        self.create(state, &Owner::of_link(link), name, definition, weight, now)
    }

    /// Rejects a tunnel with a provider of forward auth that the configuration does not have (P-15.10).
    fn check_providers(&self, definition: &Definition) -> Result<(), Refusal> {
        let mut named = definition.layers.iter().filter_map(LayerConfig::provider);
        match named.find(|name| !self.access.has_provider(name)) {
            None => Ok(()),
            Some(name) => {
                let name = name.to_owned();
                let error = DefinitionError::Provider { name };
                Err(refusal("bad_request", error.to_string()))
            }
        }
    }

    /// Creates a tunnel, or adds the owner's link to the existing tunnel with the same definition. Returns the public
    /// URL.
    ///
    /// # Errors
    /// [`Refusal`] when the owner may not have it. Nothing has changed then, except ports that the next snapshot
    /// closes.
    pub(super) fn create(
        &self,
        state: &mut State,
        owner: &Owner,
        name: TunnelName,
        definition: Definition,
        weight: u32,
        now: Instant,
    ) -> Result<String, Refusal> {
        let key = TunnelKey {
            group: owner.claimant.group.clone(),
            name,
        };
        let protocol = definition.protocol;
        if let Some(link) = &owner.link
            && protocol != ProtocolType::Http
            && !link.supports(protocol.as_str())
        {
            return Err(refusal(
                "bad_request",
                format!(
                    "the client does not support {}; install the same version of adit on both sides",
                    protocol.as_str()
                ),
            ));
        }
        self.check_allowed(&definition)?;
        self.check_owners(state, &key, &definition, &owner.claimant, now)?;
        let previous = state.get(&key).cloned();
        if let Some(tunnel) = &previous {
            let has_allowed_port = tunnel.port.is_none_or(|port| owner.allows(port));
            if tunnel.definition == definition && has_allowed_port {
                if let Some(link) = &owner.link {
                    self.index.lock().join(tunnel, link, weight);
                }
                return Ok(self.public_url(tunnel));
            }
            let own = owner.link.as_ref().map(|link| link.grant().client());
            if let Some(holder) = tunnel.holder(own) {
                if tunnel.definition == definition
                    && let (Some(link), Some(port)) = (&owner.link, tunnel.port)
                {
                    let outside = link.grant().allows(Wanted::Port(port.number));
                    outside.map_err(|outside| refusal("forbidden", outside.to_string()))?;
                }
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
        let layers = self.layers(&key, &definition)?;
        let mut displaced = self.check_hosts(state, &key, &definition, now)?;
        self.make_room(state, &key, &definition, &displaced)?;
        self.check_ports_of(state, &key, &definition, &owner.claimant.user)?;
        let port = match definition.transport() {
            None => None,
            Some(transport) if definition.remote_port == 0 => {
                Some(self.picked_port(&key, transport, previous.as_deref(), owner)?)
            }
            Some(transport) => {
                let port = PortKey {
                    transport,
                    number: definition.remote_port,
                };
                displaced.extend(self.requested_port(state, &key, port, now)?);
                Some(port)
            }
        };
        // The port is closed again, unless the tunnel takes it.
        state.changed_ports.extend(port);
        let claimant = owner.claimant.clone();
        let tunnel = Tunnel::new(key.clone(), claimant, definition, layers, port, now);
        let tunnel = Arc::new(tunnel);
        self.replace(state, &tunnel, &displaced, now)?;
        match &owner.link {
            Some(link) => self.index.lock().join(&tunnel, link, weight),
            None => self.index.lock().add_orphan(&tunnel),
        }
        Ok(self.public_url(&tunnel))
    }

    /// Replaces the tunnel with this key and the displaced ones.
    fn replace(
        &self,
        state: &mut State,
        tunnel: &Arc<Tunnel>,
        displaced: &[TunnelKey],
        now: Instant,
    ) -> Result<(), Refusal> {
        let leaving = displaced.iter().chain([&tunnel.key]);
        let removed: Vec<_> = leaving.filter_map(|key| state.remove(key)).collect();
        if let Err(error) = state.insert(tunnel) {
            for back in removed {
                if let Err(error) = state.insert(&back) {
                    tracing::error!(tunnel = %back.name, %error, "a removed tunnel could not be restored");
                }
            }
            return Err(refusal(
                "name_taken",
                format!("a rule of the server has the same host and path: {error}"),
            ));
        }
        self.hold(state, tunnel);
        for removed in &removed {
            if removed.key != tunnel.key {
                tracing::info!(
                    tunnel = %removed.name,
                    group = %removed.key.group,
                    by = %tunnel.name,
                    "a tunnel without clients is removed to make room"
                );
            }
            self.index.lock().forget(removed);
            self.end_use(removed, removed.orphaned().unwrap_or(now));
        }
        Ok(())
    }

    /// Keeps the routes of all tunnels within their bound: removes tunnels without clients.
    fn make_room(
        &self,
        state: &mut State,
        key: &TunnelKey,
        definition: &Definition,
        displaced: &[TunnelKey],
    ) -> Result<(), Refusal> {
        let limit = self.config.load().limits.max_routes;
        let leaving = displaced.iter().chain([key]);
        let leaving: usize = leaving
            .filter_map(|key| state.get(key))
            .map(|tunnel| tunnel.definition.routes())
            .sum();
        while (state.routes() + definition.routes()).saturating_sub(leaving) > limit {
            let Some((since, oldest, _)) = self.oldest_orphan() else {
                return Err(refusal(
                    "limit",
                    format!(
                        "the tunnels of this server have {limit} routes, which is its limit \
                         (`server.limits.max_routes`)"
                    ),
                ));
            };
            if oldest == *key || displaced.contains(&oldest) {
                break;
            }
            self.forget_orphan(state, since, oldest);
        }
        Ok(())
    }
}
