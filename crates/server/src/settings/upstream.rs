//! Upstreams.

use adit_auth::TunnelName;
use adit_balance::Policy;
use adit_egress::Tls;
use adit_link::Compression;

/// One entry of `server.upstreams`: servers on this side that share the requests to one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name of the upstream, which is all that clients know of it.
    pub name: TunnelName,
    /// The policy by which the servers share the load.
    pub policy: Policy,
    /// What `consistent_hash` hashes: `host`, `header:NAME`, `cookie:NAME`.
    pub hash_on: String,
    /// The protocol of the servers.
    pub protocol: UpstreamProtocol,
    /// TLS towards the servers, for HTTP only; `None` is clear text.
    pub tls: Option<Tls>,
    /// Replaces the visitor's `Host`; `None` keeps it.
    pub host_rewrite: Option<String>,
    /// Compression of the upstream's responses between server and client.
    pub compression: Option<Compression>,
    /// The servers of the upstream, at least one.
    pub servers: Vec<UpstreamServer>,
}

/// A server of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamServer {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The share of this server relative to the others.
    pub weight: u32,
}

/// The protocol of the servers of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: in clear text with prior knowledge, or over TLS.
    Http2,
    /// Over TLS: HTTP/2 or HTTP/1.1, as the servers choose.
    Either,
    /// TCP.
    Tcp,
}

impl UpstreamProtocol {
    /// The name of the protocol in settings and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "h2c",
            Self::Either => "https",
            Self::Tcp => "tcp",
        }
    }
}
