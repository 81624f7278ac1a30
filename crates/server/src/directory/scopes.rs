//! What the scopes of a client allow it to announce (P-1.18).

use adit_auth::{Grant, OutOfScope, Protocol, TunnelName, Wanted};
use adit_codec::ProtocolType;

use super::refusal::{Refusal, refusal};
use crate::definition::Definition;

/// Refuses a tunnel that is outside the scopes of the client, with the scope. A port that the server picks is not checked
/// here: it picks one that the scopes allow.
pub(super) fn check_scopes(
    grant: &Grant,
    name: &TunnelName,
    definition: &Definition,
) -> Result<(), Refusal> {
    let allow = |wanted: Wanted<'_>| {
        let outside = |outside: OutOfScope| refusal("forbidden", outside.to_string());
        grant.allows(wanted).map_err(outside)
    };
    allow(Wanted::Tunnel(name))?;
    if let Some(protocol) = protocol(definition.protocol) {
        allow(Wanted::Protocol(protocol))?;
    }
    for host in &definition.hosts {
        allow(Wanted::Host(&host.to_string()))?;
    }
    if definition.remote_port != 0 {
        allow(Wanted::Port(definition.remote_port))?;
    }
    Ok(())
}

fn protocol(protocol: ProtocolType) -> Option<Protocol> {
    Some(match protocol {
        ProtocolType::Http => Protocol::Http,
        ProtocolType::Grpc => Protocol::Grpc,
        ProtocolType::WebSocket => Protocol::WebSocket,
        ProtocolType::Tcp => Protocol::Tcp,
        ProtocolType::Udp => Protocol::Udp,
        _ => return None,
    })
}
