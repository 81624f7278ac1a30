//! Bounds of a server.

use super::{host_rules::HostRules, port_ranges::PortRanges, traffic::TrafficSettings};

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent requests over all clients (F12).
    pub max_requests: usize,
    /// Concurrent requests on one client (F12).
    pub max_requests_per_client: usize,
    /// Visitors that may wait for a permit; further ones are rejected at once.
    pub max_waiting: usize,
    /// The percentage of all permits that one tunnel may take. The rest is left to others.
    pub tunnel_share_percent: u8,
    /// The percentage of all permits that one visitor's address (IPv6: its /64) may take. 100 if all visitors connect
    /// through a proxy before the server.
    pub visitor_share_percent: u8,
    /// A visitor that sends a body, or reads a response, more slowly than this over `stall` is reset; 0: no lowest
    /// rate.
    pub min_rate_bytes_per_sec: u64,
    /// Concurrent connections of HTTP visitors.
    pub max_connections: usize,
    /// Concurrent connections of HTTP visitors from one address, or one IPv6 /64, except `trusted_proxies`; `None`: a
    /// quarter of `max_connections`.
    pub max_connections_per_address: Option<usize>,
    /// Concurrent TCP connections of visitors, over all public ports.
    pub max_tcp_connections: usize,
    /// Concurrent TCP connections of visitors from one address, or one IPv6 /64, except `trusted_proxies`; `None`: a
    /// quarter of `max_tcp_connections`.
    pub max_tcp_connections_per_address: Option<usize>,
    /// Concurrent TCP connections of visitors to one tunnel; `None`: half of `max_tcp_connections`.
    pub max_tcp_connections_per_tunnel: Option<usize>,
    /// Concurrent UDP flows of one tunnel; a new one evicts the flow that has been silent longest (P-11.2).
    pub max_udp_flows: usize,
    /// Public ports that tunnels may hold.
    pub allow_ports: PortRanges,
    /// Hosts that tunnels may have.
    pub allow_hosts: HostRules,
    /// Concurrent connections of clients without a session (P-1.12).
    pub max_unauthenticated: usize,
    /// Concurrent connections of clients without a session from one address, or one IPv6 /64.
    pub max_unauthenticated_per_address: usize,
    /// Concurrent connections of the clients of one user; `None`: half of the descriptors that visitors must leave free
    /// (P-1.24).
    pub max_client_connections_per_user: Option<usize>,
    /// Concurrent clients of one user; `None`: half of [`Settings::max_clients`].
    ///
    /// [`Settings::max_clients`]: crate::Settings::max_clients
    pub max_clients_per_user: Option<usize>,
    /// Public ports of the tunnels of one user; `None`: a quarter of the descriptors that visitors must leave free.
    pub max_ports_per_user: Option<usize>,
    /// Wrong credentials from one address, or one IPv6 /64, in a minute. Beyond them it is refused without a look at its
    /// credential.
    pub max_denials_per_minute: u32,
    /// Concurrent TLS handshakes of visitors.
    pub max_handshakes: usize,
    /// Concurrent TLS handshakes of visitors from one address, or one IPv6 /64.
    pub max_handshakes_per_address: usize,
    /// Passwords of visitors that are checked at a time (P-15.6).
    pub max_password_checks: usize,
    /// Credentials of visitors that are checked or wait for it; a quarter of them may be of one address.
    pub max_waiting_password_checks: usize,
    /// Addresses of visitors whose rates are counted.
    pub max_rate_addresses: usize,
    /// Bans of visitors' addresses.
    pub max_bans: usize,
    /// Tunnels one client may announce.
    pub max_tunnels_per_client: usize,
    /// Limits of clients, tunnels and users.
    pub traffic: TrafficSettings,
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
    /// Routes of all tunnels together, including tunnels without clients.
    pub max_routes: usize,
    /// Unused names kept for one user; above it those that were used longest ago are released.
    pub max_kept_names_per_user: usize,
    /// Data streams per link.
    pub max_lanes: u32,
    /// Credit of each direction of each request at its start, in bytes (P-4.2).
    pub initial_window_bytes: u32,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// The sum by which the windows of one link may grow, in bytes.
    pub link_budget_bytes: u64,
    /// The sum by which all windows of the process may grow, in bytes.
    pub process_budget_bytes: u64,
    /// Work of one connection or lane before the next one of the same thread, in bytes; each read and each message
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
            max_connections_per_address: None,
            max_tcp_connections: 20_000,
            max_tcp_connections_per_address: None,
            max_tcp_connections_per_tunnel: None,
            max_udp_flows: 4_096,
            allow_ports: PortRanges::default(),
            allow_hosts: HostRules::default(),
            max_unauthenticated: 256,
            max_unauthenticated_per_address: 32,
            max_client_connections_per_user: None,
            max_clients_per_user: None,
            max_ports_per_user: None,
            max_denials_per_minute: 20,
            max_handshakes: 2_048,
            max_handshakes_per_address: 512,
            max_password_checks: 2,
            max_waiting_password_checks: 64,
            max_rate_addresses: 64 * 1024,
            max_bans: 10_000,
            max_tunnels_per_client: 10,
            traffic: TrafficSettings::default(),
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
