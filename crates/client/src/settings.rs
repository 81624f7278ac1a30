//! What the client is told: typed, checked, complete. `adit-config` makes it from files, environment and flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use adit_auth::TunnelName;
use adit_balance::Policy;
pub use adit_egress::{ProxyProtocol, Roots, Tls, TlsName, Trust};
pub use adit_ingress::TrustedProxies;
pub use adit_link::Compression;
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
    /// Listeners of the client, and what of the server they lead to.
    pub entries: Vec<EntrySettings>,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
}

impl Settings {
    /// Host and port of the server, as they stand in URLs.
    pub fn server_addr(&self) -> String {
        let (host, port) = (&self.server_host, self.server_port);
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

#[cfg(test)]
impl Settings {
    /// Of a client without tunnels, for unit tests.
    pub(crate) fn example() -> Self {
        Self {
            client_id: "office".into(),
            client_id_chosen: true,
            group_id: "office".into(),
            server_host: "a.example".into(),
            server_port: 7000,
            token: "a-token".into(),
            reconnect: adit_reconnect::Config::default(),
            lanes: 1,
            state_dir: PathBuf::new(),
            admin_addr: None,
            tunnels: Vec::new(),
            entries: Vec::new(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        }
    }
}

/// One tunnel: a public entry and the service it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// Its name, unique in the group.
    pub name: String,
    /// What its visitors speak.
    pub kind: TunnelKind,
    /// How the service is reached.
    pub service: ServiceSettings,
    /// Public port of the server. 0: the server picks one for TCP and UDP; the others are reached by host.
    pub remote_port: u16,
    /// Host names; empty, and without a public port: `NAME.localhost` and `NAME.<server domain>`.
    pub domains: Vec<String>,
    /// Path prefixes; empty: all.
    pub locations: Vec<String>,
    /// How visitors are shared among the clients of the group.
    pub load_balance: Policy,
    /// What `consistent_hash` hashes: `host`, `header:NAME`, `cookie:NAME`.
    pub hash_on: String,
    /// Of this client within its group.
    pub weight: u32,
    /// On the way between client and server.
    pub compression: Option<Compression>,
}

impl TunnelSettings {
    /// A tunnel to the service at this address, with nothing else said.
    pub fn new(
        name: impl Into<String>,
        kind: TunnelKind,
        host: impl Into<String>,
        port: u16,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            service: ServiceSettings {
                host: host.into(),
                port,
                protocol: kind.service_protocol(),
                tls: None,
                host_rewrite: None,
                custom_headers: Vec::new(),
                proxy_protocol: None,
                session_timeout: ServiceSettings::SESSION_TIMEOUT,
            },
            remote_port: 0,
            domains: Vec::new(),
            locations: Vec::new(),
            load_balance: Policy::default(),
            hash_on: "host".to_owned(),
            weight: 1,
            compression: None,
        }
    }
}

/// What the visitors of a tunnel speak (`type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelKind {
    /// HTTP, and what rides on it: found by host and path.
    #[default]
    Http,
    /// gRPC: found as HTTP is; the service speaks HTTP/2.
    Grpc,
    /// WebSocket: found as HTTP is; the service speaks HTTP/1.1.
    WebSocket,
    /// Bytes, on a public port.
    Tcp,
    /// Datagrams, on a public port.
    Udp,
}

impl TunnelKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Http,
        Self::Grpc,
        Self::WebSocket,
        Self::Tcp,
        Self::Udp,
    ];

    /// Its name in settings; the server's capability of carrying it is called the same (P-1.2).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether its visitors are told apart by host and path.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc | Self::WebSocket)
    }

    /// What its service speaks unless it is said.
    pub const fn service_protocol(self) -> ServiceProtocol {
        match self {
            Self::Http | Self::WebSocket => ServiceProtocol::Http1,
            Self::Grpc => ServiceProtocol::Http2,
            Self::Tcp => ServiceProtocol::Tcp,
            Self::Udp => ServiceProtocol::Udp,
        }
    }
}

/// One client entry: a listener on this side that leads to an upstream of the server (F08).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySettings {
    /// Its name, for status and errors.
    pub name: String,
    /// What its visitors speak.
    pub kind: EntryKind,
    /// Where it listens. Port 0: any free one.
    pub listen: SocketAddr,
    /// The upstream as the server calls it.
    pub upstream: TunnelName,
    /// Of what its visitors send; of answers the upstream's own says it.
    pub compression: Option<Compression>,
    /// Proxies in front of it whose `X-Forwarded-*` and `Forwarded` are believed (P-3.4).
    pub trusted_proxies: TrustedProxies,
}

/// What the visitors of an entry speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryKind {
    /// HTTP, and what rides on it.
    #[default]
    Http,
    /// Bytes.
    Tcp,
}

