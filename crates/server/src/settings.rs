//! The settings of a server: typed, validated, complete. `adit-config` makes them from files, environment and flags.

mod forward_auth;
mod host_rules;
mod https;
mod issuer;
mod limits;
mod port_ranges;
mod public_url;
mod rule;
mod timeouts;
mod traffic;
mod tunnel_tls;
mod upstream;

use std::{net::SocketAddr, path::PathBuf};

pub use adit_auth::StaticToken;
use adit_auth::{CertificateRules, GroupId, UserName};
pub use adit_egress::Tls;
pub use adit_identity::{JwksUrl, KeySource, MAX_KEY_BYTES, UrlSource};
use adit_ingress::layers::LayerConfig;
pub use adit_ingress::{
    EdgeTimeouts, ErrorPage, ErrorPageError, ErrorPages, Network, Scheme, TrustedProxies, layers,
};
pub use adit_link::Compression;
pub use adit_tls::{HostCertificate, ServerTls, TlsName};

pub(crate) use self::host_rules::is_reserved;
pub use self::{
    forward_auth::ForwardAuthSettings,
    host_rules::HostRules,
    https::{AcmeHosts, HttpsSettings},
    issuer::IssuerSettings,
    limits::Limits,
    port_ranges::PortRanges,
    public_url::PublicUrl,
    rule::{RuleSettings, RuleTarget},
    timeouts::Timeouts,
    traffic::{TrafficLimits, TrafficSettings},
    tunnel_tls::{OwnCaSettings, TunnelTls},
    upstream::{UpstreamProtocol, UpstreamServer, UpstreamSettings},
};

/// The settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Address for clients (`bind_addr`, `bind_port`). Port 0: any free one.
    pub tunnel_addr: SocketAddr,
    /// TLS on the connections of clients.
    pub tls: TunnelTls,
    /// Address for HTTP visitors (`http.bind_port`).
    pub http_addr: SocketAddr,
    /// The port for HTTPS visitors; `None` turns it off.
    pub https: Option<HttpsSettings>,
    /// Address of the admin port; `None` turns it off.
    pub admin_addr: Option<SocketAddr>,
    /// Concurrent clients.
    pub max_clients: usize,
    /// Data threads, each a runtime of its own; at least 1.
    pub threads: usize,
    /// Tunnels without a domain have the host `NAME.<domain>`, besides `NAME.localhost`.
    pub domain: Option<String>,
    /// Tokens of clients.
    pub tokens: Vec<StaticToken>,
    /// Issuers whose JWTs are accepted.
    pub issuers: Vec<IssuerSettings>,
    /// The users whose certificates of `tls` are credentials; `None`: certificates are not credentials.
    pub certificates: Option<CertificateRules>,
    /// Whether the server makes a token, kept in the state directory, if it has no other.
    pub makes_token: bool,
    /// Groups that several users share. Every other group belongs to the user that first registers it (P-1.9).
    pub shared_groups: Vec<SharedGroup>,
    /// Directory of the generated token, the owners of names and the addresses of the running server.
    pub state_dir: PathBuf,
    /// Proxies in front of the visitors' port whose `X-Forwarded-*` and `Forwarded` are trusted (P-3.4).
    pub trusted_proxies: TrustedProxies,
    /// Whether connections of `trusted_proxies` begin with a PROXY protocol header (P-15.11).
    pub proxy_protocol: bool,
    /// The layers that HTTP requests pass before they are routed, in this order.
    pub layers: Vec<LayerConfig>,
    /// Providers of forward auth, which layers name.
    pub forward_auth: Vec<ForwardAuthSettings>,
    /// Pages in the place of the texts of error responses.
    pub error_pages: ErrorPages,
    /// Scheme and port of public URLs, if a proxy in front of the server changes them.
    pub public_url: PublicUrl,
    /// Bounds.
    pub limits: Limits,
    /// Times.
    pub timeouts: Timeouts,
    /// Rules of the configuration; they precede those of tunnels.
    pub rules: Vec<RuleSettings>,
    /// The targets of clients' entries and of rules.
    pub upstreams: Vec<UpstreamSettings>,
}

impl Settings {
    /// Concurrent clients of one user.
    pub(crate) fn clients_per_user(&self) -> usize {
        let half = self.max_clients.div_ceil(2);
        self.limits.max_clients_per_user.unwrap_or(half)
    }

    /// Defaults for a server with these addresses: one data thread, no admin port and no state directory.
    pub fn new(tunnel_addr: SocketAddr, http_addr: SocketAddr) -> Self {
        Self {
            tunnel_addr,
            tls: TunnelTls::Auto,
            http_addr,
            https: None,
            admin_addr: None,
            max_clients: 1_000,
            threads: 1,
            domain: None,
            tokens: Vec::new(),
            issuers: Vec::new(),
            certificates: None,
            makes_token: true,
            shared_groups: Vec::new(),
            state_dir: PathBuf::new(),
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
            layers: Vec::new(),
            forward_auth: Vec::new(),
            error_pages: ErrorPages::default(),
            public_url: PublicUrl::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            rules: Vec::new(),
            upstreams: Vec::new(),
        }
    }
}

/// One entry of `server.shared_groups`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedGroup {
    /// The group.
    pub group: GroupId,
    /// The users whose clients may be in it.
    pub users: Vec<UserName>,
}
