//! A certificate with its private key.

use std::{fmt, sync::Arc};

use rustls::{
    Error as RustlsError,
    crypto::aws_lc_rs,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{Error as PemError, PemObject},
    },
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use thiserror::Error;

use crate::fingerprint::Fingerprint;

/// A certificate, the certificates of its CAs as far as they are sent with it, and its private key. Cheap to clone.
///
/// Two identities are equal if their certificates are: the key belongs to the certificate, which is checked.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

/// Why a certificate and its key cannot be used. No text contains a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IdentityError {
    /// The file contains no certificate.
    #[error("no certificate in PEM found (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate,
    /// The file is not valid PEM, or a certificate in it is invalid.
    #[error("invalid certificate number {number}: {problem}")]
    Certificate {
        /// The number of the certificate in the file, from 1.
        number: usize,
        /// What is wrong with the certificate.
        problem: String,
    },
    /// The file contains no key that can be read.
    #[error(
        "no private key in PEM found (`-----BEGIN PRIVATE KEY-----`); an encrypted key cannot be used"
    )]
    NoKey,
    /// The key is invalid, or of a kind that is not supported.
    #[error("the private key cannot be used; expected RSA, ECDSA or Ed25519 in PKCS#8")]
    Key,
    /// The key is the one of another certificate.
    #[error("the private key does not belong to the first certificate of the certificate file")]
    OtherKey,
}

impl IdentityError {
    /// Whether the file of the key is the cause, and not that of the certificate.
    #[must_use]
    pub const fn is_of_key(&self) -> bool {
        matches!(self, Self::NoKey | Self::Key | Self::OtherKey)
    }
}

impl Identity {
    /// Reads the certificates of one PEM file, that of this end first, and the key of another one. Both may be one file.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        let mut chain = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(certificates) {
            let invalid = |problem: String| IdentityError::Certificate {
                number: chain.len() + 1,
                problem,
            };
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            ParsedCertificate::try_from(&certificate)
                .map_err(|error| invalid(error.to_string()))?;
            chain.push(certificate);
        }
        if chain.is_empty() {
            return Err(IdentityError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            PemError::NoItemsFound => IdentityError::NoKey,
            _ => IdentityError::Key,
        })?;
        match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(certified) => Ok(Self(Arc::new(certified))),
            Err(RustlsError::InconsistentKeys(_)) => Err(IdentityError::OtherKey),
            Err(_) => Err(IdentityError::Key),
        }
    }

    /// The certificates and the key, for a configuration of rustls.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        self.0.clone()
    }
}

impl From<Arc<CertifiedKey>> for Identity {
    /// Takes a certificate with the key that it was issued for, without a check. The certificate may be one that verifiers do
    /// not accept, such as the answer to a challenge of a CA.
    fn from(certified: Arc<CertifiedKey>) -> Self {
        Self(certified)
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.0.cert.first().map(Fingerprint::of);
        f.debug_struct("Identity")
            .field("certificate", &own)
            .finish_non_exhaustive()
    }
}
