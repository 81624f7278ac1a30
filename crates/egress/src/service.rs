//! One service: its address, and what is changed on the way to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize},
    },
    time::Duration,
};

use adit_link::{Compression, SendHalf, compress::is_compressible};
use adit_trace::Observer;
use http::{HeaderName, HeaderValue};

use crate::{
    config::{Protocol, ProxyProtocol, ServiceConfig},
    connect::dial::Address,
    fields::is_hop_by_hop,
};

/// The service of one tunnel, ready to be used for each request.
pub(crate) struct Service {
    pub(crate) address: Address,
    /// The address as people write it.
    pub(crate) endpoint: Box<str>,
    pub(crate) observer: Arc<dyn Observer>,
    protocol: Protocol,
    pub(crate) is_tls: bool,
    pub(crate) proxy_protocol: Option<ProxyProtocol>,
    pub(crate) compression: Option<Compression>,
    pub(crate) session_timeout: Duration,
    /// Connections of TCP and of WebSockets. A change of the service's settings begins anew.
    pub(crate) open: AtomicUsize,
    /// Requests so far. A change of the service's settings begins anew.
    pub(crate) requests: AtomicU64,
    pub(crate) host_rewrite: Option<HeaderValue>,
    /// Added to each request, replacing those of the same name.
    pub(crate) custom: Vec<(HeaderName, HeaderValue)>,
    /// Requests that run.
    pub(crate) running: AtomicUsize,
}

impl Service {
    pub(crate) fn new(
        config: &ServiceConfig,
        address: Address,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let mut host_rewrite = config.host_rewrite.as_deref().and_then(|host| {
            let value = HeaderValue::from_str(host)
                .ok()
                .filter(|host| !host.is_empty());
            if value.is_none() {
                tracing::warn!(host, "host_rewrite is no host name; it is ignored");
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
                _ => tracing::warn!(name, "custom header cannot be sent; it is ignored"),
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
        }
    }

    /// Whether it speaks this, in clear text.
    pub(crate) fn is_plain(&self, protocol: Protocol) -> bool {
        self.protocol == protocol && !self.is_tls
    }

    /// How an answer with these header lines crosses; with none, whatever a connection carries.
    pub(crate) fn compress<'a>(
        &self,
        send: &SendHalf,
        lines: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) {
        let compression = self.compression.filter(|_| is_compressible(lines));
        send.set_compression(compression);
    }

    /// Whether this service's own header takes the place of the visitor's.
    pub(crate) fn replaces(&self, name: &[u8]) -> bool {
        self.custom
            .iter()
            .any(|(custom, _)| custom.as_str().as_bytes() == name)
    }
}
