//! The destination of the requests of one tunnel: its service, and the connections to it.

use adit_net::{HostPort, HttpVersion};
use std::sync::Arc;

use crate::{
    config::Protocol,
    connect::{
        chosen_protocol::ChosenProtocol,
        tls::{Access, Dialer, Offer, Tls},
    },
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
    /// With a dialer for upgrades, which HTTP/2 does not have.
    Http2(Arc<http2::Client>, Arc<Dialer>),
    /// Over TLS; the service chooses.
    Either(Arc<Either>),
    /// No connections are kept: each request has its own.
    PerRequest,
}

/// The connections to a service that chooses the version of HTTP.
pub(super) struct Either {
    pub(super) chosen: Arc<ChosenProtocol>,
    http1: Arc<http1::Pool>,
    http2: Arc<http2::Client>,
}

impl Connections {
    pub(super) fn new(
        (address, protocol, tls): &ConnectionsKey,
        resources: &Arc<Resources>,
    ) -> Self {
        let (access, resources) = (
            Access::new(address.clone(), tls.as_ref()),
            resources.clone(),
        );
        match (protocol, tls) {
            (Protocol::Http1, _) | (Protocol::Either, None) => Self::Http1(http1::Pool::new(
                access.offering(Offer::Http1),
                None,
                resources,
            )),
            (Protocol::Http2, _) => {
                let http2 = http2::Client::new(access.offering(Offer::Http2), None, resources);
                Self::Http2(http2, access.offering(Offer::Http1))
            }
            (Protocol::Either, Some(_)) => {
                let chosen = ChosenProtocol::new(access.offering(Offer::Either));
                let (http1, http2) = (access.offering(Offer::Http1), access.offering(Offer::Http2));
                Self::Either(Arc::new(Either {
                    http1: http1::Pool::new(http1, Some(chosen.clone()), resources.clone()),
                    http2: http2::Client::new(http2, Some(chosen.clone()), resources),
                    chosen,
                }))
            }
            // A service with TLS is never reached in clear text: its requests are reset.
            (Protocol::Tcp | Protocol::Udp, _) => Self::PerRequest,
        }
    }

    /// Opens connections for WebSockets, which are upgrades of HTTP/1.1: most services of HTTP/2 support that as well.
    pub(super) fn upgrades(&self) -> Option<&Arc<Dialer>> {
        match self {
            Self::Http1(pool) => Some(pool.dialer()),
            Self::Http2(_, dialer) => Some(dialer),
            Self::Either(either) => Some(either.http1.dialer()),
            Self::PerRequest => None,
        }
    }

    /// Closes idle connections now, and the others as they become idle.
    pub(super) fn retire(&self) {
        match self {
            Self::Http1(pool) => pool.retire(),
            Self::Http2(client, _) => client.retire(),
            Self::Either(either) => {
                either.http1.retire();
                either.http2.retire();
            }
            Self::PerRequest => {}
        }
    }

    /// Adds these connections to `stats`.
    pub(super) fn count(&self, stats: &mut Stats) {
        match self {
            Self::Http1(pool) => pool.count(stats),
            Self::Http2(client, _) => client.count(stats),
            Self::Either(either) => {
                either.http1.count(stats);
                either.http2.count(stats);
            }
            Self::PerRequest => {}
        }
    }
}

impl Either {
    /// The connections of this version.
    pub(super) fn of(&self, version: HttpVersion) -> Connections {
        match version {
            HttpVersion::Http1 => Connections::Http1(self.http1.clone()),
            HttpVersion::Http2 => {
                Connections::Http2(self.http2.clone(), self.http1.dialer().clone())
            }
        }
    }
}
