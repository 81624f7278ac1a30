//! The destination of the requests of one tunnel: its service, and the connections to it.

use adit_net::HostPort;
use std::sync::Arc;

use crate::{
    config::Protocol,
    connect::tls::{Dialer, Tls},
    forward::{resources::Resources, service::Service},
    protocol::{http1, http2},
    stats::Stats,
};

/// The destination of the requests of one tunnel.
#[derive(Clone)]
pub(super) struct Route {
    pub(super) service: Arc<Service>,
    pub(super) connections: Connections,
}

/// The values that must be equal for services to share connections.
pub(super) type ConnectionsKey = (HostPort, Protocol, Option<Tls>);

/// The connections to one address.
#[derive(Clone)]
pub(super) enum Connections {
    Http1(Arc<http1::Pool>),
    Http2(Arc<http2::Client>),
    /// No connections are kept: each request has its own.
    PerRequest,
}

impl Connections {
    pub(super) fn new(
        (address, protocol, tls): &ConnectionsKey,
        resources: &Arc<Resources>,
    ) -> Self {
        let (address, resources) = (address.clone(), resources.clone());
        match (protocol, tls) {
            (Protocol::Http1, None) => Self::Http1(http1::Pool::new(address, resources)),
            (Protocol::Http2, tls) => {
                let dialer = Dialer::new(address, tls.as_ref());
                Self::Http2(http2::Client::new(dialer, resources))
            }
            // A service with TLS is never reached in clear text: its requests are reset.
            (Protocol::Tcp | Protocol::Udp, _) | (Protocol::Http1, Some(_)) => Self::PerRequest,
        }
    }

    /// Closes idle connections now, and the others as they become idle.
    pub(super) fn retire(&self) {
        match self {
            Self::Http1(pool) => pool.retire(),
            Self::Http2(client) => client.retire(),
            Self::PerRequest => {}
        }
    }

    /// Adds these connections to `stats`.
    pub(super) fn count(&self, stats: &mut Stats) {
        match self {
            Self::Http1(pool) => pool.count(stats),
            Self::Http2(client) => client.count(stats),
            Self::PerRequest => {}
        }
    }
}
