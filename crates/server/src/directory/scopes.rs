//! What the scopes of a client allow it to announce (P-1.18).

use adit_auth::{Grant, OutOfScope, Protocol, TunnelName, Wanted};
use adit_codec::ProtocolType;
use adit_router::HostPattern;

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
    let Some(protocol) = protocol(definition) else {
        let text = "the scopes of clients do not have this protocol";
        return Err(refusal("forbidden", text.to_owned()));
    };
    allow(Wanted::Protocol(protocol))?;
    for host in &definition.hosts {
        allow(Wanted::Host(&host.to_string()))?;
    }
    if definition.remote_port != 0 {
        allow(Wanted::Port(definition.remote_port))?;
    }
    Ok(())
}

/// Leaves out the hosts that the server gives the tunnel and that the scopes of the client exclude. If they exclude all of
/// them, those below the server's own domain stay, for the refusal.
pub(super) fn keep_allowed(grant: &Grant, hosts: &mut Vec<HostPattern>) {
    let is_allowed = |host: &HostPattern| grant.allows(Wanted::Host(&host.to_string())).is_ok();
    let is_public = |host: &HostPattern| !host.to_string().ends_with(".localhost");
    if hosts.iter().any(is_allowed) {
        hosts.retain(is_allowed);
    } else if hosts.iter().any(is_public) {
        hosts.retain(is_public);
    }
}

fn protocol(definition: &Definition) -> Option<Protocol> {
    Some(match definition.protocol {
        _ if definition.passes_through() => Protocol::Tls,
        ProtocolType::Http => Protocol::Http,
        ProtocolType::Grpc => Protocol::Grpc,
        ProtocolType::WebSocket => Protocol::WebSocket,
        ProtocolType::Tcp => Protocol::Tcp,
        ProtocolType::Udp => Protocol::Udp,
        _ => return None,
    })
}
