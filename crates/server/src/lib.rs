//! Composes the public side: runs a server with given [`Settings`].
//!
//! This crate only connects other crates. A visitor's request passes, in order, `ingress` (HTTP and its layers),
//! `director` (rule, tunnel, client, permit), a lane of the client's link. A client's registration passes `service`
//! (credential), `registry` (epoch, takeover), `worker` (the thread of announcements), `directory` (owners of names,
//! hosts and ports, which make the next snapshot of routes). A visitor of a public port passes `ports` (listening
//! sockets follow the snapshot), `ingress` (TCP or UDP), `director`. A request that a client opens passes `upstreams`
//! (name, permits, choice of a server), `egress`.

mod authentication;
mod authorization;
mod channels;
mod client_port;
mod clients_tls;
mod configuration;
mod connection_bounds;
mod connections;
mod cookie;
mod definition;
mod director;
mod directory;
mod enrolment;
mod entries;
mod floods;
mod forward_auth;
mod guesses;
mod identities;
mod issued;
mod lane_config;
mod lanes;
pub mod metrics;
pub mod names;
mod newcomers;
mod port;
mod ports;
pub mod proxy_header;
mod public_name;
mod renewals;
mod server;
mod service;
mod settings;
mod shortcut;
mod shortcuts;
mod status;
#[cfg(test)]
mod tests;
mod threads;
mod traffic;
mod tunnel;
mod upstream;
mod upstreams;
mod usage_keeper;
mod worker;

pub use adit_acme as acme;
pub use adit_net::{HostPort, HostPortError, raise_descriptor_limit};
pub use adit_quota::{Calendar, Quota};
pub use adit_tls::Certificates;
pub use clients_tls::{OwnCaStatus, TlsSetupError};
pub use configuration::{ConfigSource, Configuration, FixedSource, Rejections};
pub use directory::RuleError;
pub use forward_auth::ForwardAuthError;
pub use server::{Server, ServerHandle, StartError};
pub use settings::{
    AcmeHosts, Compression, EdgeTimeouts, ErrorPage, ErrorPageError, ErrorPages,
    ForwardAuthSettings, HostCertificate, HostRules, HttpsSettings, IssuerSettings, JwksUrl,
    KeySource, Limits, MAX_KEY_BYTES, Network, OwnCaSettings, PortRanges, PublicUrl, RuleSettings,
    RuleTarget, Scheme, ServerTls, Settings, SharedGroup, StaticToken, Timeouts, Tls, TlsName,
    TrafficLimits, TrafficSettings, TrustedProxies, TunnelTls, UpstreamProtocol, UpstreamServer,
    UpstreamSettings, UrlSource, layers,
};
pub use status::{
    CertificateStatus, ClientStatus, ConfigStatus, CoreCounters, HttpsStatus, IssuanceStatus,
    IssuedStatus, ProcessStatus, RefusalStatus, RouteStatus, Status, TcpStatus, TlsStatus,
    TunnelStatus, UdpStatus, UpstreamServerStatus, UpstreamStatus, VisitorStatus,
};
pub use traffic::{AccountStatus, QuotaStatus, TrafficRefusalStatus, TrafficStatus};
pub use upstream::UpstreamError;
