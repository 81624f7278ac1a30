//! The visitors' side of a server: its entries, with layers, bounds and times from the settings.

use std::sync::Arc;

use adit_flow::Gate;
use adit_ingress::{
    Admission, Http, HttpConfig, Layer, Tcp, TcpConfig, Udp, UdpConfig,
    layers::{self, Access, HttpChallenges, LayerList},
};
use adit_trace::Observer;
use arc_swap::ArcSwap;

use crate::{
    connection_bounds::ConnectionBounds,
    director::ServerDirector,
    proxy_header::ProxyHeaders,
    settings::{Limits, Settings, Timeouts},
};

/// The entries for visitors. Each connection is served by the entry that is current when it is accepted.
pub(super) struct Visitors {
    http: ArcSwap<Http>,
    tcp: ArcSwap<Tcp>,
    udp: Arc<Udp>,
    /// Whose connections begin with a PROXY protocol header.
    proxy_headers: ArcSwap<ProxyHeaders>,
    permits: Arc<Gate>,
    /// The state of the access layers of all lists.
    access: Arc<Access>,
    /// The layers and the director for requests of all entries. Each request uses the layers that are current when it
    /// begins.
    admission: Arc<Admission>,
    director: Arc<ServerDirector>,
    /// The bounds that the descriptors of the process allow.
    bounds: ConnectionBounds,
    /// The challenges that are answered before the layers; `None` without a port for HTTPS.
    challenges: Option<HttpChallenges>,
    /// The pseudonym with which the server detects requests that it has forwarded before.
    via: u64,
}

impl Visitors {
    pub(super) fn new(
        settings: &Settings,
        (permits, access): (Arc<Gate>, Arc<Access>),
        director: Arc<ServerDirector>,
        (observer, bounds): (Arc<dyn Observer>, ConnectionBounds),
    ) -> Arc<Self> {
        let via = rand::random();
        let challenges = settings.https.is_some().then(HttpChallenges::new);
        let layers = chain(settings, (&permits, &access), via, challenges.as_ref());
        let admission = Admission::observed(layers, director.clone(), observer);
        admission.set_error_pages(settings.error_pages.clone());
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        let http = Http::new(http_config(settings, bounds), admission.clone());
        let tcp = Tcp::new(tcp_config(settings, bounds), admission.clone());
        let udp = Udp::new(udp_config(limits, timeouts), admission.clone());
        Arc::new(Self {
            http: ArcSwap::new(http),
            tcp: ArcSwap::new(tcp),
            udp,
            proxy_headers: ArcSwap::from_pointee(proxy_headers(settings)),
            permits,
            access,
            admission,
            director,
            bounds,
            challenges,
            via,
        })
    }

    /// Applies settings: new requests pass these layers, and new connections and flows have these bounds and times.
    pub(super) fn follow(&self, settings: &Settings) {
        let admission = &self.admission;
        admission.set_error_pages(settings.error_pages.clone());
        let (shared, challenges) = ((&self.permits, &self.access), self.challenges.as_ref());
        admission.set_layers(chain(settings, shared, self.via, challenges));
        let (limits, timeouts) = (&settings.limits, &settings.timeouts);
        let http = http_config(settings, self.bounds);
        self.http
            .store(self.http.load().reconfigured(http, admission.clone()));
        let tcp = tcp_config(settings, self.bounds);
        self.tcp
            .store(self.tcp.load().reconfigured(tcp, admission.clone()));
        self.udp.set_config(udp_config(limits, timeouts));
        self.director.set_timeouts(timeouts);
        self.proxy_headers.store(Arc::new(proxy_headers(settings)));
    }

    /// Whose connections begin with a PROXY protocol header.
    pub(super) fn proxy_headers(&self) -> Arc<ProxyHeaders> {
        self.proxy_headers.load_full()
    }

    /// Counts a connection of a proxy that is closed for its header.
    pub(super) fn count_refused_header(&self) {
        self.access.count_refused_header();
    }

    /// The challenges that are answered, if there is a port for HTTPS.
    pub(super) const fn challenges(&self) -> Option<&HttpChallenges> {
        self.challenges.as_ref()
    }

    pub(super) fn http(&self) -> Arc<Http> {
        self.http.load_full()
    }

    pub(super) fn tcp(&self) -> Arc<Tcp> {
        self.tcp.load_full()
    }

    pub(super) const fn udp(&self) -> &Arc<Udp> {
        &self.udp
    }
}

/// The layers that every request passes.
fn chain(
    settings: &Settings,
    (permits, access): (&Arc<Gate>, &Arc<Access>),
    via: u64,
    challenges: Option<&HttpChallenges>,
) -> Vec<Box<dyn Layer>> {
    let permit_wait = settings.timeouts.permit_wait;
    let permits = layers::Permits::new(permits.clone(), permit_wait);
    let trusted_proxies = settings.trusted_proxies.clone();
    let configured = LayerList {
        layers: &settings.layers,
        place: "server",
        access,
    };
    let (via, configured) = (layers::Via::new(via), configured.layers());
    let layers = layers::http_layers(via, trusted_proxies, configured, permits);
    // A challenge is answered before any layer (P-14.6).
    let challenges = challenges.map(|challenges| Box::new(challenges.clone()) as Box<dyn Layer>);
    challenges.into_iter().chain(layers).collect()
}

fn proxy_headers(settings: &Settings) -> ProxyHeaders {
    let proxies = settings.trusted_proxies.clone();
    ProxyHeaders {
        proxies: settings.proxy_protocol.then_some(proxies),
        within: settings.timeouts.edge.head,
    }
}

fn http_config(settings: &Settings, bounds: ConnectionBounds) -> HttpConfig {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    HttpConfig {
        min_rate_bytes_per_sec: limits.min_rate_bytes_per_sec,
        max_connections: limits.max_connections,
        max_connections_per_address: bounds.http_per_address(limits),
        trusted_proxies: settings.trusted_proxies.clone(),
        turn_bytes: limits.turn_bytes,
        inline_body_bytes: (8 * 1024).min(limits.initial_window_bytes as usize / 2),
        ..HttpConfig::with_timeouts(&timeouts.edge)
    }
}

fn tcp_config(settings: &Settings, bounds: ConnectionBounds) -> TcpConfig {
    let (limits, timeouts) = (&settings.limits, &settings.timeouts);
    TcpConfig {
        max_connections: limits.max_tcp_connections,
        max_connections_per_address: bounds.tcp_per_address(limits),
        max_connections_per_tunnel: bounds.tcp_per_tunnel(limits),
        trusted_proxies: settings.trusted_proxies.clone(),
        ..TcpConfig::with_timeouts(&timeouts.edge)
    }
}

fn udp_config(limits: &Limits, timeouts: &Timeouts) -> UdpConfig {
    UdpConfig {
        max_flows: limits.max_udp_flows,
        end_timeout: timeouts.edge.session_close,
        ..UdpConfig::default()
    }
}
