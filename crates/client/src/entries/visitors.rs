//! Serves the visitors of an entry: `adit-ingress` with the layers and bounds of the settings.

use std::{net::SocketAddr, sync::Arc};

use adit_flow::Gate;
use adit_ingress::{
    Admission, Http, HttpConfig, Layer, Tcp, TcpConfig,
    layers::{self, Access, LayerList},
};
use adit_net::Stream;
use adit_trace::Observer;
use tokio::sync::watch;

use super::director::{EntryDirector, Route};
use crate::{
    settings::{EntryKind, EntrySettings, Settings},
    status::EntryStatus,
    sync::signalled,
};

/// Serves the visitors of one entry.
#[derive(Clone)]
pub(super) enum Visitors {
    Http(Arc<Http>),
    Tcp(Arc<Tcp>),
}

/// The values that all entries share.
pub(super) struct Shares {
    /// The permits for concurrent requests of all entries (F12).
    pub(super) permits: Arc<Gate>,
    pub(super) via: layers::Via,
    /// The state of the access layers of all entries.
    pub(super) access: Arc<Access>,
    pub(super) observer: Arc<dyn Observer>,
}

impl Visitors {
    /// `number` identifies the entry among those that share the permits.
    pub(super) fn new(
        (entry, number): (&EntrySettings, u64),
        settings: &Settings,
        shares: &Shares,
        route: Route,
    ) -> Self {
        let permit_wait = settings.timeouts.permit_wait;
        let permits = layers::Permits::of_entry(shares.permits.clone(), permit_wait, number);
        let configured = LayerList {
            layers: &entry.layers,
            place: &format!("entry {}", entry.name),
            access: &shares.access,
        };
        let mut configured = configured.layers();
        let chain: Vec<Box<dyn Layer>> = match entry.kind {
            EntryKind::Http => {
                let (via, trusted) = (shares.via.clone(), entry.trusted_proxies.clone());
                layers::http_layers(via, trusted, configured, permits)
            }
            EntryKind::Tcp => {
                configured.push(Box::new(permits));
                configured
            }
        };
        let director = Arc::new(EntryDirector(Arc::new(route)));
        let admission = Admission::observed(chain, director, shares.observer.clone());
        match entry.kind {
            EntryKind::Tcp => Self::Tcp(Tcp::new(tcp_config(settings), admission)),
            EntryKind::Http => Self::Http(Http::new(http_config(settings), admission)),
        }
    }

    /// Serves one connection until it ends; after `drain`, until its running requests have ended.
    pub(super) async fn serve(
        self,
        stream: Stream,
        peer: SocketAddr,
        drain: watch::Receiver<bool>,
    ) {
        match self {
            Self::Http(http) => http.serve(stream, peer, signalled(drain)).await,
            Self::Tcp(tcp) => match stream.local_addr() {
                Ok(local) => tcp.serve(stream, peer, local).await,
                Err(error) => tracing::debug!(%peer, %error, "visitor disconnected"),
            },
        }
    }

    /// Writes the counters and gauges into `status`.
    pub(super) fn count(&self, status: &mut EntryStatus) {
        match self {
            Self::Http(http) => {
                let stats = http.stats();
                status.connections_open = stats.connections_open;
                status.requests_open = stats.requests_open;
                status.requests = stats.requests;
                status.failures = stats.failures.by_name();
            }
            Self::Tcp(tcp) => {
                let stats = tcp.stats();
                status.connections_open = stats.open;
                status.requests_open = stats.open;
                status.requests = stats.total;
                status.failures = stats.failures.by_name();
            }
        }
    }
}

fn tcp_config(settings: &Settings) -> TcpConfig {
    TcpConfig {
        max_connections: settings.limits.max_entry_connections,
        ..TcpConfig::with_timeouts(&settings.timeouts.edge)
    }
}

fn http_config(settings: &Settings) -> HttpConfig {
    let limits = &settings.limits;
    HttpConfig {
        min_rate_bytes_per_sec: limits.min_rate_bytes_per_sec,
        max_connections: limits.max_entry_connections,
        turn_bytes: limits.turn_bytes,
        ..HttpConfig::with_timeouts(&settings.timeouts.edge)
    }
}
