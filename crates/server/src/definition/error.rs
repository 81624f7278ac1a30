//! Why an announcement does not define a tunnel.

use adit_balance::ParsePolicyError;
use adit_codec::ProtocolType;
use adit_ingress::layers::LayerError;
use adit_router::{HostPatternError, PathError};
use thiserror::Error;

/// Why an announcement does not define a tunnel. Its text is sent to the author of the announcement: it is short, whatever
/// the announcement contains.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum DefinitionError {
    #[error(
        "tunnel type {name} is not supported by this server; use http, grpc, websocket, tcp or udp"
    )]
    Type { name: &'static str },
    #[error("invalid remote port {0}: expected 1 to 65535, or 0 for a port of the server's choice")]
    RemotePort(u32),
    #[error(
        "a tunnel of type {} has neither domains nor locations: it is reached by its port",
        .protocol.as_str()
    )]
    HostsOfPort { protocol: ProtocolType },
    #[error(
        "a tunnel of type {} has no layer `{kind}`: it is for requests of HTTP, gRPC and WebSocket",
        .protocol.as_str()
    )]
    LayerOfPort {
        protocol: ProtocolType,
        kind: &'static str,
    },
    #[error("{} tunnels redirect nothing to HTTPS: that is for HTTP, gRPC and WebSocket", protocol.as_str())]
    HttpsOfPort { protocol: ProtocolType },
    #[error("the TLS of the visitors of a {} tunnel does not end at the server: it has no certificates (`ssl_cert`)", protocol.as_str())]
    CertificatesOfPort { protocol: ProtocolType },
    #[error("TLS of visitors is passed through or terminated for TCP tunnels, not for {} tunnels", protocol.as_str())]
    TlsOfOther { protocol: ProtocolType },
    #[error(
        "visitors whose TLS is passed through use the server's port for HTTPS; leave out the remote port"
    )]
    PortOfTls,
    #[error("bytes of TLS have no path; leave out the locations")]
    LocationsOfTls,
    #[error(
        "unknown treatment {0} of the TLS of visitors; install the same version of adit on both sides"
    )]
    VisitorTls(i32),
    #[error("domain `{domain}`: {source}")]
    Domain {
        domain: String,
        source: HostPatternError,
    },
    #[error("location `{location}`: {source}")]
    Location { location: String, source: PathError },
    #[error("{count} domains; a tunnel may have {limit} (`server.limits.max_domains_per_tunnel`)")]
    Domains { count: usize, limit: usize },
    #[error(
        "{count} locations; a tunnel may have {limit} (`server.limits.max_locations_per_tunnel`)"
    )]
    Locations { count: usize, limit: usize },
    #[error(
        "{domains} domains with {locations} locations each make {routes} routes; a tunnel may have \
         {limit} (`server.limits.max_routes_per_tunnel`)"
    )]
    Routes {
        domains: usize,
        locations: usize,
        routes: usize,
        limit: usize,
    },
    #[error(
        "a location of {bytes} bytes; it may have {limit} (`server.limits.max_location_bytes`)"
    )]
    LocationBytes { bytes: usize, limit: usize },
    #[error("{count} layers; a tunnel may have {limit} (`server.limits.max_layers_per_tunnel`)")]
    Layers { count: usize, limit: usize },
    #[error(
        "layers of {bytes} bytes; those of a tunnel may have {limit} \
         (`server.limits.max_layer_bytes_per_tunnel`)"
    )]
    LayerBytes { bytes: usize, limit: usize },
    #[error(
        "layer {number} is of a kind that this server does not support; install the same version of \
         adit on both sides"
    )]
    LayerKind { number: usize },
    #[error("layer {number}: {source}")]
    Layer { number: usize, source: LayerError },
    #[error(
        "a layer names the provider {name:?}, which `server.forward_auth` of the server does not have"
    )]
    Provider { name: String },
    #[error("{start:?}... has {bytes} bytes; no more than {limit} are allowed")]
    TextBytes {
        start: String,
        bytes: usize,
        limit: usize,
    },
    #[error(transparent)]
    Policy(#[from] ParsePolicyError),
    #[error("hash_on `{0}`: expected `host`, `header:NAME` or `cookie:NAME`")]
    HashOn(String),
    #[error("compression `{0}`: expected `gzip`, `zstd` or none")]
    Compression(String),
}
