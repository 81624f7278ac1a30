//! HTTPS for visitors.

use std::{net::SocketAddr, sync::Arc};

use adit_acme::Settings as AcmeSettings;
use adit_tls::HostCertificate;

/// The port for HTTPS visitors, and its certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpsSettings {
    /// Address for HTTPS visitors (`https.bind_port`). Port 0: any free one.
    pub addr: SocketAddr,
    /// The certificates. The host that a visitor asks for selects one by the names in it.
    pub certificates: Vec<Arc<HostCertificate>>,
    /// One of them, for visitors that name no host, or one that no certificate is for. Without it their handshakes fail.
    pub default: Option<Arc<HostCertificate>>,
    /// Certificates are obtained from this CA for the hosts of tunnels and rules that no certificate above is for.
    pub acme: Option<Arc<AcmeSettings>>,
    /// Which of these hosts.
    pub acme_hosts: AcmeHosts,
}

/// The hosts for which certificates are obtained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AcmeHosts {
    /// All hosts of tunnels and rules.
    #[default]
    All,
    /// Hosts of tunnels that request it (P-14.10).
    Asked,
}
