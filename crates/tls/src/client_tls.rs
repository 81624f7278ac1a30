//! TLS at the client of a tunnel: which server it trusts, and its own certificate.

use std::{fmt, sync::Arc};

use rustls::{ClientConfig, client::Resumption, version::TLS13};

use crate::{
    identity::Identity,
    name::TlsName,
    setup::SetupError,
    trust::{Trust, client_config},
};

/// TLS at the client of a tunnel. Cheap to clone; two values are equal if trust, name and certificate are.
#[derive(Clone)]
pub struct ClientTls {
    trust: Trust,
    server_name: Option<TlsName>,
    identity: Option<Identity>,
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// A client that verifies the server's certificate by `trust`, for `server_name` or else for the host that it connects
    /// to, and that has a certificate of its own if the server asks for one.
    ///
    /// # Errors
    /// [`SetupError`].
    ///
    /// # Cost
    /// That of [`client_config`].
    pub fn new(
        trust: Trust,
        server_name: Option<TlsName>,
        identity: Option<Identity>,
    ) -> Result<Self, SetupError> {
        let mut config = client_config(&trust, identity.as_ref(), &[&TLS13])?;
        config.resumption = Resumption::disabled();
        Ok(Self {
            trust,
            server_name,
            identity,
            config: config.into(),
        })
    }

    /// Whether the client has a certificate of its own.
    #[must_use]
    pub const fn has_certificate(&self) -> bool {
        self.identity.is_some()
    }

    /// The name that the server's certificate must be valid for, if it is not that of the host.
    #[must_use]
    pub const fn server_name(&self) -> Option<&TlsName> {
        self.server_name.as_ref()
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }
}

impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.trust, &self.server_name, &self.identity)
            == (&other.trust, &other.server_name, &other.identity)
    }
}

impl Eq for ClientTls {}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("trust", &self.trust)
            .field("server_name", &self.server_name)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
