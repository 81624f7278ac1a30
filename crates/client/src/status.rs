//! The state of a client, for `adit status` and for tests that look for leaks.

use std::collections::BTreeMap;

use serde::Serialize;

/// The state of a client at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// The client id.
    pub client_id: String,
    /// The group id.
    pub group_id: String,
    /// Host and port of the server.
    pub server: String,
    /// `connected`, `connecting`, `waiting`, `draining`, `stopped` or `idle`.
    pub connection: &'static str,
    /// Epoch of the session, 0 without one.
    pub epoch: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// Data streams that are open.
    pub lanes: usize,
    /// Data and control streams that were lost and opened again under their session.
    pub streams_reopened: u64,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// Tunnels, by the last results of the server.
    pub tunnels: Vec<TunnelStatus>,
    /// Client entries.
    pub entries: Vec<EntryStatus>,
    /// Requests open now.
    pub requests: usize,
    /// Requests that this client opened on the link, for visitors of its entries.
    pub opened: u64,
    /// Requests that the server opened on the link.
    pub accepted: u64,
    /// Bytes received that wait for services.
    pub waiting_bytes: u64,
    /// Memory of received frames that is still referenced.
    pub pinned_bytes: usize,
    /// Bytes that wait to be sent to the server.
    pub queued_bytes: u64,
    /// Entries in all request tables.
    pub pending: usize,
    /// Tasks alive on the data thread.
    pub tasks: usize,
    /// Connections to services open now.
    pub service_connections: usize,
    /// Datagrams that were dropped in both directions because the link or a service's socket was full.
    pub datagrams_dropped: u64,
    /// Counters of the cores.
    pub cores: CoreCounters,
}

/// The configuration of a client and its changes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigStatus {
    /// The revision in force: 1 at the start, one more for each change that was applied.
    pub revision: u64,
    /// Changes applied since the start.
    pub applied: u64,
    /// Changes rejected since the start, and the error of the newest change when it was rejected. The program that
    /// loads the configuration sets both.
    pub rejected: u64,
    /// The error of the newest change when it was rejected (see `rejected`).
    pub last_error: Option<String>,
    /// Keys of the newest configuration that take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

/// The state of a client entry.
#[derive(Debug, Clone, Serialize)]
pub struct EntryStatus {
    /// The name of the entry.
    pub name: String,
    /// `http` or `tcp`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The address on which the entry listens.
    pub listen: String,
    /// The upstream that the entry leads to.
    pub upstream: String,
    /// Why the upstream cannot be used, by the server's list of upstreams.
    pub error: Option<String>,
    /// Visitor connections open now.
    pub connections_open: usize,
    /// Requests open now.
    pub requests_open: usize,
    /// Requests so far.
    pub requests: u64,
    /// Failures so far, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

/// The state of a tunnel, and of the service behind it.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelStatus {
    /// The server's result.
    #[serde(flatten)]
    pub outcome: TunnelOutcome,
    /// Host and port of the service.
    pub target: String,
    /// Requests received so far.
    pub requests: u64,
}

/// The server's result for one announced tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TunnelOutcome {
    /// The name of the tunnel.
    pub name: String,
    /// The URL at which visitors reach the tunnel; empty when it was refused.
    pub public_url: String,
    /// Why the tunnel was refused.
    pub error: Option<String>,
    /// Whether the tunnel was refused and is announced again.
    pub waiting: bool,
    /// What an accepted tunnel has requested and does not get.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Counters of the cores, since the session began; `reconnect_dials` since the client started.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CoreCounters {
    /// `codec`: messages written and read.
    pub codec_messages: u64,
    /// `mux`: batches written.
    pub mux_batches: u64,
    /// `flow`: windows granted.
    pub flow_windows: u64,
    /// `pending`: requests settled.
    pub pending_settled: u64,
    /// `reconnect`: dials.
    pub reconnect_dials: u64,
}
