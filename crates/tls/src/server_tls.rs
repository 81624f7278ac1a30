//! TLS at the server of a tunnel: its certificate, and whether clients need one.

use std::{fmt, sync::Arc};

use adit_net::Stream;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use crate::{
    authority::client_id, identity::Identity, roots::Roots, setup::SetupError, trust::ALPN,
};

/// Which certificates clients have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    #[default]
    None,
    /// Every client has one of these CAs (mutual TLS).
    Required(Roots),
    /// A client may have one of the server's own CA, which is its credential.
    OfOwnCa(Roots),
}

impl From<Option<Roots>> for ClientCertificates {
    /// Certificates of these CAs are required, if there are any.
    fn from(roots: Option<Roots>) -> Self {
        roots.map_or(Self::None, Self::Required)
    }
}

/// TLS at the server of a tunnel. Cheap to clone; two values are equal if their certificates are.
#[derive(Clone)]
pub struct ServerTls {
    identity: Identity,
    clients: ClientCertificates,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// A server with this certificate.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(identity: Identity, clients: ClientCertificates) -> Result<Self, SetupError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?;
        let verifier = |roots: &Roots| {
            let store = roots.store()?;
            Ok::<_, SetupError>(WebPkiClientVerifier::builder_with_provider(store, provider))
        };
        let verifier = match &clients {
            ClientCertificates::None => None,
            ClientCertificates::Required(roots) => Some(verifier(roots)?),
            ClientCertificates::OfOwnCa(roots) => Some(verifier(roots)?.allow_unauthenticated()),
        };
        let builder = match verifier.map(ClientCertVerifierBuilder::build) {
            Some(verifier) => builder.with_client_cert_verifier(
                verifier.map_err(|error| SetupError::ClientCa(error.to_string()))?,
            ),
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
            clients,
            config: config.into(),
        })
    }

    /// The id in the certificate of the client at the other end of an accepted stream, if it is of the server's own CA.
    #[must_use]
    pub fn client_id(&self, stream: &Stream) -> Option<String> {
        match self.clients {
            ClientCertificates::OfOwnCa(_) => client_id(stream.peer_certificate()?),
            ClientCertificates::None | ClientCertificates::Required(_) => None,
        }
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        (&self.identity, &self.clients) == (&other.identity, &other.clients)
    }
}

impl Eq for ServerTls {}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("identity", &self.identity)
            .field("clients", &self.clients)
            .finish_non_exhaustive()
    }
}
