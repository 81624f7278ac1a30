//! What the server is told: typed, checked, complete. `adit-config` makes it from files, environment and flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use secrecy::SecretString;

/// Everything a server needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where clients connect (`bind_addr`, `bind_port`). Port 0: any free one.
    pub tunnel_addr: SocketAddr,
    /// Where HTTP visitors connect (`http.bind_port`).
    pub http_addr: SocketAddr,
    /// Where health and status are served; `None` turns them off.
    pub admin_addr: Option<SocketAddr>,
    /// Clients at a time.
    pub max_clients: usize,
    /// Data threads, each a runtime of its own; at least 1.
    pub threads: usize,
    /// Host under which tunnels without a domain appear: `NAME.<domain>` beside `NAME.localhost`.
    pub domain: Option<String>,
    /// How clients prove who they are. Empty: a generated token kept in the state directory.
    pub tokens: Vec<NamedToken>,
    /// Where the generated token and the addresses of the running server are kept.
    pub state_dir: PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Static rules, before those that tunnels bring with them.
    pub rules: Vec<RuleSettings>,
}

/// A token and whose it is.
#[derive(Debug, Clone)]
pub struct NamedToken {
    /// The user it stands for.
    pub user: String,
    /// The secret.
    pub token: SecretString,
}

/// One entry of `server.rules` that leads to a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSettings {
    /// Exact host or `*.example.com`.
    pub host: Option<String>,
    /// Path prefix.
    pub path: Option<String>,
    /// Headers that must have these values.
    pub headers: Vec<(String, String)>,
    /// `pkg.Service` or `pkg.Service/Method`.
    pub grpc: Option<String>,
    /// Name of the tunnel it leads to.
    pub tunnel: String,
}

/// Bounds of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time, over all clients (F12).
    pub max_requests: usize,
    /// Requests at a time on one client (F12).
    pub max_requests_per_client: usize,
    /// Visitors that may wait for a permit; more are answered at once.
    pub max_waiting: usize,
    /// Visitor connections at a time.
    pub max_connections: usize,
    /// Tunnels one client may announce.
    pub max_tunnels_per_client: usize,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 10_000,
            max_requests_per_client: 1_000,
            max_waiting: 1_000,
            max_connections: 20_000,
            max_tunnels_per_client: 10,
            max_lanes: 8,
            initial_window_bytes: 32 * 1024,
            max_window_bytes: 4 << 20,
            link_budget_bytes: 16 << 20,
            process_budget_bytes: 64 << 20,
        }
    }
}

/// Times of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Unknown names wait this long after a start, for clients to return.
    pub startup_grace: Duration,
    /// A visitor waits this long for a client that is (re)connecting.
    pub client_wait: Duration,
    /// A visitor waits this long for a permit.
    pub permit_wait: Duration,
    /// The service's answer must begin within this.
    pub service: Duration,
    /// A visitor who makes no progress for this long is reset.
    pub stall: Duration,
    /// A visitor's request head must be whole within this.
    pub head: Duration,
    /// An idle keep-alive connection of a visitor is closed after this.
    pub idle: Duration,
    /// A session's first data stream must open within this.
    pub setup: Duration,
    /// An old link is probed this long before another instance may take its name (P-1.8).
    pub takeover_probe: Duration,
    /// Probes are sent after this much silence (P-6.5).
    pub heartbeat: Duration,
    /// A link is dead after this much silence with a probe outstanding (P-6.5).
    pub dead_after: Duration,
    /// Running requests may take this long to finish after SIGTERM.
    pub drain: Duration,
    /// A tunnel none of whose clients is connected is forgotten after this.
    pub tunnel_retention: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            startup_grace: Duration::from_secs(10),
            client_wait: Duration::from_secs(5),
            permit_wait: Duration::from_secs(5),
            service: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            setup: Duration::from_secs(10),
            takeover_probe: Duration::from_secs(2),
            heartbeat: Duration::from_secs(3),
            dead_after: Duration::from_secs(10),
            drain: Duration::from_secs(30),
            tunnel_retention: Duration::from_secs(600),
        }
    }
}
