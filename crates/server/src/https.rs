//! The port for HTTPS visitors: handshakes, bounded in number and time, and the certificates in force.

use std::{future::Future, net::SocketAddr, sync::Arc, time::SystemTime};

use adit_ingress::{Http, ServedHosts};
use adit_net::Stream;
use adit_tls::{
    Cause, Certificates, HostCertificate, Opening, Secured, SetupError, TimeLimit, TlsError,
    VisitorTls,
};

use crate::{
    configuration::InForce,
    floods::Floods,
    newcomers::{Crowded, Newcomers},
    settings::{HttpsSettings, Limits, Settings},
    status::{CertificateStatus, HttpsStatus},
};

/// The port for HTTPS visitors.
pub(crate) struct Https {
    addr: SocketAddr,
    tls: VisitorTls,
    /// Connections whose handshakes have not ended.
    handshakes: Arc<Newcomers>,
    floods: Arc<Floods>,
    config: Arc<InForce>,
}

/// A connection that has been opened.
enum Opened {
    Secured(Secured, Option<Box<str>>),
    ClearText(Stream),
}

/// The hosts of one connection over TLS (P-14.4).
struct ConnectionHosts {
    certificate: Arc<HostCertificate>,
    /// The host that the visitor has asked for. Without one it was shown the default certificate, which is for every host.
    asked_for: Option<Box<str>>,
}

impl Https {
    /// A port at this address, which the caller listens on.
    ///
    /// # Errors
    /// [`SetupError`].
    pub(crate) fn new(
        addr: SocketAddr,
        settings: &Settings,
        https: &HttpsSettings,
        floods: Arc<Floods>,
        config: Arc<InForce>,
    ) -> Result<Arc<Self>, SetupError> {
        let limits = &settings.limits;
        let port = Self {
            addr,
            tls: VisitorTls::new(Certificates::new(), settings.threads)?,
            handshakes: Newcomers::new(limits.max_handshakes, limits.max_handshakes_per_address),
            floods,
            config,
        };
        port.follow(https, limits);
        Ok(Arc::new(port))
    }

    /// Applies settings to later handshakes.
    pub(crate) fn follow(&self, https: &HttpsSettings, limits: &Limits) {
        self.handshakes
            .set_bounds(limits.max_handshakes, limits.max_handshakes_per_address);
        let certificates = self.certificates();
        certificates.give(&https.certificates, https.default.clone());
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
    pub(crate) const fn certificates(&self) -> &Certificates {
        self.tls.certificates()
    }

    /// The address for visitors.
    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves one connection to its end, beginning with the handshake. When `drained` is ready, a handshake ends at once.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection and cancels its requests.
    pub(crate) async fn serve(
        &self,
        stream: Stream,
        peer: SocketAddr,
        http: Arc<Http>,
        drained: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut drained = Box::pin(drained);
        let opened = {
            let handshake = match self.handshakes.enter(peer.ip(), std::time::Instant::now()) {
                Ok(handshake) => handshake,
                Err(crowded) => return self.floods.handshake(peer, full(crowded)),
            };
            tokio::select! {
                biased;
                // Boxed: a connection that is being served has no room for the state of its handshake.
                opened = Box::pin(self.open(stream)) => opened,
                () = handshake.displaced() => {
                    return self.floods.handshake(peer, "replaced by newer connections".to_owned());
                }
                () = drained.as_mut() => return,
            }
        };
        match opened {
            Ok(Some(Opened::Secured(secured, asked_for))) => {
                let Secured {
                    stream,
                    certificate,
                } = secured;
                let hosts = ConnectionHosts {
                    certificate,
                    asked_for,
                };
                http.serve_hosts(stream, peer, Arc::new(hosts), drained)
                    .await;
            }
            Ok(Some(Opened::ClearText(stream))) => {
                http.refuse_clear_text(stream, peer, drained).await;
            }
            Ok(None) => {}
            // Visitors and health checks may leave at any time.
            Err(error) if matches!(error.cause(), Cause::Closed(_)) => {
                tracing::debug!(%peer, %error, "HTTPS connection ended");
            }
            Err(error) => self.floods.handshake(peer, error.to_string()),
        }
    }

    /// `None` when the connection is over.
    async fn open(&self, stream: Stream) -> Result<Option<Opened>, TlsError> {
        let within = self.config.load().settings.timeouts.visitor_handshake;
        let limit = TimeLimit::of(within);
        let (opening, stream) = self.tls.open(stream, limit).await?;
        match opening {
            Opening::Tls(hello) => {
                let secured = self.tls.accept(stream, &hello, limit).await?;
                let asked_for = hello.server_name().map(Into::into);
                Ok(secured.map(|secured| Opened::Secured(secured, asked_for)))
            }
            Opening::ClearText => Ok(Some(Opened::ClearText(stream))),
            Opening::Nothing => Ok(None),
        }
    }

    /// The state of the port.
    pub(crate) fn status(&self) -> HttpsStatus {
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
            handshakes: self.handshakes.count(),
            handshakes_failed: self.floods.stats().handshakes,
        }
    }
}

fn full(crowded: Crowded) -> String {
    match crowded {
        Crowded::InAll { limit } => {
            format!("{limit} handshakes are running (`server.limits.max_handshakes`)")
        }
        Crowded::OfAddress { limit } => format!(
            "{limit} handshakes of this address are running (`server.limits.max_handshakes_per_address`)"
        ),
    }
}

impl ServedHosts for ConnectionHosts {
    fn contains(&self, host: &str) -> bool {
        let Some(asked_for) = &self.asked_for else {
            return true;
        };
        asked_for.eq_ignore_ascii_case(host.strip_suffix('.').unwrap_or(host))
            || self.certificate.is_for(host)
    }
}
