//! A certificate that a CA has issued, with its key.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use instant_acme::CertificateIdentifier;
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::ParsedCertificate,
    sign::CertifiedKey,
};
use secrecy::{ExposeSecret, SecretString};
use thiserror::Error;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{name::CertName, schedule::Lifetime};

/// A certificate, its chain and its key. Cheap to clone; `Debug` has no part of the key.
#[derive(Clone)]
pub struct Certificate(Arc<Parts>);

struct Parts {
    pem: SecretString,
    key: Arc<CertifiedKey>,
    lifetime: Lifetime,
    renewal_id: Option<CertificateIdentifier<'static>>,
}

/// Why a certificate cannot be used. No text has a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// The certificate is missing or invalid.
    #[error("no valid certificate in PEM found: {0}")]
    Certificate(String),
    /// The key is missing, or cannot be used.
    #[error("no private key in PEM found that can be used")]
    Key,
    /// The key is the one of another certificate.
    #[error("the private key does not belong to the certificate")]
    OtherKey,
    /// The certificate is for another name.
    #[error("the certificate is not valid for {0}")]
    OtherName(CertName),
}

impl Certificate {
    /// Reads the key and the chain, that of the name first, from one PEM text.
    ///
    /// # Errors
    /// [`CertificateError`]: a part is missing or invalid, or the certificate is for another name.
    pub fn from_pem(
        pem: SecretString,
        name: &CertName,
        obtained: SystemTime,
    ) -> Result<Self, CertificateError> {
        let invalid = CertificateError::Certificate;
        let text = pem.expose_secret().as_bytes();
        let chain = CertificateDer::pem_slice_iter(text)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid(error.to_string()))?;
        let first = chain
            .first()
            .ok_or_else(|| invalid("it has none".to_owned()))?;
        let (lifetime, renewal_id) = inspect(first, name, obtained)?;
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| CertificateError::Key)?;
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let key = key.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateError::OtherKey,
            _ => CertificateError::Key,
        })?;
        Ok(Self(Arc::new(Parts {
            pem,
            key: Arc::new(key),
            lifetime,
            renewal_id,
        })))
    }

    /// The certificate with its chain and key, for a resolver of rustls.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        self.0.key.clone()
    }

    /// The validity, and when the certificate was obtained.
    #[must_use]
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime
    }

    /// The key and the chain in PEM, as they are stored.
    #[must_use]
    pub fn pem(&self) -> &SecretString {
        &self.0.pem
    }

    /// What the CA calls this certificate when it is renewed; `None` if the certificate does not name its CA's key.
    pub(crate) fn renewal_id(&self) -> Option<&CertificateIdentifier<'static>> {
        self.0.renewal_id.as_ref()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("lifetime", &self.0.lifetime)
            .finish_non_exhaustive()
    }
}

fn inspect(
    der: &CertificateDer<'_>,
    name: &CertName,
    obtained: SystemTime,
) -> Result<(Lifetime, Option<CertificateIdentifier<'static>>), CertificateError> {
    let invalid = |error: String| CertificateError::Certificate(error);
    let parsed = ParsedCertificate::try_from(der).map_err(|error| invalid(error.to_string()))?;
    // A wildcard certificate is valid for every name of one more part.
    let host = if name.is_wildcard() {
        format!("adit.{}", name.base())
    } else {
        name.to_string()
    };
    let host = ServerName::try_from(host).map_err(|error| invalid(error.to_string()))?;
    rustls::client::verify_server_name(&parsed, &host)
        .map_err(|_| CertificateError::OtherName(name.clone()))?;
    let (_, x509) = X509Certificate::from_der(der).map_err(|error| invalid(error.to_string()))?;
    let lifetime = Lifetime {
        begins: at(x509.validity.not_before.timestamp()),
        expires: at(x509.validity.not_after.timestamp()),
        obtained,
    };
    let id = CertificateIdentifier::try_from(der).ok();
    Ok((lifetime, id.map(CertificateIdentifier::into_owned)))
}

/// The time of these seconds since 1970. A time before 1970 is 1970, one after 9999 is 9999.
fn at(seconds: i64) -> SystemTime {
    const LATEST: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LATEST))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pem(name: &str, other_key: bool) -> SecretString {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let key = if other_key {
            KeyPair::generate().unwrap()
        } else {
            key
        };
        format!("{}{}", key.serialize_pem(), certificate.pem()).into()
    }

    fn read(pem: SecretString, name: &str) -> Result<Certificate, CertificateError> {
        Certificate::from_pem(pem, &CertName::parse(name).unwrap(), UNIX_EPOCH)
    }

    #[test]
    fn a_certificate_is_read_with_its_lifetime() {
        let read = read(pem("a.example.com", false), "a.example.com").unwrap();
        let Lifetime {
            begins, expires, ..
        } = read.lifetime();
        assert!(begins < expires);
        assert!(!format!("{read:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_wildcard_certificate_is_for_its_wildcard_name() {
        read(pem("*.example.com", false), "*.example.com").unwrap();
        let error = read(pem("example.com", false), "*.example.com").unwrap_err();
        assert!(matches!(error, CertificateError::OtherName(_)), "{error}");
    }

    #[test]
    fn a_damaged_or_foreign_certificate_is_an_error() {
        let error = |pem: SecretString| read(pem, "a.example.com").unwrap_err();
        assert_eq!(
            error(pem("a.example.com", true)),
            CertificateError::OtherKey
        );
        assert!(matches!(
            error(pem("b.example.com", false)),
            CertificateError::OtherName(_)
        ));
        let whole = pem("a.example.com", false);
        for length in [0, 30, 300, whole.expose_secret().len() - 40] {
            let cut: String = whole.expose_secret().chars().take(length).collect();
            error(cut.into());
        }
    }
}
