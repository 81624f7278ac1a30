//! Finds out that an unknown issuer is a server's own CA, for the error.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error as RustlsError, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use thiserror::Error;

use crate::{authority::SERVER_NAME, fingerprint::Fingerprint};

/// The issuer of the server's certificate is the server's own CA, which this client does not trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the issuer is the server's own CA, with the fingerprint {fingerprint}")]
pub struct OwnCa {
    /// The fingerprint of the CA's newest certificate. Nothing proves that it is the server's and not an attacker's.
    pub fingerprint: Fingerprint,
}

/// Verifies as `inner` does, with another error for a server's own CA.
#[derive(Debug)]
pub(crate) struct NamesOwnCa(pub(crate) Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for NamesOwnCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        let inner = &self.0;
        let verified =
            inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match (own_ca(end_entity, intermediates), &error) {
            (
                Some(own_ca),
                // The verifier of a platform has errors of its own for an unknown issuer.
                RustlsError::InvalidCertificate(
                    CertificateError::UnknownIssuer
                    | CertificateError::BadSignature
                    | CertificateError::Other(_),
                ),
            ) => CertificateError::Other(OtherError(Arc::new(own_ca))).into(),
            _ => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The CA of these certificates, if the first one is for [`SERVER_NAME`].
pub(crate) fn own_ca(
    end_entity: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
) -> Option<OwnCa> {
    let name = ServerName::try_from(SERVER_NAME).ok()?;
    let parsed = ParsedCertificate::try_from(end_entity).ok()?;
    verify_server_name(&parsed, &name).ok()?;
    // A server sends the newest generation of its CA next to its own certificate.
    let fingerprint = Fingerprint::of(others.first()?);
    Some(OwnCa { fingerprint })
}
