//! TLS at the server of a tunnel: its certificate, and whether clients need one.

use std::{fmt, sync::Arc};

use adit_net::Stream;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::UnixTime,
    server::danger::ClientCertVerifier,
    server::{ClientCertVerifierBuilder, NoServerSessionStorage, WebPkiClientVerifier},
    sign::SingleCertAndKey,
    version::TLS13,
};

use crate::{
    authority::client_id,
    client_certificate::{ClientCertificate, ProvedCertificate},
    fingerprint::Fingerprint,
    identity::Identity,
    roots::Roots,
    setup::SetupError,
    trust::ALPN,
};

/// Which certificates clients have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    #[default]
    None,
    /// Every client has one of these CAs (mutual TLS).
    Required(Roots),
    /// A client may have one of these CAs.
    Optional(Roots),
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
    /// Verifiers of each CA of clients alone.
    cas: Vec<(Fingerprint, Arc<dyn ClientCertVerifier>)>,
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
            let provider = provider.clone();
            Ok::<_, SetupError>(WebPkiClientVerifier::builder_with_provider(store, provider))
        };
        let built = |builder: ClientCertVerifierBuilder| {
            builder
                .build()
                .map_err(|error| SetupError::ClientCa(error.to_string()))
        };
        let mut cas = Vec::new();
        if let ClientCertificates::Required(roots) | ClientCertificates::Optional(roots) = &clients
        {
            for (fingerprint, root) in roots.each() {
                cas.push((fingerprint, built(verifier(&root)?)?));
            }
        }
        let verifier = match &clients {
            ClientCertificates::None => None,
            ClientCertificates::Required(roots) => Some(verifier(roots)?),
            ClientCertificates::Optional(roots) | ClientCertificates::OfOwnCa(roots) => {
                Some(verifier(roots)?.allow_unauthenticated())
            }
        };
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(built(verifier)?),
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
            cas,
            config: config.into(),
        })
    }

    /// Whether every client needs a certificate (mutual TLS).
    #[must_use]
    pub const fn requires_client_certificates(&self) -> bool {
        matches!(self.clients, ClientCertificates::Required(_))
    }

    /// Whether clients may have a certificate of another CA than the server's own, and do not have to.
    #[must_use]
    pub const fn has_optional_client_certificates(&self) -> bool {
        matches!(self.clients, ClientCertificates::Optional(_))
    }

    /// The CAs of clients, besides the server's own.
    pub fn client_cas(&self) -> impl Iterator<Item = Fingerprint> {
        self.cas.iter().map(|(fingerprint, _)| *fingerprint)
    }

    /// The certificate of the client at the other end of an accepted stream.
    ///
    /// # Cost
    /// With several CAs of clients, the chain is verified again by each until one accepts it.
    #[must_use]
    pub fn proved(&self, stream: &Stream) -> Option<ProvedCertificate> {
        let (own, others) = stream.peer_certificates().split_first()?;
        if matches!(self.clients, ClientCertificates::OfOwnCa(_)) {
            return client_id(own).map(ProvedCertificate::OwnCa);
        }
        let ca = match &self.cas[..] {
            [(only, _)] => *only,
            cas => {
                let now = UnixTime::now();
                let mut cas = cas.iter();
                let verified = cas.find(|(_, ca)| ca.verify_client_cert(own, others, now).is_ok());
                verified?.0
            }
        };
        ClientCertificate::read(own, ca).map(ProvedCertificate::ClientCa)
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
