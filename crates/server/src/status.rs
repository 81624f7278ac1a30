//! The state of a server, for the admin page, `adit status` and the tests that look for leaks.

use std::collections::BTreeMap;

use adit_ingress::{SessionStats, UdpStats, layers::Ban};
use adit_link::compress::CompressionStats;
use serde::Serialize;

use crate::traffic::TrafficStatus;

/// The state of a server at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Version of the program.
    pub version: &'static str,
    /// Milliseconds since the start.
    pub uptime_millis: u64,
    /// Address for clients.
    pub tunnel_addr: String,
    /// TLS of the clients' port.
    pub tls: TlsStatus,
    /// Address for visitors.
    pub http_addr: String,
    /// The port for HTTPS visitors; `null` if it is off.
    pub https: Option<HttpsStatus>,
    /// `running` or `draining`.
    pub phase: &'static str,
    /// The configuration in force.
    pub config: ConfigStatus,
    /// Connected clients.
    pub clients: Vec<ClientStatus>,
    /// Tunnels known.
    pub tunnels: Vec<TunnelStatus>,
    /// The upstreams of clients' entries and of rules.
    pub upstreams: Vec<UpstreamStatus>,
    /// Visitors.
    pub visitors: VisitorStatus,
    /// TCP connections of visitors, over all public ports.
    pub tcp: TcpStatus,
    /// UDP flows of visitors, over all public ports.
    pub udp: UdpStatus,
    /// Visitors that layers did not admit.
    pub access: AccessStatus,
    /// Limits of clients, tunnels and users, and their use.
    pub traffic: TrafficStatus,
    /// Refused clients.
    pub refusals: RefusalStatus,
    /// Resources that the process holds.
    pub process: ProcessStatus,
    /// One counter of each core, which shows whether the core is used.
    pub cores: CoreCounters,
}

/// TLS of the clients' port.
#[derive(Debug, Clone, Serialize)]
pub struct TlsStatus {
    /// `off`, `own_ca` or `certificate`.
    pub mode: &'static str,
    /// SHA-256 fingerprint of the newest certificate of the server's own CA.
    pub ca_fingerprint: Option<String>,
    /// Seconds since 1970 at which the newest certificate of the server's own CA expires.
    pub ca_expires: Option<u64>,
    /// Seconds since 1970 at which the certificate of the server's own CA expires.
    pub certificate_expires: Option<u64>,
}

/// The port for HTTPS visitors.
#[derive(Debug, Clone, Serialize)]
pub struct HttpsStatus {
    /// Address for visitors.
    pub addr: String,
    /// The certificates that visitors are shown.
    pub certificates: Vec<CertificateStatus>,
    /// The names for which certificates are obtained from a CA.
    pub acme: Vec<IssuedStatus>,
    /// The orders at the CA since the start; absent without ACME.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acme_orders: Option<IssuanceStatus>,
    /// Handshakes that are running.
    pub handshakes: usize,
    /// Connections that ended in their handshakes, except those that the visitor closed.
    pub handshakes_failed: u64,
}

/// The orders at a CA that have ended since the start, by their outcome.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct IssuanceStatus {
    /// A certificate was issued.
    pub issued: u64,
    /// The staging CA would have issued one.
    pub staging_passed: u64,
    /// The CA could not validate the name.
    pub validation: u64,
    /// The CA refused the order.
    pub refused: u64,
    /// The CA did not respond, or had an error.
    pub unreachable: u64,
    /// The CA refused the order for its rate.
    pub rate_limited: u64,
    /// This machine failed: a program, a name server or the disk.
    pub local: u64,
    /// Names that are left out now, because there are too many (`server.https.acme.max_names`).
    pub names_left_out: u64,
}

/// A name for which a certificate is obtained from a CA.
#[derive(Debug, Clone, Serialize)]
pub struct IssuedStatus {
    /// The name.
    pub name: String,
    /// `pending`, `valid`, `expired` or `unsupported`.
    pub state: &'static str,
    /// Seconds since 1970 at which its certificate expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Seconds since 1970 at which the next order begins; in the past if it waits for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order: Option<u64>,
    /// How the last order failed, and what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A certificate for visitors.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateStatus {
    /// The host names in it.
    pub names: Vec<String>,
    /// Seconds since 1970 at which it expires.
    pub expires: u64,
}

/// The configuration of a server, and its changes.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConfigStatus {
    /// The revision in force.
    pub revision: u64,
    /// Changes applied since the start.
    pub applied: u64,
    /// Changes rejected since the start: invalid ones, and those that contradict names that clients hold.
    pub rejected: u64,
    /// Why the newest change was rejected; `null` when it was applied.
    pub last_error: Option<String>,
    /// Settings of the newest configuration that take effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

