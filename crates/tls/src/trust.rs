//! How a client verifies the certificate of its peer.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, SignatureScheme,
    SupportedProtocolVersion,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::SingleCertAndKey,
};
use rustls_platform_verifier::Verifier;

use crate::{
    fingerprint::Fingerprint, identity::Identity, own_ca::NamesOwnCa, pinned::Pinned, roots::Roots,
    setup::SetupError,
};

/// The protocol that the peer must select in the handshake: ALPN is the only way to negotiate HTTP/2 over TLS (RFC 9113,
/// 3.2).
pub(crate) const ALPN: &[u8] = b"h2";

/// How the certificate of the peer is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The certificate is verified against the trust store of the system.
    #[default]
    System,
    /// The certificate is verified against these certificates alone.
    Roots(Roots),
    /// The certificate is verified against the one with this fingerprint, which the peer sends.
    Pinned(Fingerprint),
    /// The certificate is not verified (insecure): an attacker between the two ends can read and change everything.
    Anyone,
}

/// The configuration of a client that offers HTTP/2, verifies its peer by `trust`, and authenticates with `identity` if
/// the peer asks for a certificate.
///
/// # Errors
/// [`SetupError`]: the system has no trust store, or a root cannot be used.
///
/// # Cost
/// [`Trust::System`] reads the trust store, some hundred kilobytes.
pub fn client_config(
    trust: &Trust,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)?
        .dangerous()
        .with_custom_certificate_verifier(verifier(trust, provider)?);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn verifier(
    trust: &Trust,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, RustlsError> {
    Ok(match trust {
        Trust::System => Arc::new(NamesOwnCa(Arc::new(Verifier::new(provider)?))),
        Trust::Roots(roots) => {
            let verifier = WebPkiServerVerifier::builder_with_provider(roots.store()?, provider);
            let verifier = verifier.build();
            Arc::new(NamesOwnCa(
                verifier.map_err(|error| RustlsError::General(error.to_string()))?,
            ))
        }
        Trust::Pinned(fingerprint) => Arc::new(Pinned {
            fingerprint: *fingerprint,
            provider,
        }),
        Trust::Anyone => Arc::new(Anyone(provider)),
    })
}

/// Accepts every certificate. Signatures are not verified either: they would prove possession of the key of a certificate
/// that anyone can make.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
