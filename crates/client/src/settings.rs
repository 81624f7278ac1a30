//! The settings of a client: typed, checked, complete. `adit-config` makes them from files, environment and flags.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use adit_auth::TunnelName;
use adit_balance::Policy;
pub use adit_egress::{Protocol as ServiceProtocol, ProxyProtocol, Tls};
pub use adit_ingress::{EdgeTimeouts, TrustedProxies, layers};
use adit_ingress::{SESSION_TIMEOUT, layers::LayerConfig};
pub use adit_link::{
    Compression,
    grpc::{Proxy, ProxyUrlError},
};
pub use adit_net::HostPort;
pub use adit_tls::{ClientTls, Roots, TlsName, Trust};
use secrecy::SecretString;

/// All values that a client needs to start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the client.
    pub client_id: String,
    /// Whether the user chose the name. If a default name is in use on this machine, the next free one is used.
    pub client_id_chosen: bool,
    /// The group of the client.
    pub group_id: String,
    /// Host name or address of the server.
    pub server_host: String,
    /// Port of the server for clients.
    pub server_port: u16,
    /// The proxy on the way to the server; `None`: directly.
    pub proxy: Option<Proxy>,
    /// TLS on the connections to the server; `None` is clear text.
    pub tls: Option<ClientTls>,
    /// The token or key; `None`: the certificate of `tls` is the credential.
    pub token: Option<SecretString>,
    /// The file of the server that the client has joined, if it is this one. The client keeps its certificate in it.
    pub joined: Option<PathBuf>,
    /// Delays before the next try to connect, and to open a lost stream again.
    pub reconnect: adit_reconnect::Config,
    /// Data streams, each on a connection of its own; 1 is right on most paths.
    pub lanes: u32,
    /// Directory of the instance secret and the status address.
    pub state_dir: PathBuf,
    /// Address of the admin port, on loopback; `None` turns it off.
    pub admin_addr: Option<SocketAddr>,
    /// The tunnels.
    pub tunnels: Vec<TunnelSettings>,
    /// Listeners of the client, each for an upstream of the server.
    pub entries: Vec<EntrySettings>,
    /// Bounds.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
}

impl Settings {
    /// Host and port of the server, as in URLs.
    pub fn server_addr(&self) -> String {
        HostPort::new(&self.server_host, self.server_port).to_string()
    }
}

#[cfg(test)]
impl Settings {
    /// The settings of a client without tunnels, for unit tests.
    pub(crate) fn example() -> Self {
        Self {
            client_id: "office".into(),
            client_id_chosen: true,
            group_id: "office".into(),
            server_host: "a.example".into(),
            server_port: 7000,
            proxy: None,
            tls: None,
            token: Some("a-token".into()),
            joined: None,
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

/// A tunnel: a public entry and its service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// The name of the tunnel, unique in the group.
    pub name: String,
    /// The protocol of the visitors.
    pub kind: TunnelKind,
    /// How the service is reached.
    pub service: ServiceSettings,
    /// Public port of the server. 0: the server picks one for TCP and UDP; tunnels of the other types are reached by
    /// host.
    pub remote_port: u16,
    /// Host names; empty, and without a public port: `NAME.localhost` and `NAME.<server domain>`.
    pub domains: Vec<String>,
    /// Path prefixes; empty: all.
    pub locations: Vec<String>,
    /// Policy that chooses among the clients of the group.
    pub load_balance: Policy,
    /// What `consistent_hash` hashes: `host`, `header:NAME`, `cookie:NAME`.
    pub hash_on: String,
    /// The weight of this client within its group.
    pub weight: u32,
    /// Compression between client and server.
    pub compression: Option<Compression>,
    /// The layers that requests pass at the server after routing, in this order (P-1.16).
    pub layers: Vec<LayerConfig>,
    /// Requests over HTTP are redirected to HTTPS (P-14.6).
    pub redirect_https: bool,
    /// `Strict-Transport-Security` in responses over HTTPS (P-14.7).
    pub hsts: Option<Hsts>,
    /// The TLS of visitors ends at the public port of a TCP tunnel (P-14.9).
    pub terminates_tls: bool,
    /// The server obtains certificates for the hosts (P-14.10).
    pub obtains_certificates: bool,
}

/// How long browsers use HTTPS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hsts {
    /// From the last response, in whole seconds. Zero ends it.
    pub max_age: Duration,
    /// Whether it is for the hosts below as well.
    pub include_subdomains: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(365 * 24 * 60 * 60),
            include_subdomains: false,
        }
    }
}

impl TunnelSettings {
    /// A tunnel to the service at this address, with defaults.
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
                session_timeout: SESSION_TIMEOUT,
            },
            remote_port: 0,
            domains: Vec::new(),
            locations: Vec::new(),
            load_balance: Policy::default(),
            hash_on: "host".to_owned(),
            weight: 1,
            compression: None,
            layers: Vec::new(),
            redirect_https: false,
            hsts: None,
            terminates_tls: false,
            obtains_certificates: false,
        }
    }
}