/// The state of a connected client.
#[derive(Debug, Clone, Serialize)]
pub struct ClientStatus {
    /// The client id that the client reported.
    pub client_id: String,
    /// The group of the client.
    pub group_id: String,
    /// The user of the client's credential.
    pub user: String,
    /// The epoch of the client's registration.
    pub epoch: u64,
    /// Open data streams.
    pub lanes: usize,
    /// Whether the control stream is open.
    pub control: bool,
    /// Whether the client drains.
    pub draining: bool,
    /// Open requests of the client's link.
    pub requests: usize,
    /// Bytes received from the client that wait for visitors.
    pub waiting_bytes: u64,
    /// Memory of received frames that is still referenced.
    pub pinned_bytes: usize,
    /// Bytes that wait to be sent to the client.
    pub queued_bytes: u64,
    /// Requests that the server has opened on the client's link so far, for visitors.
    pub opened: u64,
    /// Requests that the client has opened so far, for its entries.
    pub accepted: u64,
    /// Messages sent per write so far; more messages make the hop cheaper.
    pub messages_per_batch: f64,
    /// The effect of compression on the hop to the client.
    pub compression: CompressionStatus,
}

/// Effect of compression on the hop of one client so far, in both directions together.
#[derive(Debug, Clone, Serialize)]
pub struct CompressionStatus {
    /// Messages that crossed compressed.
    pub messages: u64,
    /// Bytes of their payload before compression.
    pub plain_bytes: u64,
    /// Bytes of their payload on the hop.
    pub packed_bytes: u64,
    /// Processor time of this side.
    pub cpu_micros: u64,
}

impl From<CompressionStats> for CompressionStatus {
    fn from(stats: CompressionStats) -> Self {
        let cpu = stats.compressing + stats.inflating;
        Self {
            messages: stats.sent_messages + stats.received_messages,
            plain_bytes: stats.sent_plain_bytes + stats.received_plain_bytes,
            packed_bytes: stats.sent_packed_bytes + stats.received_packed_bytes,
            cpu_micros: u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

/// The state of a tunnel.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelStatus {
    /// The name of the tunnel.
    pub name: String,
    /// The group of the tunnel.
    pub group_id: String,
    /// The protocol of the visitors: `http`, `grpc`, `websocket`, `tcp`, `udp` or `tls`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The public port; `None` if the tunnel is selected by host.
    pub port: Option<u16>,
    /// Compression of payload between server and clients.
    pub compression: &'static str,
    /// The public URL.
    pub public_url: String,
    /// The policy that chooses among the clients.
    pub load_balance: &'static str,
    /// Requests for which a client was chosen so far.
    pub requests: u64,
    /// The clients that serve the tunnel.
    pub clients: Vec<String>,
    /// Whether the last client has drained: the tunnel has no client, but this is not an incident.
    pub has_been_left: bool,
}

/// The state of an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamStatus {
    /// The name of the upstream.
    pub name: String,
    /// The policy by which the servers share the load.
    pub policy: &'static str,
    /// The protocol of the servers.
    pub protocol: &'static str,
    /// Requests sent to the upstream so far.
    pub requests: u64,
    /// The servers of the upstream.
    pub servers: Vec<UpstreamServerStatus>,
}

/// The state of a server of an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct UpstreamServerStatus {
    /// Host and port.
    pub address: String,
    /// The share of this server relative to the others.
    pub weight: u32,
    /// Open requests of this server.
    pub requests_open: usize,
}

