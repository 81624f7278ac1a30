//! The section `limits` of a server.

use adit_router::HostPattern;
use adit_server::{HostRules, Limits, PortRanges};

use crate::{
    error::ConfigError,
    key_names,
    ranges::{BUDGET, CHECKS, COUNT, LANES, LAYERS, LOCATION, RATE, SHARE, TURN, WINDOW},
    read::{Item, Section},
    server::traffic,
};

pub(super) fn read(section: &mut Section<'_>) -> Result<Limits, ConfigError> {
    let mut limits = Limits::default();
    section.set_number("max_requests", COUNT, &mut limits.max_requests)?;
    section.set_number(
        "max_requests_per_client",
        COUNT,
        &mut limits.max_requests_per_client,
    )?;
    section.set_number("max_waiting", 0..=*COUNT.end(), &mut limits.max_waiting)?;
    section.set_number("tunnel_share", SHARE, &mut limits.tunnel_share_percent)?;
    section.set_number("visitor_share", SHARE, &mut limits.visitor_share_percent)?;
    section.set_size("min_rate", RATE, &mut limits.min_rate_bytes_per_sec)?;
    section.set_number("max_connections", COUNT, &mut limits.max_connections)?;
    if let Some(item) = section.item("max_connections_per_address") {
        limits.max_connections_per_address = Some(item.number(COUNT)?);
    }
    section.set_number(
        "max_tcp_connections",
        COUNT,
        &mut limits.max_tcp_connections,
    )?;
    for (key, slot) in [
        (
            "max_tcp_connections_per_address",
            &mut limits.max_tcp_connections_per_address,
        ),
        (
            "max_tcp_connections_per_tunnel",
            &mut limits.max_tcp_connections_per_tunnel,
        ),
    ] {
        if let Some(item) = section.item(key) {
            *slot = Some(item.number(COUNT)?);
        }
    }
    section.set_number("max_udp_flows", COUNT, &mut limits.max_udp_flows)?;
    if let Some(item) = section.item("allow_ports") {
        limits.allow_ports = ports(&item)?;
    }
    if let Some(item) = section.item("allow_hosts") {
        limits.allow_hosts = hosts(&item)?;
    }
    section.set_number(
        "max_unauthenticated",
        COUNT,
        &mut limits.max_unauthenticated,
    )?;
    section.set_number(
        "max_unauthenticated_per_address",
        COUNT,
        &mut limits.max_unauthenticated_per_address,
    )?;
    for (key, slot) in [
        (
            "max_client_connections_per_user",
            &mut limits.max_client_connections_per_user,
        ),
        ("max_clients_per_user", &mut limits.max_clients_per_user),
        ("max_ports_per_user", &mut limits.max_ports_per_user),
    ] {
        if let Some(item) = section.item(key) {
            *slot = Some(item.number(COUNT)?);
        }
    }
    section.set_number("max_handshakes", COUNT, &mut limits.max_handshakes)?;
    section.set_number(
        "max_handshakes_per_address",
        COUNT,
        &mut limits.max_handshakes_per_address,
    )?;
    section.set_number(
        "max_denials_per_minute",
        COUNT,
        &mut limits.max_denials_per_minute,
    )?;
    section.set_number(
        "max_password_checks",
        CHECKS,
        &mut limits.max_password_checks,
    )?;
    for (key, slot) in [
        (
            "max_waiting_password_checks",
            &mut limits.max_waiting_password_checks,
        ),
        ("max_rate_addresses", &mut limits.max_rate_addresses),
        ("max_bans", &mut limits.max_bans),
    ] {
        section.set_number(key, COUNT, slot)?;
    }
    section.set_number(
        "max_tunnels_per_client",
        COUNT,
        &mut limits.max_tunnels_per_client,
    )?;
    for (key, slot) in [
        ("max_domains_per_tunnel", &mut limits.max_domains_per_tunnel),
        (
            "max_locations_per_tunnel",
            &mut limits.max_locations_per_tunnel,
        ),
        ("max_routes_per_tunnel", &mut limits.max_routes_per_tunnel),
        ("max_layers_per_tunnel", &mut limits.max_layers_per_tunnel),
        ("max_routes", &mut limits.max_routes),
        (
            "max_kept_names_per_user",
            &mut limits.max_kept_names_per_user,
        ),
    ] {
        section.set_number(key, COUNT, slot)?;
    }
    limits.traffic = traffic::read(section)?;
    section.set_size(
        "max_location_bytes",
        LOCATION,
        &mut limits.max_location_bytes,
    )?;
    section.set_size(
        "max_layer_bytes_per_tunnel",
        LAYERS,
        &mut limits.max_layer_bytes_per_tunnel,
    )?;
    section.set_number("max_lanes", LANES, &mut limits.max_lanes)?;
    section.set_size("initial_window", WINDOW, &mut limits.initial_window_bytes)?;
    section.set_size("max_window", WINDOW, &mut limits.max_window_bytes)?;
    section.set_size("link_budget", BUDGET, &mut limits.link_budget_bytes)?;
    section.set_size("process_budget", BUDGET, &mut limits.process_budget_bytes)?;
    section.set_size("turn", TURN, &mut limits.turn_bytes)?;
    section.finish(&key_names::SERVER_LIMITS)?;
    if u64::from(limits.initial_window_bytes) > limits.max_window_bytes {
        return Err(section
            .conflict(
                &["initial_window", "max_window"],
                format!(
                    "initial_window ({}) is larger than max_window ({})",
                    bytesize::ByteSize(limits.initial_window_bytes.into()),
                    bytesize::ByteSize(limits.max_window_bytes)
                ),
            )
            .with_help("lower initial_window or raise max_window"));
    }
    Ok(limits)
}

const PORTS: &str = "a port such as 2222 or a range such as \"5000-5100\"";

/// Reads `[2222, "5000-5100"]`, or one text: `2222, 5000-5100`. An empty list allows no port.
fn ports(item: &Item<'_>) -> Result<PortRanges, ConfigError> {
    let mut ranges = Vec::new();
    for item in item.one_or_more("ports")? {
        let Ok(text) = item.text(PORTS) else {
            let port = item.number::<u16>(1..=65_535)?;
            ranges.push(port..=port);
            continue;
        };
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let port = |text: &str| text.trim().parse().ok().filter(|port| *port != 0);
            match (port(first), port(last)) {
                (Some(first), Some(last)) if first <= last => ranges.push(first..=last),
                _ => {
                    return Err(item.error(format!("expected {PORTS}, found {part:?}")));
                }
            }
        }
    }
    Ok(PortRanges::new(ranges))
}

/// Reads `["*", "*.apps.example.net", shop.example.com]`, or one text. `*` is every exact name.
fn hosts(item: &Item<'_>) -> Result<HostRules, ConfigError> {
    let mut rules = HostRules {
        any_name: false,
        patterns: Vec::new(),
    };
    for item in item.one_or_more("hosts")? {
        for part in item
            .text("a host, *.HOST, or * for every exact name")?
            .split(',')
        {
            match part.trim() {
                "*" => rules.any_name = true,
                part => {
                    let pattern = part.parse::<HostPattern>();
                    let pattern = pattern.map_err(|error| item.error(error.to_string()))?;
                    rules.patterns.push(pattern);
                }
            }
        }
    }
    Ok(rules)
}
