//! Who may hold what: hosts and public ports.

use std::sync::Arc;

use adit_proto::Error as ProtoError;
use adit_registry::Link;

use super::{Directory, State, refusal};
use crate::{
    definition::Definition,
    ports::{PortError, PortKey, Transport},
    tunnel::{Tunnel, TunnelKey},
};

impl Directory {
    /// Refuses hosts that another tunnel holds under the same path, with the holder's client id. Gives those tunnels
    /// that make room.
    pub(super) fn check_hosts(
        &self,
        state: &State,
        key: &TunnelKey,
        definition: &Definition,
        link: &Arc<Link>,
    ) -> Result<Vec<TunnelKey>, ProtoError> {
        let mut displaced = Vec::new();
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
                if makes_room(other, key) {
                    displaced.push(other.key.clone());
                } else {
                    return Err(taken("name_taken", &format!("host `{host}`"), other, link));
                }
            }
        }
        Ok(displaced)
    }

    /// A port that was asked for, bound unless it is already. Gives the tunnel that makes room.
    pub(super) fn asked_port(
        &self,
        state: &State,
        key: &TunnelKey,
        port: PortKey,
        link: &Arc<Link>,
    ) -> Result<Option<TunnelKey>, ProtoError> {
        let own = [self.config.clients_port, self.config.public_port];
        if port.transport == Transport::Tcp && own.contains(&port.number) {
            return Err(refusal(
                "port_taken",
                format!(
                    "port {} is the server's own; choose another one",
                    port.number
                ),
            ));
        }
        let mut others = state.tunnels.values().filter(|other| other.key != *key);
        let holder = others.find(|other| other.port == Some(port));
        let displaced = match holder {
            Some(holder) if makes_room(holder, key) => Some(holder.key.clone()),
            Some(holder) => return Err(taken("port_taken", &port.to_string(), holder, link)),
            None => None,
        };
        self.ports.bind(port).map_err(|error| refuse_port(&error))?;
        Ok(displaced)
    }

    /// A port of the server's choice: the one that the tunnel has, if the server chose that.
    pub(super) fn picked_port(
        &self,
        key: &TunnelKey,
        transport: Transport,
        previous: Option<&Tunnel>,
    ) -> Result<PortKey, ProtoError> {
        let kept = previous.filter(|tunnel| tunnel.definition.remote_port == 0);
        match kept.and_then(|tunnel| tunnel.port) {
            Some(port) if port.transport == transport => Ok(port),
            _ => {
                let picked = self.ports.pick(transport, key);
                picked.map_err(|error| refuse_port(&error))
            }
        }
    }
}

/// Whether a tunnel gives what it holds to a newcomer: nobody serves it, and it is of the same group, so that it is the
/// same people who have given it another name. The others' clients may be on their way back.
fn makes_room(holder: &Tunnel, newcomer: &TunnelKey) -> bool {
    holder.orphaned().is_some() && holder.key.group == newcomer.group
}

/// `what` is held by another tunnel.
fn taken(code: &str, what: &str, other: &Tunnel, link: &Arc<Link>) -> ProtoError {
    let holder = other
        .holder(link.grant().client())
        .or_else(|| other.clients().into_iter().next());
    let holder = holder.map_or_else(
        || format!("group `{}`", other.key.group),
        |client| format!("client `{client}`"),
    );
    let tunnel = &other.key.name;
    refusal(
        code,
        format!("{what} is held by tunnel `{tunnel}` of {holder}"),
    )
}

fn refuse_port(error: &PortError) -> ProtoError {
    let code = match error {
        PortError::Bind(_) => "port_taken",
        PortError::Closed => "draining",
        PortError::NotAllowed { .. } => "bad_request",
        PortError::NoneFree { .. } => "limit",
    };
    refusal(code, error.to_string())
}
