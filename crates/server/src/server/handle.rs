//! The handle on a running server.

use std::sync::Arc;

use adit_codec::ProtocolType;
use adit_net::HostNetwork;
use adit_router::Query;
use tokio::task;

use super::inner::Inner;
use crate::{
    directory::Target,
    names::Name,
    status::{BanStatus, RouteStatus, Status},
};

/// Cheaply cloneable handle for status and routes; does not keep the server running.
#[derive(Clone)]
pub struct ServerHandle {
    pub(super) inner: Arc<Inner>,
}

impl ServerHandle {
    /// The number of running requests by tunnel, without zeros; requests that clients opened are under `upstreams`. UDP
    /// flows are not counted: they do not end by themselves.
    pub fn running(&self) -> Vec<(String, usize)> {
        let tunnels = self.inner.directory.tunnels().into_iter();
        let tunnels = tunnels.filter(|(tunnel, _)| tunnel.definition.protocol != ProtocolType::Udp);
        let mut running: Vec<_> = tunnels
            .map(|(tunnel, _)| (tunnel.name.to_string(), tunnel.running()))
            .collect();
        running.push(("upstreams".to_owned(), self.inner.upstreams.in_flight()));
        running.retain(|(_, running)| *running > 0);
        running
    }

    /// The state of the server. Cost: proportional to the links and open requests.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Takes a name from the user that owns it, and with a group all names of the group. Returns the number of released
    /// names.
    ///
    /// # Errors
    /// A text when something uses the name.
    pub async fn release(&self, name: Name) -> Result<usize, String> {
        self.inner.announcer.release(name).await
    }

    /// Which certificate a visitor of this host is shown.
    fn certificate(&self, host: &str) -> String {
        let Some(https) = &self.inner.https else {
            return "HTTPS is off (`server.https`)".to_owned();
        };
        match https.certificates().of_host(host) {
            Some(certificate) => {
                let names: Vec<_> = certificate.names().collect();
                format!("the certificate is that of {}", names.join(", "))
            }
            None => format!(
                "no certificate covers {host}: visitors get the default certificate, or the handshake fails"
            ),
        }
    }

    /// Reads the stored credentials of clients now instead of at the next look. When it returns, they are in force.
    pub async fn read_identities(&self) {
        let identities = self.inner.identities.clone();
        if let Err(error) = task::spawn_blocking(move || identities.look()).await {
            tracing::error!(%error, "the credentials of clients were not read");
        }
    }

    /// The banned addresses of visitors.
    pub fn bans(&self) -> Vec<BanStatus> {
        self.inner
            .access
            .bans()
            .into_iter()
            .map(Into::into)
            .collect()
    }

    /// Ends the bans of an address, or all bans. Returns how many.
    pub fn clear_bans(&self, network: Option<HostNetwork>) -> usize {
        self.inner.access.clear_bans(network)
    }

    /// The rule that a URL matches, and why the others do not match.
    pub fn explain(&self, url: &str) -> Result<RouteStatus, String> {
        let uri: http::Uri = url
            .parse()
            .map_err(|error| format!("invalid URL `{url}`: {error}"))?;
        let host = uri.authority().map(http::uri::Authority::as_str);
        let snapshot = self.inner.directory.snapshot();
        let is_https = uri.scheme_str() == Some("https");
        let name = uri.host().unwrap_or_default();
        let passes_through = is_https && self.inner.directory.passes_through(name);
        let explanation = if passes_through {
            snapshot.tls_routes.explain(&Query::new(host, "/"))
        } else {
            snapshot.routes.explain(&Query::new(host, uri.path()))
        };
        let chosen = explanation.chosen().map(|chosen| &chosen.rule.target);
        let (upstream, tunnel) = match chosen {
            Some(Target::Upstream(to)) => (Some(to.name().to_string()), None),
            other => (None, other.map(|target| target.name().to_owned())),
        };
        let certificate = match (is_https, passes_through) {
            (_, true) => Some(
                "the certificate is that of the service: the TLS of visitors is passed through"
                    .to_owned(),
            ),
            (true, false) => Some(self.certificate(name)),
            (false, false) => None,
        };
        let mut explanation = explanation.to_string();
        if let Some(certificate) = &certificate {
            explanation = format!("{}\n{certificate}\n", explanation.trim_end());
        }
        Ok(RouteStatus {
            url: url.to_owned(),
            revision: snapshot.revision,
            tunnel,
            upstream,
            explanation,
        })
    }
}
