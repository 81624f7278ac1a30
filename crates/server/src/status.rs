//! What a server says about itself, for the admin page, `adit status` and the tests that look for leaks.

use serde::Serialize;

/// The state of a server at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Milliseconds since the start.
    pub uptime_millis: u64,
    /// Where clients connect.
    pub tunnel_addr: String,
    /// Where visitors connect.
    pub http_addr: String,
    /// `running` or `draining`.
    pub phase: &'static str,
    /// Connected clients.
    pub clients: Vec<ClientStatus>,
    /// Tunnels known.
    pub tunnels: Vec<TunnelStatus>,
    /// Visitors.
    pub visitors: VisitorStatus,
    /// What the process holds.
    pub process: ProcessStatus,
    /// Counters of each core: a core that nothing passes through stands out.
    pub cores: CoreCounters,
}

/// One connected client.
#[derive(Debug, Clone, Serialize)]
pub struct ClientStatus {
    /// The name it reported.
    pub client_id: String,
    /// Its group.
    pub group_id: String,
    /// Whose credential it showed.
    pub user: String,
    /// Epoch of its registration.
    pub epoch: u64,
    /// Open data streams.
    pub lanes: usize,
    /// Its control stream is open.
    pub control: bool,
    /// It said that it is leaving.
    pub draining: bool,
    /// Requests open on it.
    pub requests: usize,
    /// Bytes received from it that wait for visitors.
    pub waiting_bytes: u64,
    /// Memory of received frames that something still points into.
    pub pinned_bytes: usize,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: u64,
    /// Requests sent to it so far.
    pub opened: u64,
    /// Messages sent per write so far; the more the cheaper the hop.
    pub messages_per_batch: f64,
}

/// One tunnel.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelStatus {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group_id: String,
    /// Where visitors reach it.
    pub public_url: String,
    /// How visitors are shared among its clients.
    pub load_balance: &'static str,
    /// Clients that serve it now.
    pub clients: Vec<String>,
}

/// Visitors' side.
#[derive(Debug, Clone, Serialize)]
pub struct VisitorStatus {
    /// Connections open now.
    pub connections_open: usize,
    /// Connections so far.
    pub connections: u64,
    /// Requests open now.
    pub requests_open: usize,
    /// Requests so far.
    pub requests: u64,
    /// Tries on another client.
    pub retries: u64,
    /// Failures so far, by reason.
    pub failures: std::collections::BTreeMap<&'static str, u64>,
}

/// What the process holds.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// Tasks alive on the data threads.
    pub tasks: usize,
    /// Sessions known.
    pub sessions: usize,
    /// Channels known.
    pub channels: usize,
    /// Entries in all request tables.
    pub pending: usize,
    /// Permits in use, over all clients.
    pub permits_in_use: usize,
    /// Bytes that windows have grown by.
    pub budget_used_bytes: u64,
}

/// One counter of each core that the server is composed of.
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
    /// `balance`: choices made.
    pub balance_choices: u64,
    /// `router`: revision of the routes.
    pub router_revision: u64,
    /// `auth`: registrations accepted.
    pub auth_accepted: u64,
}

/// Which rule takes a URL.
#[derive(Debug, Clone, Serialize)]
pub struct RouteStatus {
    /// What was asked.
    pub url: String,
    /// Revision of the routes that were asked.
    pub revision: u64,
    /// Where it leads; nowhere if no rule takes it.
    pub tunnel: Option<String>,
    /// The rules in order, and why each one did or did not take it.
    pub explanation: String,
}
