//! One service: its address, its settings, and its gauges.

use adit_net::HostPort;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use adit_codec::fields::is_hop_by_hop;
use adit_link::{Compression, SendHalf, compress::is_compressible};
use adit_trace::Observer;
use http::{HeaderName, HeaderValue};

use crate::config::{Protocol, ProxyProtocol, ServiceConfig};

/// The service of one tunnel. A change of the tunnel's settings creates a new service, with gauges and counters at
/// zero.
pub(crate) struct Service {
    pub(crate) address: HostPort,
    /// The address as text, for records.
    pub(crate) endpoint: Box<str>,
    pub(crate) observer: Arc<dyn Observer>,
    protocol: Protocol,
    pub(crate) is_tls: bool,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) compression: Option<Compression>,
    pub(crate) session_timeout: Duration,
    /// Connections of TCP and of WebSockets, which are not pooled.
    pub(crate) open: AtomicUsize,
    /// Requests so far.
    pub(crate) requests: AtomicU64,
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// Headers that are added to each request; they replace headers of the same name.
    pub(crate) custom: Vec<(HeaderName, HeaderValue)>,
    /// Requests that are being served.
    pub(crate) running: AtomicUsize,
    /// The settings of the service.
    pub(crate) config: ServiceConfig,
}

impl Service {
    pub(crate) fn new(
        config: &ServiceConfig,
        address: HostPort,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut host_rewrite = config.host_rewrite.as_deref().and_then(|host| {
            let value = HeaderValue::from_str(host)
                .ok()
                .filter(|host| !host.is_empty());
            if value.is_none() {
                tracing::warn!(host, "ignoring invalid host_rewrite: not a header value");
            }
            value
        });
        let mut custom = Vec::new();
        for (name, value) in &config.custom_headers {
            match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                (Ok(name), Ok(value)) if name == http::header::HOST => {
                    host_rewrite.get_or_insert(value);
                }
                (Ok(header), Ok(value))
                    if !is_hop_by_hop(header.as_str().as_bytes())
                        && header != http::header::CONTENT_LENGTH =>
                {
                    custom.push((header, value));
                }
                _ => tracing::warn!(
                    name,
                    "ignoring custom header: invalid name or value, or set by adit itself"
                ),
            }
        }
        Self {
            running: AtomicUsize::new(0),
            endpoint: address.to_string().into(),
            address,
            observer,
            protocol: config.protocol,
            is_tls: config.tls.is_some(),
            proxy_protocol: config.proxy_protocol,
            compression: config.compression,
            session_timeout: config.session_timeout,
            open: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            host_rewrite,
            custom,
            config: config.clone(),
        }
    }

    /// Whether the service has this protocol, without TLS.
    pub(crate) fn is_plain(&self, protocol: Protocol) -> bool {
        self.protocol == protocol && !self.is_tls
    }

    /// Selects how the response with these header lines is compressed on the link. Without lines (bytes of a connection)
    /// the configured compression applies.
    pub(crate) fn select_compression<'a>(
        &self,
        send: &SendHalf,
        lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        let compression = self.compression.filter(|_| is_compressible(lines));
        send.set_compression(compression);
    }

    /// Whether a custom header replaces the visitor's header of this name.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.custom
            .iter()
            .any(|(custom, _)| custom.as_str().as_bytes() == name)
    }
}
