//! The services of the settings, in the form of `adit-egress`.

use std::collections::HashMap;

use adit_egress::ServiceConfig;
use adit_net::HostPort;
use adit_tls::Trust;

use crate::settings::Settings;

/// Limits and timeouts of the services' side. `share`: the file descriptors for that side.
pub(super) fn egress_config(settings: &Settings, share: usize) -> adit_egress::Config {
    adit_egress::Config {
        max_connections: settings.limits.max_service_connections.min(share),
        max_idle: settings.limits.max_idle_connections,
        turn_bytes: settings.limits.turn_bytes,
        ..adit_egress::Config::with_timeouts(&settings.timeouts.edge)
    }
}

/// Warns of services whose certificate is not verified.
pub(super) fn warn_of_insecure(settings: &Settings) {
    for tunnel in settings.tunnels.iter().filter(|tunnel| {
        let tls = tunnel.service.tls.as_ref();
        tls.is_some_and(|tls| tls.trust == Trust::Anyone)
    }) {
        tracing::warn!(
            tunnel = tunnel.name,
            "local_tls.insecure: the certificate of the service is not verified; an attacker on the path can read and \
             change everything"
        );
    }
}

/// Warns of a tunnel in clear text through a network.
pub(super) fn warn_of_clear_text(settings: &Settings) {
    let server = HostPort::new(&settings.server_host, settings.server_port);
    if settings.tls.is_none() && !server.is_loopback() {
        tracing::warn!(
            %server,
            "the connection to the server is not encrypted: remove `tls: off` from the client and from the server"
        );
    }
}

/// The services, by the name of their tunnel.
pub(super) fn services(settings: &Settings) -> HashMap<Box<str>, ServiceConfig> {
    settings
        .tunnels
        .iter()
        .map(|tunnel| {
            let service = &tunnel.service;
            let mut config = ServiceConfig::new(&service.host, service.port, service.protocol);
            config.tls.clone_from(&service.tls);
            config.host_rewrite.clone_from(&service.host_rewrite);
            config.custom_headers.clone_from(&service.custom_headers);
            config.proxy_protocol = service.proxy_protocol;
            config.session_timeout = service.session_timeout;
            config.compression = tunnel.compression;
            (tunnel.name.as_str().into(), config)
        })
        .collect()
}
