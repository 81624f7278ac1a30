//! Trusted root certificates from a PEM file.

use std::{fmt, sync::Arc};

use rustls::{
    Error as RustlsError, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use thiserror::Error;

use crate::fingerprint::Fingerprint;

/// Trusted root certificates, at least one. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Roots(Arc<[Box<[u8]>]>);

/// Why trusted roots cannot be read from a PEM file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RootsError {
    /// The file contains no certificate.
    #[error("no certificate in PEM found (`-----BEGIN CERTIFICATE-----`)")]
    Empty,
    /// The file is not valid PEM.
    #[error("invalid PEM: {0}")]
    Pem(String),
    /// A certificate is invalid.
    #[error("invalid certificate number {number}: {problem}")]
    Certificate {
        /// The number of the certificate in the file, from 1.
        number: usize,
        /// What is wrong with the certificate.
        problem: String,
    },
}

impl Roots {
    /// Reads the certificates of a PEM file; other sections are skipped.
    ///
    /// # Errors
    /// [`RootsError`]: the file has no certificate, or an invalid one.
    pub fn from_pem(pem: &[u8]) -> Result<Self, RootsError> {
        let mut store = RootCertStore::empty();
        let mut roots = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| RootsError::Pem(error.to_string()))?;
            roots.push(certificate.as_ref().into());
            store
                .add(certificate)
                .map_err(|error| RootsError::Certificate {
                    number: roots.len(),
                    problem: error.to_string(),
                })?;
        }
        if roots.is_empty() {
            return Err(RootsError::Empty);
        }
        Ok(Self(roots.into()))
    }

    /// The fingerprints of the certificates, in the order of the file.
    pub fn fingerprints(&self) -> impl Iterator<Item = Fingerprint> {
        let certificates = self.0.iter();
        certificates.map(|one| Fingerprint::of(&CertificateDer::from(&**one)))
    }

    /// Each of the certificates alone, with its fingerprint.
    pub(crate) fn each(&self) -> impl Iterator<Item = (Fingerprint, Self)> {
        let alone = self.0.iter().map(|one| Self([one.clone()].into()));
        self.fingerprints().zip(alone)
    }

    /// The roots as a verifier uses them.
    pub(crate) fn store(&self) -> Result<Arc<RootCertStore>, RustlsError> {
        let mut store = RootCertStore::empty();
        for root in self.0.iter() {
            store.add(CertificateDer::from(&root[..]))?;
        }
        Ok(store.into())
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.0.len())
    }
}
