//! The port for HTTPS visitors: handshakes, bounded in number and time, and the certificates in force.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use adit_ingress::{ServedHosts, Tcp};
use adit_net::Stream;
use adit_tls::{
    Cause, Certificates, HostCertificate, Opening, Peer, Secured, SetupError, TimeLimit, TlsError,
    VisitorAcceptor,
};

use super::visitors::Visitors;
use crate::{
    configuration::InForce,
    connection_bounds::ConnectionBounds,
    directory::Directory,
    floods::Floods,
    issued::Issued,
    newcomers::{Crowded, Newcomers},
    settings::{HttpsSettings, Limits, Settings},
    status::{CertificateStatus, HttpsStatus},
    tunnel::Tunnel,
};

/// The port for HTTPS visitors.
pub(super) struct Https {
    addr: SocketAddr,
    tls: VisitorAcceptor,
    /// Connections whose handshakes have not ended (P-14.5).
    handshakes: Arc<Newcomers>,
    bounds: ConnectionBounds,
    floods: Arc<Floods>,
    config: Arc<InForce>,
}

/// A connection that has been opened.
enum Opened {
    Secured(Secured, Option<Box<str>>),
    /// TLS that is passed through, with the host that the visitor asks for, and the name of its tunnel.
    Closed(Stream, Box<str>, Arc<str>),
    ClearText(Stream),
}

/// The hosts of one connection over TLS (P-14.4).
struct ConnectionHosts {
    directory: Arc<Directory>,
    certificate: Arc<HostCertificate>,
    /// The host that the visitor has asked for. Without one it was shown the default certificate, which is for every host.
    asked_for: Option<Box<str>>,
}

