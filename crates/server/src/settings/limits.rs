//! Bounds of a server.

use super::{host_rules::HostRules, port_ranges::PortRanges};

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time, over all clients (F12).
    pub max_requests: usize,
    /// Requests at a time on one client (F12).
    pub max_requests_per_client: usize,
    /// Visitors that may wait for a permit; more are answered at once.
    pub max_waiting: usize,
    /// The part of all permits, in percent, that one tunnel may take. The rest is left to others.
    pub tunnel_share_percent: u8,
    /// The part of all permits, in percent, that one visitor's address (IPv6: its /64) may take. 100 where a proxy stands
    /// before the server and all visitors come from it.
    pub visitor_share_percent: u8,
    /// A visitor that owes a body, or takes an answer, more slowly than this over `stall` is reset; 0: no lowest rate.
    pub min_rate_bytes_per_sec: u64,
    /// Visitor connections at a time.
    pub max_connections: usize,
    /// TCP connections of visitors at a time, over all public ports.
    pub max_tcp_connections: usize,
    /// UDP flows at a time of one tunnel; the one that has been silent longest makes room for a new one (P-11.2).
    pub max_udp_flows: usize,
    /// Public ports that tunnels may hold.
    pub allow_ports: PortRanges,
    /// Hosts that tunnels may have.
    pub allow_hosts: HostRules,
    /// Connections of clients without a session at a time (P-1.12).
    pub max_unauthenticated: usize,
    /// Those of them that one address may have, or one /64 of IPv6.
    pub max_unauthenticated_per_address: usize,
    /// Tunnels one client may announce.
    pub max_tunnels_per_client: usize,
    /// Domains of one tunnel.
    pub max_domains_per_tunnel: usize,
    /// Locations of one tunnel.
    pub max_locations_per_tunnel: usize,
    /// Routes of one tunnel: its domains times its locations.
    pub max_routes_per_tunnel: usize,
    /// Length of one location, in bytes.
    pub max_location_bytes: usize,
    /// Layers of one tunnel (P-1.16).
    pub max_layers_per_tunnel: usize,
    /// Size of the layers of one tunnel: names, values and bodies, and 64 bytes for each.
    pub max_layer_bytes_per_tunnel: usize,
    /// Routes of all tunnels together, those included whose clients are away.
    pub max_routes: usize,
    /// Names that are kept for one user while nothing uses them; those that were used longest ago go first.
    pub max_kept_names_per_user: usize,
    /// Data streams per link.
    pub max_lanes: u32,
    /// Credit of each direction of each request at its start, in bytes (P-4.2).
    pub initial_window_bytes: u32,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// What windows may grow by in all, per link, in bytes.
    pub link_budget_bytes: u64,
    /// What windows may grow by in all, for the process, in bytes.
    pub process_budget_bytes: u64,
    /// Work of one connection or lane before the others of its thread have their turn, in bytes; each read and each message
    /// counts as 256 bytes more.
    pub turn_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 10_000,
            max_requests_per_client: 1_000,
            max_waiting: 1_000,
            tunnel_share_percent: 80,
            visitor_share_percent: 60,
            min_rate_bytes_per_sec: 64,
            max_connections: 20_000,
            max_tcp_connections: 20_000,
            max_udp_flows: 4_096,
            allow_ports: PortRanges::default(),
            allow_hosts: HostRules::default(),
            max_unauthenticated: 256,
            max_unauthenticated_per_address: 32,
            max_tunnels_per_client: 10,
            max_domains_per_tunnel: 32,
            max_locations_per_tunnel: 64,
            max_routes_per_tunnel: 256,
            max_location_bytes: 256,
            max_layers_per_tunnel: 32,
            max_layer_bytes_per_tunnel: 16 << 10,
            max_routes: 200_000,
            max_kept_names_per_user: 32_768,
            max_lanes: 8,
            initial_window_bytes: 32 * 1024,
            max_window_bytes: 4 << 20,
            link_budget_bytes: 16 << 20,
            process_budget_bytes: 64 << 20,
            turn_bytes: adit_link::turn::TURN_BYTES,
        }
    }
}
