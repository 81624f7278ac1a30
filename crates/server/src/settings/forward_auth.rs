//! Providers of forward auth.

use std::time::Duration;

use adit_egress::Tls;
use adit_net::HostPort;
use http::HeaderName;

/// A service that decides about requests of visitors (P-15.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthSettings {
    /// The name by which layers refer to it.
    pub name: String,
    /// Host and port.
    pub address: HostPort,
    /// The value of `host`.
    pub host: String,
    /// Path and query of the sub-request.
    pub target: String,
    /// TLS to the provider; `None` is clear text.
    pub tls: Option<Tls>,
    /// The headers of its responses that admitted requests are sent with.
    pub copied: Vec<HeaderName>,
    /// The headers of requests that it receives, beside cookies, credentials and the like.
    pub sent: Vec<HeaderName>,
    /// The longest time of a sub-request.
    pub timeout: Duration,
    /// The largest body of a response.
    pub max_body_bytes: usize,
}

impl ForwardAuthSettings {
    /// The longest time without a configured one.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
    /// The largest body without a configured one.
    pub const MAX_BODY_BYTES: usize = 64 << 10;
}