impl Https {
    /// A port at this address, which the caller listens on.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(super) fn new(
        addr: SocketAddr,
        settings: &Settings,
        https: &HttpsSettings,
        bounds: ConnectionBounds,
        (floods, config): (Arc<Floods>, Arc<InForce>),
    ) -> Result<Arc<Self>, SetupError> {
        let limits = &settings.limits;
        let port = Self {
            addr,
            tls: VisitorAcceptor::new(Certificates::new(), settings.threads)?,
            handshakes: Newcomers::new(
                bounds.handshakes(limits),
                bounds.handshakes_per_address(limits),
            ),
            bounds,
            floods,
            config,
        };
        port.follow(https, limits);
        Ok(Arc::new(port))
    }

    /// Applies settings to later handshakes.
    pub(super) fn follow(&self, https: &HttpsSettings, limits: &Limits) {
        let bounds = self.bounds;
        self.handshakes.set_bounds(
            bounds.handshakes(limits),
            bounds.handshakes_per_address(limits),
        );
        let certificates = self.certificates();
        certificates.give(&https.certificates, https.default.clone());
        if https.certificates.is_empty() && https.acme.is_none() {
            tracing::warn!(
                "`server.https` has no certificate: only visitors whose TLS is passed through are served"
            );
        }
        let now = SystemTime::now();
        for certificate in &https.certificates {
            if certificate.expires() <= now {
                let names: Vec<_> = certificate.names().collect();
                tracing::warn!(
                    names = names.join(", "),
                    "a certificate of `server.https` has expired: visitors will not accept it"
                );
            }
        }
    }

    /// The certificates in force, which can be replaced at any time.
    pub(super) const fn certificates(&self) -> &Certificates {
        self.tls.certificates()
    }

    /// The address for visitors.
    pub(super) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves one connection to its end, beginning with the handshake. When `drained` is ready, a handshake ends at once.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection and cancels its requests.
    pub(super) async fn serve(
        &self,
        stream: Stream,
        peer: SocketAddr,
        entries: &Visitors,
        directory: Arc<Directory>,
        drained: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut drained = Box::pin(drained);
        let opening = self.open(stream, &directory);
        let Some(opened) = self.bounded(peer, opening, drained.as_mut()).await else {
            return;
        };
        match opened {
            Opened::Secured(secured, asked_for) => {
                let Secured {
                    stream,
                    certificate,
                } = secured;
                let hosts = ConnectionHosts {
                    directory,
                    certificate,
                    asked_for,
                };
                let http = entries.http();
                http.serve_hosts(stream, peer, Arc::new(hosts), drained)
                    .await;
            }
            Opened::Closed(stream, host, tunnel) => match stream.local_addr() {
                Ok(local) => {
                    let tcp = entries.tcp();
                    tcp.serve_host(stream, peer, local, (&host, tunnel)).await;
                }
                Err(error) => tracing::debug!(%peer, %error, "the visitor has left"),
            },
            Opened::ClearText(stream) => {
                entries
                    .http()
                    .refuse_clear_text(stream, peer, drained)
                    .await;
            }
        }
    }

    /// Serves a connection on the port of a tunnel at which TLS ends.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn serve_tunnel(
        &self,
        stream: Stream,
        peer: SocketAddr,
        tunnel: Arc<Tunnel>,
        tcp: Arc<Tcp>,
        drained: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut drained = Box::pin(drained);
        let opening = self.open_for(stream, &tunnel);
        let opened = self.bounded(peer, opening, drained.as_mut()).await;
        let Some(stream) = opened else { return };
        match stream.local_addr() {
            Ok(local) => tcp.serve(stream, peer, local).await,
            Err(error) => tracing::debug!(%peer, %error, "the visitor has left"),
        }
    }

    /// Waits for a handshake, within the bounds. `None` when the connection is over.
    async fn bounded<T>(
        &self,
        peer: SocketAddr,
        opening: impl Future<Output = Result<Option<T>, TlsError>> + Send,
        drained: impl Future<Output = ()>,
    ) -> Option<T> {
        let handshake = match self.handshakes.enter(peer.ip(), Instant::now()) {
            Ok(handshake) => handshake,
            Err(crowded) => {
                self.floods.handshake(peer, full(crowded));
                return None;
            }
        };
        let opened = tokio::select! {
            biased;
            // Boxed: a connection that is being served has no room for the state of its handshake.
            opened = Box::pin(opening) => opened,
            () = handshake.displaced() => {
                self.floods.handshake(peer, "replaced by newer connections".to_owned());
                return None;
            }
            () = drained => return None,
        };
        match opened {
            Ok(opened) => opened,
            // Visitors and health checks may leave at any time.
            Err(error) if matches!(error.cause(), Cause::Closed(_)) => {
                tracing::debug!(%peer, %error, "HTTPS connection ended");
                None
            }
            Err(error) => {
                self.floods.handshake(peer, error.to_string());
                None
            }
        }
    }

    /// `None` when the connection is over.
    async fn open(
        &self,
        stream: Stream,
        directory: &Directory,
    ) -> Result<Option<Opened>, TlsError> {
        let limit = self.time_limit();
        let (opening, stream) = self.tls.open(stream, limit).await?;
        match opening {
            Opening::Tls(hello) => {
                if let Some(host) = hello.server_name()
                    && let Some(tunnel) = directory.passed_through(host)
                {
                    return Ok(Some(Opened::Closed(stream, host.into(), tunnel)));
                }
                let secured = self.tls.accept(stream, &hello, limit).await?;
                let asked_for = hello.server_name().map(Into::into);
                Ok(secured.map(|secured| Opened::Secured(secured, asked_for)))
            }
            Opening::ClearText => Ok(Some(Opened::ClearText(stream))),
            Opening::Nothing => Ok(None),
        }
    }

    /// Ends TLS at the port of a tunnel. `None` when the connection is over.
    async fn open_for(&self, stream: Stream, tunnel: &Tunnel) -> Result<Option<Stream>, TlsError> {
        let limit = self.time_limit();
        let (opening, stream) = self.tls.open(stream, limit).await?;
        match opening {
            Opening::Tls(hello) => {
                // A host that the tunnel does not hold belongs to somebody else, also when the tunnel's own certificate
                // has it among its names.
                let asked_for = hello.server_name();
                let hosts = tunnel.definition.hosts.iter();
                let hosts = hosts.filter_map(|host| match asked_for {
                    Some(asked_for) => host.matches(asked_for).then(|| asked_for.to_owned()),
                    None => Some(host.to_string()),
                });
                let secured = self.tls.accept_for(hosts, stream, &hello, limit).await;
                secured.map(Some)
            }
            Opening::ClearText => Err(TlsError::new(Peer::Visitor, Cause::ClearText)),
            Opening::Nothing => Ok(None),
        }
    }

    fn time_limit(&self) -> TimeLimit {
        TimeLimit::of(self.config.load().settings.timeouts.visitor_handshake)
    }

    /// The state of the port.
    pub(super) fn status(&self, issued: Option<&Issued>) -> HttpsStatus {
        let seconds = |time: SystemTime| {
            let since = time.duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(0, |since| since.as_secs())
        };
        let certificates = self.certificates().list();
        HttpsStatus {
            addr: self.addr.to_string(),
            certificates: { certificates.iter() }
                .map(|certificate| CertificateStatus {
                    names: certificate.names().collect(),
                    expires: seconds(certificate.expires()),
                })
                .collect(),
            acme: issued.map(Issued::status).unwrap_or_default(),
            acme_orders: issued.map(Issued::issuance),
            handshakes: self.handshakes.count(),
            handshakes_failed: self.floods.stats().handshakes,
        }
    }
}

fn full(Crowded { limit }: Crowded) -> String {
    format!(
        "{limit} handshakes of this address are running (`server.limits.max_handshakes_per_address`)"
    )
}

impl ServedHosts for ConnectionHosts {
    fn contains(&self, host: &str) -> bool {
        // A browser may take the connection of a wildcard for it.
        if self.directory.passes_through(host) {
            return false;
        }
        let Some(asked_for) = &self.asked_for else {
            return true;
        };
        asked_for.eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host))
            || self.certificate.is_for(host)
    }
}
