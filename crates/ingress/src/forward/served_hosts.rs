//! Which requests a connection may carry.

use std::{fmt, sync::Arc};

use adit_link::{Failure, Reason};
use http::uri::Authority;

/// The hosts that a connection over TLS may carry requests for.
pub trait ServedHosts: Send + Sync + 'static {
    /// Whether the server has authenticated itself for this host, which has no port, on the connection.
    fn contains(&self, host: &str) -> bool;
}

/// Which requests a connection may carry.
#[derive(Clone, Default)]
pub(crate) enum Admitted {
    /// All requests.
    #[default]
    All,
    /// Requests for these hosts (P-14.4).
    Hosts(Arc<dyn ServedHosts>),
    /// None: the connection is in clear text, and its port is for TLS (P-14.2).
    None,
}

impl Admitted {
    /// Rejects a request for a host of another connection.
    pub(crate) fn check(&self, authority: Option<&Authority>) -> Result<(), Failure> {
        match self {
            Self::All => Ok(()),
            Self::Hosts(hosts) => match authority.map(Authority::host) {
                Some(host) if !hosts.contains(host) => Err(Failure::new(
                    Reason::Misdirected,
                    "the certificate of this connection is not for the host of the request",
                )),
                _ => Ok(()),
            },
            Self::None => Err(Failure::new(
                Reason::BadRequest,
                "the request was sent in clear text to a port for HTTPS; use https://",
            )),
        }
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::All => "All",
            Self::Hosts(_) => "Hosts",
            Self::None => "None",
        })
    }
}
