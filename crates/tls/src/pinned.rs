//! Trust in the one certificate that has a given fingerprint.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error as RustlsError, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;

use crate::{
    authority::{CA_NAME, SERVER_NAME},
    fingerprint::Fingerprint,
    own_ca::own_ca,
};

/// None of the certificates that the peer sends has the expected fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("expected a certificate with the fingerprint {expected}, found {found}")]
pub struct WrongFingerprint {
    /// The fingerprint that was given.
    pub expected: Fingerprint,
    /// The fingerprint of the CA of the peer: of the last certificate that it sends, or of a server's own CA.
    pub found: Fingerprint,
}

/// Trusts the one certificate with a fingerprint: the peer sends it together with its own, or it is its own. Everything
/// else is verified as with any other CA: signatures, times and the name. The name may also be [`SERVER_NAME`] if the CA is
/// a server's own, which certifies no other server.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let mut sent = intermediates.iter().chain([end_entity]);
        let Some(pinned) = sent.find(|sent| Fingerprint::of(sent) == self.fingerprint) else {
            let wrong = WrongFingerprint {
                expected: self.fingerprint,
                found: own_ca(end_entity, intermediates).map_or_else(
                    || Fingerprint::of(intermediates.last().unwrap_or(end_entity)),
                    |own_ca| own_ca.fingerprint,
                ),
            };
            return Err(CertificateError::Other(OtherError(Arc::new(wrong))).into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        let is_own = roots
            .roots
            .iter()
            .any(|root| is_named_as_own(&root.subject));
        let verifier =
            WebPkiServerVerifier::builder_with_provider(roots.into(), self.provider.clone())
                .build()
                .map_err(|error| RustlsError::General(error.to_string()))?;
        let verify = |name: &ServerName<'_>| {
            verifier.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
        };
        verify(server_name).or_else(|error| match ServerName::try_from(SERVER_NAME) {
            Ok(name) if is_own && is_wrong_name(&error) => verify(&name).map_err(|_| error),
            _ => Err(error),
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Whether a subject, in DER, is that of a server's own CA.
fn is_named_as_own(subject: &[u8]) -> bool {
    let name = CA_NAME.as_bytes();
    subject.windows(name.len()).any(|part| part == name)
}

fn is_wrong_name(error: &RustlsError) -> bool {
    matches!(
        error,
        RustlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }
        )
    )
}
