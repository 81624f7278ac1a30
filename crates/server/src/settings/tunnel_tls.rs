//! TLS on the connections of clients.

use std::{net::SocketAddr, time::Duration};

use adit_tls::{ServerTls, TlsName};

/// TLS on the connections of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TunnelTls {
    /// TLS with a certificate of the server's own CA; clear text if clients can connect from this machine only.
    #[default]
    Auto,
    /// Clear text.
    Off,
    /// TLS with a certificate of the server's own CA, on every address.
    OwnCa(OwnCaSettings),
    /// TLS with this certificate.
    Certificate(ServerTls),
}

/// A server's own CA, in its state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCaSettings {
    /// Names and addresses in the certificate of the server, besides those that it has anyway.
    pub names: Vec<TlsName>,
    /// How long a certificate of the server is valid. It is replaced after two thirds of this time.
    pub certificate_lifetime: Duration,
    /// How long a CA is valid. It is replaced after two thirds of this time; clients that trust it continue to trust the
    /// server until it expires.
    pub ca_lifetime: Duration,
}

impl Default for OwnCaSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            names: Vec::new(),
            certificate_lifetime: DAY * 90,
            ca_lifetime: DAY * 365 * 10,
        }
    }
}

impl TunnelTls {
    /// Whether connections to this address are in clear text.
    #[must_use]
    pub fn is_off(&self, addr: SocketAddr) -> bool {
        match self {
            Self::Auto => addr.ip().is_loopback(),
            Self::Off => true,
            Self::OwnCa(_) | Self::Certificate(_) => false,
        }
    }

    /// The fingerprints of the CAs of clients, besides the server's own.
    #[must_use]
    pub fn client_cas(&self) -> Vec<[u8; 32]> {
        match self {
            Self::Certificate(tls) => tls.client_cas().map(|one| *one.bytes()).collect(),
            Self::Auto | Self::Off | Self::OwnCa(_) => Vec::new(),
        }
    }
}
