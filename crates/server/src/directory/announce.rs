//! Announcements: what becomes of each tunnel that a client names.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use adit_codec::ProtocolType;
use adit_proto::{Error as ProtoError, Tunnel as Announced, TunnelResult};
use adit_registry::Link;

use super::{Directory, refusal::refusal, state::State};
use crate::{
    definition::Definition,
    port::PortKey,
    tunnel::{Tunnel, TunnelKey},
};

/// Tunnels of one message beyond the bound for a client that are answered one by one; what follows is not looked at.
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

    /// Takes announcements of clients: one result for each tunnel; those that cannot be leave the others standing (P-1.4).
    /// All of them make one snapshot. Of a message with far more tunnels than a client may have, the rest has no result.
    /// Beside the results stands how long those of each client took.
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
        let limit = self.config.limits.max_tunnels_per_client;
        let answered = announced.iter().take(limit.saturating_add(EXCESS));
        let results = answered.map(|tunnel| {
            // Counted over all announcements of the link, not of this call: more may come on the control stream.
            let others = self.index.lock().others(link.id(), &tunnel.name);
            let result = if others < limit {
                self.announce_one(state, link, tunnel, now)
            } else {
                Err(refusal(
                    "limit",
                    format!(
                        "a client may announce no more than {limit} tunnels \
                         (`server.limits.max_tunnels_per_client`)"
                    ),
                ))
            };
            let (public_url, error) = match result {
                Ok(public_url) => (public_url, None),
                Err(error) => (String::new(), Some(error)),
            };
            TunnelResult {
                name: tunnel.name.clone(),
                public_url,
                error,
            }
        });
        results.collect()
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
        let domain = self.config.domain.as_deref();
        let definition = Definition::parse(announced, domain, &self.config.limits)
            .map_err(|problem| refusal("bad_request", problem))?;
        let protocol = definition.protocol;
        if protocol != ProtocolType::Http && !link.supports(protocol.as_str()) {
            return Err(refusal(
                "bad_request",
                format!(
                    "this client has not said that it carries {}; install the same version of adit on both sides",
                    protocol.as_str()
                ),
            ));
        }
        self.check_allowed(&definition)?;
        self.check_owners(state, &key, &definition, link, now)?;
        let weight = announced.weight.max(1);
        let previous = state.get(&key).cloned();
        if let Some(tunnel) = &previous {
            if tunnel.definition == definition {
                self.index.lock().join(tunnel, link, weight);
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
        let mut displaced = self.check_hosts(state, &key, &definition, now)?;
        self.make_room(state, &key, &definition, &displaced)?;
        let port = match definition.transport() {
            None => None,
            Some(transport) if definition.remote_port == 0 => {
                Some(self.picked_port(&key, transport, previous.as_deref(), link)?)
            }
            Some(transport) => {
                let port = PortKey {
                    transport,
                    number: definition.remote_port,
                };
                displaced.extend(self.asked_port(state, &key, port, now)?);
                Some(port)
            }
        };
        // Closed again, if the tunnel does not come to hold it.
        state.changed_ports.extend(port);
        let tunnel = Arc::new(Tunnel::new(key.clone(), definition, port, now));
        self.replace(state, link, &tunnel, &displaced, now)?;
        self.index.lock().join(&tunnel, link, weight);
        Ok(self.public_url(&tunnel))
    }

    /// Puts a tunnel in the place of the one of its key and of the displaced ones.
    fn replace(
        &self,
        state: &mut State,
        link: &Arc<Link>,
        tunnel: &Arc<Tunnel>,
        displaced: &[TunnelKey],
        now: Instant,
    ) -> Result<(), ProtoError> {
        let leaving = displaced.iter().chain([&tunnel.key]);
        let removed: Vec<_> = leaving.filter_map(|key| state.remove(key)).collect();
        if let Err(error) = state.insert(tunnel) {
            for back in removed {
                if let Err(error) = state.insert(&back) {
                    tracing::error!(tunnel = %back.name, %error, "a tunnel was lost");
                }
            }
            return Err(refusal(
                "name_taken",
                format!("a rule of the server's file holds a host and path of it: {error}"),
            ));
        }
        self.hold(state, tunnel, link);
        for removed in &removed {
            if removed.key != tunnel.key {
                tracing::info!(
                    tunnel = %removed.name,
                    group = %removed.key.group,
                    by = %tunnel.name,
                    "a tunnel that nobody serves makes room"
                );
            }
            self.index.lock().forget(removed);
            self.end_use(removed, removed.orphaned().unwrap_or(now));
        }
        Ok(())
    }

    /// Keeps the routes of all tunnels within their bound: tunnels that nobody serves make room.
    fn make_room(
        &self,
        state: &mut State,
        key: &TunnelKey,
        definition: &Definition,
        displaced: &[TunnelKey],
    ) -> Result<(), ProtoError> {
        let limit = self.config.limits.max_routes;
        let leaving = displaced.iter().chain([key]);
        let leaving: usize = leaving
            .filter_map(|key| state.get(key))
            .map(|tunnel| tunnel.definition.routes())
            .sum();
        while (state.routes.len() + definition.routes()).saturating_sub(leaving) > limit {
            let Some((since, oldest, _)) = self.oldest_orphan() else {
                return Err(refusal(
                    "limit",
                    format!(
                        "the tunnels of this server have {limit} routes, and it takes no more \
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