impl EntryKind {
    /// Its name in settings and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
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
    /// How it is reached over TLS, for HTTP/2 only (`local_tls`); `None` is clear text.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host` (`host_rewrite`).
    pub host_rewrite: Option<String>,
    /// Headers added to each request (`custom_headers`), replacing those of the same name.
    pub custom_headers: Vec<(String, String)>,
    /// Tells a TCP service who the visitor is (P-10.5).
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A UDP flow ends after this long without a datagram in either direction (P-11.4).
    pub session_timeout: Duration,
}

impl ServiceSettings {
    /// How long a UDP flow may be silent unless it is said: longer than any answer of a service is on its way, shorter
    /// than what the address translators between them remember as a rule.
    pub const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
}

/// What a service speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServiceProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: in clear text with prior knowledge, or over TLS.
    Http2,
    /// Bytes.
    Tcp,
    /// Datagrams.
    Udp,
}

/// Bounds of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time that the server may open here, and as many that entries may open there.
    pub max_requests: usize,
    /// Visitors of entries that may wait for a permit; more are answered at once.
    pub max_waiting: usize,
    /// Of all permits of entries, in percent, one entry may take while others wait; 100: all.
    pub tunnel_share_percent: u8,
    /// The same of one visitor's address (IPv6: a /64), over all entries.
    pub visitor_share_percent: u8,
    /// A visitor of an entry that owes a body, or takes an answer, more slowly than this over `stall` is reset; 0: no lowest
    /// rate.
    pub min_rate_bytes_per_sec: u64,
    /// Visitor connections at a time of one entry.
    pub max_entry_connections: usize,
    /// Connections at a time to one service.
    pub max_service_connections: usize,
    /// Idle connections kept to one service.
    pub max_idle_connections: usize,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// What windows may grow by in all, in bytes.
    pub budget_bytes: u64,
    /// Work of one connection or lane before the others of its thread have their turn, in bytes; each read and each message
    /// counts as 256 bytes more.
    pub turn_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 10_000,
            max_waiting: 1_000,
            tunnel_share_percent: 80,
            visitor_share_percent: 60,
            min_rate_bytes_per_sec: 64,
            max_entry_connections: 4_096,
            max_service_connections: 4_096,
            max_idle_connections: 512,
            max_window_bytes: 4 << 20,
            budget_bytes: 32 << 20,
            turn_bytes: adit_link::turn::TURN_BYTES,
        }
    }
}

/// Times of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// Connecting to the server, registration included.
    pub connect: Duration,
    /// A visitor of an entry waits this long for a link that is being (re)connected.
    pub link_wait: Duration,
    /// A visitor of an entry waits this long for a permit.
    pub permit_wait: Duration,
    /// Connecting to a service.
    pub dial: Duration,
    /// The service's answer must begin within this.
    pub service: Duration,
    /// The head of a request to an entry must be whole within this.
    pub head: Duration,
    /// An idle connection, to a service or of an entry's visitor, is closed after this.
    pub idle: Duration,
    /// A service that reads nothing for this long is given up, and so is an entry's visitor without progress.
    pub stall: Duration,
    /// While requests of entries wait for permits: a TCP connection over which no byte has gone, or a body slower than the
    /// lowest rate, for this long is reset.
    pub shortage_grace: Duration,
    /// A TCP service, or a visitor of a TCP entry, for whom something waits and who takes nothing for this long is reset.
    pub session_stall: Duration,
    /// A connection to a TCP entry that the upstream has not accepted after this is reset.
    pub session_setup: Duration,
    /// A TCP service, or a visitor of a TCP entry, that has been silent for this long is asked whether it is there; zero
    /// never asks.
    pub session_keepalive: Duration,
    /// The end of a WebSocket, or of a UDP flow, once it has begun, is not waited for longer than this.
    pub session_close: Duration,
    /// A service that has answered may go on reading the request; one that reads nothing for this long will not.
    pub early_answer: Duration,
    /// A body that waits for `100 Continue` is read after this much silence of the service (P-3.5).
    pub continue_wait: Duration,
    /// A visitor of HTTP/1 that has shut its sending side gets its answer if it comes within this, from when the request
    /// is whole.
    pub half_close: Duration,
    /// A visitor of HTTP/2 that does not let go of answers that have failed is told to end after this, and ended after
    /// this again.
    pub release: Duration,
    /// Running requests may take this long to finish after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            link_wait: Duration::from_secs(5),
            permit_wait: Duration::from_secs(5),
            dial: Duration::from_secs(5),
            service: Duration::from_secs(60),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            shortage_grace: Duration::from_secs(3),
            session_stall: Duration::from_secs(3_600),
            session_setup: Duration::from_secs(15),
            session_keepalive: Duration::from_secs(60),
            session_close: Duration::from_secs(5),
            early_answer: Duration::from_secs(1),
            continue_wait: Duration::from_secs(1),
            half_close: Duration::from_secs(5),
            release: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}
