//! TLS at the server of a tunnel: its certificate, and whether clients need one.

use std::{fmt, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use crate::{identity::Identity, roots::Roots, setup::SetupError, trust::ALPN};

/// TLS at the server of a tunnel. Cheap to clone; two values are equal if their certificates are.
#[derive(Clone)]
pub struct ServerTls {
    identity: Identity,
    client_ca: Option<Roots>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// A server with this certificate. With `client_ca` every client must have a certificate that one of these CAs has
    /// signed (mutual TLS).
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(identity: Identity, client_ca: Option<Roots>) -> Result<Self, SetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?;
        let builder = match &client_ca {
            Some(roots) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.store()?, provider).build();
                let verifier = verifier.map_err(|error| SetupError::ClientCa(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            None => builder.with_no_client_auth(),
        };
        let resolver = SingleCertAndKey::from(identity.certified());
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would keep a certificate that has been replaced or revoked (P-1.17).
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self {
            identity,
            client_ca,
            config: config.into(),
        })
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.identity, &self.client_ca) == (&other.identity, &other.client_ca)
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("identity", &self.identity)
            .field("client_ca", &self.client_ca)
            .finish_non_exhaustive()
    }
}
