//! The certificate that answers tls-alpn-01 (RFC 8737, 3).

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, Error as RcgenError, KeyPair};
use rustls::{
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

/// A certificate for this name with the digest of the key authorization.
///
/// # Errors
/// The text of the library.
pub(crate) fn challenge_certificate(name: &str, digest: &[u8; 32]) -> Result<CertifiedKey, String> {
    let text = |error: RcgenError| error.to_string();
    let key = KeyPair::generate().map_err(text)?;
    let mut params = CertificateParams::new([name.to_owned()]).map_err(text)?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).map_err(text)?;
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = aws_lc_rs::sign::any_supported_type(&der).map_err(|error| error.to_string())?;
    // Without the check of `CertifiedKey::from_der`, which does not know the critical extension.
    Ok(CertifiedKey::new(vec![certificate.der().clone()], key))
}