/// Visitors' side.
#[derive(Debug, Clone, Serialize)]
pub struct VisitorStatus {
    /// Connections open now.
    pub connections_open: usize,
    /// Connections so far.
    pub connections: u64,
    /// Connections closed at once because too many were open.
    pub connections_refused: u64,
    /// Requests open now.
    pub requests_open: usize,
    /// Calls of gRPC among them.
    pub grpc_open: usize,
    /// WebSockets among them.
    pub websockets_open: usize,
    /// Requests so far.
    pub requests: u64,
    /// Attempts on other clients.
    pub retries: u64,
    /// Failures so far, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

/// TCP connections of visitors.
#[derive(Debug, Clone, Serialize)]
pub struct TcpStatus {
    /// Connections open now.
    pub open: usize,
    /// Connections so far.
    pub total: u64,
    /// Connections reset at once because too many were open.
    pub refused: u64,
    /// Attempts on other clients.
    pub retries: u64,
    /// Bytes from visitors.
    pub received_bytes: u64,
    /// Bytes to visitors.
    pub sent_bytes: u64,
    /// Failures so far, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

impl From<SessionStats> for TcpStatus {
    fn from(stats: SessionStats) -> Self {
        Self {
            open: stats.open,
            total: stats.total,
            refused: stats.refused,
            retries: stats.retries,
            received_bytes: stats.received_bytes,
            sent_bytes: stats.sent_bytes,
            failures: stats.failures.by_name(),
        }
    }
}

/// Visitors that access layers did not admit: requests, connections and flows, by kind of layer.
#[derive(Debug, Clone, Serialize)]
pub struct AccessStatus {
    /// Those that were denied.
    pub denied: BTreeMap<&'static str, u64>,
    /// Those that a layer with `enforce: false` would have denied.
    pub would_deny: BTreeMap<&'static str, u64>,
    /// Passwords that were checked, without those whose answer was kept.
    pub password_checks: u64,
    /// The bans in force.
    pub bans: Vec<BanStatus>,
}

/// A banned address.
#[derive(Debug, Clone, Serialize)]
pub struct BanStatus {
    /// The address or the /64.
    pub network: String,
    /// The list with the layer that has banned it: `server`, `tunnel GROUP/NAME`, `rule N`.
    pub place: String,
    /// Seconds until the ban ends.
    pub seconds_left: u64,
}

impl From<Ban> for BanStatus {
    fn from(ban: Ban) -> Self {
        Self {
            network: ban.network.to_string(),
            place: ban.place,
            seconds_left: ban.left.as_secs(),
        }
    }
}

/// UDP flows of visitors.
#[derive(Debug, Clone, Serialize)]
pub struct UdpStatus {
    /// Flows open now.
    pub open: usize,
    /// Flows so far.
    pub total: u64,
    /// Flows evicted for new ones.
    pub evicted: u64,
    /// Flows that ended because both sides were silent.
    pub silent: u64,
    /// Datagrams from visitors.
    pub datagrams_in: u64,
    /// Datagrams to visitors.
    pub datagrams_out: u64,
    /// Datagrams from visitors that were dropped at their port.
    pub dropped_in: u64,
    /// Datagrams to visitors that the system did not accept.
    pub dropped_out: u64,
    /// Datagrams dropped by the current links, in both directions.
    pub dropped_on_links: u64,
    /// Failures so far, by reason.
    pub failures: BTreeMap<&'static str, u64>,
}

impl UdpStatus {
    pub(crate) fn new(stats: &UdpStats, dropped_on_links: u64) -> Self {
        Self {
            open: stats.flows_open,
            total: stats.flows,
            evicted: stats.flows_evicted,
            silent: stats.flows_silent,
            datagrams_in: stats.datagrams_in,
            datagrams_out: stats.datagrams_out,
            dropped_in: stats.dropped.from_visitors(),
            dropped_out: stats.dropped.to_visitors(),
            dropped_on_links,
            failures: stats.failures.by_name(),
        }
    }
}

/// Resources that the process holds.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessStatus {
    /// Tasks alive on the data threads.
    pub tasks: usize,
    /// Sessions known.
    pub sessions: usize,
    /// Channels known.
    pub channels: usize,
    /// Connections of clients that do not carry a session yet.
    pub unauthenticated: usize,
    /// Connections of clients that count for a user (P-1.24).
    pub client_connections: usize,
    /// Entries in all request tables.
    pub pending: usize,
    /// Public ports of tunnels that are bound.
    pub public_ports: usize,
    /// Permits in use, over all clients.
    pub permits_in_use: usize,
    /// Connections to servers of upstreams open now.
    pub upstream_connections: usize,
    /// Bytes by which windows have grown.
    pub budget_used_bytes: u64,
}

/// Refused clients and connections of clients so far.
#[derive(Debug, Clone, Serialize)]
pub struct RefusalStatus {
    /// Registrations with an invalid credential.
    pub denied: u64,
    /// Connections that were closed before they carried a session.
    pub unregistered: u64,
    /// Data streams that were closed because their client violated the protocol.
    pub broken_streams: u64,
    /// Connections that could not be accepted, usually because file descriptors were exhausted.
    pub accept_failed: u64,
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

/// The rule that a URL matches.
#[derive(Debug, Clone, Serialize)]
pub struct RouteStatus {
    /// The URL.
    pub url: String,
    /// Revision of the routes.
    pub revision: u64,
    /// The selected tunnel, if there is one.
    pub tunnel: Option<String>,
    /// The selected upstream, if there is one.
    pub upstream: Option<String>,
    /// The rules in order, and why each one did or did not match.
    pub explanation: String,
}