/// The protocol of a tunnel's visitors (`type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TunnelKind {
    /// HTTP, gRPC and WebSocket: routed by host and path.
    #[default]
    Http,
    /// gRPC: routed as HTTP; the service is reached over HTTP/2.
    Grpc,
    /// WebSocket: routed as HTTP; the service is reached over HTTP/1.1.
    WebSocket,
    /// TCP bytes, on a public port.
    Tcp,
    /// UDP datagrams, on a public port.
    Udp,
    /// TLS that is passed through to the service: routed by the host that the visitor asks for.
    Tls,
}

impl TunnelKind {
    /// All kinds.
    pub const ALL: [Self; 6] = [
        Self::Http,
        Self::Grpc,
        Self::WebSocket,
        Self::Tcp,
        Self::Udp,
        Self::Tls,
    ];

    /// The name of the protocol in settings, which is also that of the capability that the server requires (P-1.2).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Tls => "tls",
        }
    }

    /// Whether the visitors of such a tunnel are routed by host and path.
    pub const fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Grpc | Self::WebSocket)
    }

    /// The default protocol of the service of such a tunnel.
    pub const fn service_protocol(self) -> ServiceProtocol {
        match self {
            Self::Http | Self::WebSocket => ServiceProtocol::Http1,
            Self::Grpc => ServiceProtocol::Http2,
            Self::Tcp | Self::Tls => ServiceProtocol::Tcp,
            Self::Udp => ServiceProtocol::Udp,
        }
    }
}

/// One client entry: a listener on this side that leads to an upstream of the server (F08).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntrySettings {
    /// The name of the entry, for status and errors.
    pub name: String,
    /// The protocol of the visitors.
    pub kind: EntryKind,
    /// The address that the entry listens on. Port 0: any free one.
    pub listen: SocketAddr,
    /// Name of the upstream.
    pub upstream: TunnelName,
    /// The compression of the visitors' payload; the server compresses responses as its upstream is configured.
    pub compression: Option<Compression>,
    /// Proxies in front of the entry whose `X-Forwarded-*` and `Forwarded` are trusted (P-3.4).
    pub trusted_proxies: TrustedProxies,
    /// The layers that requests pass before they are sent to the server, in this order. TCP has only those that fit sessions.
    pub layers: Vec<LayerConfig>,
}

/// The protocol of an entry's visitors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EntryKind {
    /// HTTP, gRPC and WebSocket.
    #[default]
    Http,
    /// TCP bytes.
    Tcp,
}

impl EntryKind {
    /// The name of the kind in settings and status.
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
    /// The protocol of the service.
    pub protocol: ServiceProtocol,
    /// TLS towards the service, for HTTP/2 only (`local_tls`); `None` is clear text.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host` (`host_rewrite`).
    pub host_rewrite: Option<String>,
    /// Headers added to each request (`custom_headers`), replacing those of the same name.
    pub custom_headers: Vec<(String, String)>,
    /// Sends the visitor's address to a TCP service (P-10.5).
    pub proxy_protocol: Option<ProxyProtocol>,
    /// A UDP flow ends after this long without a datagram in either direction (P-11.4).
    pub session_timeout: Duration,
}

/// Limits of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Concurrent requests that the server may open, and as many that entries may open.
    pub max_requests: usize,
    /// Visitors of entries that may wait for a permit; further ones are rejected.
    pub max_waiting: usize,
    /// The percentage of all permits that one entry may take while others wait; 100: all.
    pub tunnel_share_percent: u8,
    /// The percentage of all permits that the visitors of one address (IPv6: a /64) may take while others wait, over
    /// all entries.
    pub visitor_share_percent: u8,
    /// A visitor of an entry that sends a body, or reads a response, more slowly than this over `stall` is reset; 0: no
    /// lowest rate.
    pub min_rate_bytes_per_sec: u64,
    /// Concurrent visitor connections of one entry.
    pub max_entry_connections: usize,
    /// Concurrent connections to one service.
    pub max_service_connections: usize,
    /// Idle connections kept to one service.
    pub max_idle_connections: usize,
    /// The largest window of a request, in bytes (P-4.6).
    pub max_window_bytes: u64,
    /// The sum by which windows may grow, in bytes.
    pub budget_bytes: u64,
    /// Work of one connection or lane before the next one of the same thread, in bytes; each read and each message
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

/// Timeouts of the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// The time for connecting to the server, registration included, and for opening a lost stream again.
    pub connect: Duration,
    /// The time for the TLS handshake with the server, within `connect`.
    pub handshake: Duration,
    /// The time that a visitor of an entry waits for a link that is being (re)connected.
    pub link_wait: Duration,
    /// The time that a visitor of an entry waits for a permit.
    pub permit_wait: Duration,
    /// The timeouts of services and of visitors of entries.
    pub edge: EdgeTimeouts,
    /// The time for running requests to finish after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            handshake: Duration::from_secs(5),
            link_wait: Duration::from_secs(5),
            permit_wait: Duration::from_secs(5),
            edge: EdgeTimeouts {
                // The time is shorter than that of most services, so that a request is not sent on a connection that is
                // being closed.
                idle: Duration::from_secs(60),
                ..EdgeTimeouts::default()
            },
            drain: Duration::from_secs(30),
        }
    }
}
