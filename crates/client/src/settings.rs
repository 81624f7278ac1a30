//! What the client is told: typed, checked, complete. `adit-config` makes it from files, environment and flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use adit_balance::Policy;
use secrecy::SecretString;

/// Everything a client needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name the client reports.
    pub client_id: String,
    /// Whether the user chose it. A default that is in use on this machine gives way to the next free one.
    pub client_id_chosen: bool,
    /// The group it serves in.
    pub group_id: String,
    /// Host name or address of the server.
    pub server_host: String,
    /// Port of the server for clients.
    pub server_port: u16,
    /// The credential.
    pub token: SecretString,
    /// When to dial again.
    pub reconnect: adit_reconnect::Config,
    /// Data streams, each on a connection of its own; 1 is right on most paths.
    pub lanes: u32,
    /// Where the instance secret and the status address are kept.
    pub state_dir: PathBuf,
    /// Where status is served, on loopback; `None` turns it off.
    pub admin_addr: Option<SocketAddr>,
    /// What the client serves.
    pub tunnels: Vec<TunnelSettings>,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
}

/// One tunnel: a public entry and the service it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Its name, unique in the group.
    pub name: String,
    /// How the service is reached.
    pub service: ServiceSettings,
    /// Host names; empty: `NAME.localhost` and `NAME.<server domain>`.
    pub domains: Vec<String>,
    /// Path prefixes; empty: all.
    pub locations: Vec<String>,
    /// How visitors are shared among the clients of the group.
    pub load_balance: Policy,
    /// What `consistent_hash` hashes: `host`, `header:NAME`, `cookie:NAME`.
    pub hash_on: String,
    /// Of this client within its group.
    pub weight: u32,
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Host name or address (`local_addr`, `127.0.0.1`).
    pub host: String,
    /// Port (`local_port`).
    pub port: u16,
    /// What it speaks.
    pub protocol: ServiceProtocol,
    /// Replaces the visitor's `Host` (`host_rewrite`).
    pub host_rewrite: Option<String>,
    /// Headers added to each request (`custom_headers`), replacing those of the same name.
    pub custom_headers: Vec<(String, String)>,
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 in clear text, with prior knowledge.
    H2c,
}

/// Bounds of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time that the server may open here.
    pub max_requests: usize,
    /// Connections at a time to one service.
    pub max_service_connections: usize,
    /// Idle connections kept to one service.
    pub max_idle_connections: usize,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// What windows may grow by in all, in bytes.
    pub budget_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 10_000,
            max_service_connections: 4_096,
            max_idle_connections: 512,
            max_window_bytes: 4 << 20,
            budget_bytes: 32 << 20,
        }
    }
}

/// Times of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting to the server, registration included.
    pub connect: Duration,
    /// Connecting to a service.
    pub dial: Duration,
    /// The service's answer must begin within this.
    pub service: Duration,
    /// An idle connection to a service is closed after this.
    pub idle: Duration,
    /// A service that reads nothing for this long is given up.
    pub stall: Duration,
    /// Running requests may take this long to finish after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            dial: Duration::from_secs(5),
            service: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            drain: Duration::from_secs(30),
        }
    }
}
