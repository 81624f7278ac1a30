//! A server's own CA, which issues its certificates.
//!
//! A CA is replaced before it expires. The certificates of its generations form a chain: the key of a new generation is
//! certified by itself, and once more by the generation before (cross-certification, RFC 4949). A server sends both, so that
//! a client which knows only an older generation continues to verify it until that generation expires. Nothing has to
//! reach the clients before the new generation is used.
//!
//! Keys are P-256. Only the newest generation has a key: earlier ones certify nothing any more.

use std::{
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ParsedPublicKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, Error as RcgenError,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SignatureAlgorithm,
};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::{fingerprint::Fingerprint, identity::Identity, name::TlsName, roots::Roots};

/// The name in every certificate that an [`Authority`] issues to a server. A client that trusts the CA of one server
/// expects this name and not the host that it connects to, because only that server has a certificate of its CA.
pub const SERVER_NAME: &str = "server.adit.internal";

/// The end of the name in every certificate that an [`Authority`] issues to a client; before it is the id of the client's
/// credential.
const CLIENT_NAME_END: &str = ".client.adit.internal";

/// Length of a P-256 public key that is not compressed (SEC 1, 2.3.3).
const PUBLIC_KEY_BYTES: usize = 65;

/// Certificates begin this long before they are issued, for clocks that are slow.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60 * 60);

/// The bound of [`Authority::from_json`]: far more than the few generations that are valid at a time.
pub const MAX_AUTHORITY_BYTES: usize = 1 << 20;

/// The latest time in a certificate: the end of the year 9999 (RFC 5280, 4.1.2.5), in seconds since 1970.
const LATEST: u64 = 253_402_300_799;

/// The beginning of the name of every CA.
pub(crate) const CA_NAME: &str = "adit CA ";

/// A CA and its earlier generations. See the module.
pub struct Authority {
    key: KeyPair,
    /// The newest one first; never empty.
    generations: Vec<Generation>,
}

/// A certificate of the CA.
#[derive(Clone, Serialize, Deserialize)]
struct Generation {
    /// The common name of the subject.
    name: String,
    /// Seconds since 1970 at which it was made.
    begins: u64,
    /// Seconds since 1970.
    expires: u64,
    /// The certificate by its own key, in PEM.
    certificate: String,
    /// The certificate of the same name and key by the generation before, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cross: Option<Cross>,
}

/// A certificate of a generation by the one before.
#[derive(Clone, Serialize, Deserialize)]
struct Cross {
    /// Seconds since 1970.
    expires: u64,
    certificate: String,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    generations: Vec<Generation>,
}

/// Why a CA cannot be used. No text contains a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The stored form is not one that this version writes.
    #[error("not a CA of adit: {0}")]
    Form(String),
    /// The stored form is longer than any that this version writes.
    #[error("not a CA of adit: longer than {MAX_AUTHORITY_BYTES} bytes")]
    TooLong,
    /// The stored key is not the one of the newest certificate.
    #[error("not a CA of adit: the key does not belong to the first certificate")]
    OtherKey,
    /// The public key of a client is not one.
    #[error("invalid public key: expected 65 bytes of P-256, not compressed")]
    PublicKey,
    /// The library cannot make a certificate.
    #[error("cannot make a certificate: {0}")]
    Certificate(String),
}

impl From<RcgenError> for AuthorityError {
    fn from(error: RcgenError) -> Self {
        Self::Certificate(error.to_string())
    }
}

/// A certificate of a server.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The certificate, those of the CA, and the key.
    pub identity: Identity,
    /// When the certificate expires.
    pub expires: SystemTime,
}

impl Authority {
    /// A new CA, which expires after `lifetime`.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`].
    pub fn generate(lifetime: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let key = KeyPair::generate()?;
        let expires = now + lifetime;
        let params = ca_params(&key, expires);
        let generation = Generation {
            name: name_of(&key),
            begins: seconds(now),
            expires: seconds(expires),
            certificate: params.self_signed(&key)?.pem(),
            cross: None,
        };
        Ok(Self {
            key,
            generations: vec![generation],
        })
    }

    /// The next generation, with a new key. Generations that have expired are dropped.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`].
    pub fn rotate(&self, lifetime: Duration, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut next = Self::generate(lifetime, now)?;
        let expires = { now + lifetime }.min(self.expires());
        let params = ca_params(&next.key, expires);
        let cross = params.signed_by(&next.key, &self.issuer())?;
        if let Some(newest) = next.generations.first_mut() {
            newest.cross = Some(Cross {
                expires: seconds(expires),
                certificate: cross.pem(),
            });
        }
        let valid = { self.generations.iter() }.filter(|known| known.expires > seconds(now));
        next.generations.extend(valid.cloned());
        Ok(next)
    }

    /// Reads the form that [`to_json`](Self::to_json) writes.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn from_json(json: &[u8]) -> Result<Self, AuthorityError> {
        if json.len() > MAX_AUTHORITY_BYTES {
            return Err(AuthorityError::TooLong);
        }
        let form = |problem: &str| AuthorityError::Form(problem.to_owned());
        // The text of this error may contain a part of the key.
        let stored: Stored = serde_json::from_slice(json).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            form(&format!("invalid JSON at line {line}, column {column}"))
        })?;
        let key = KeyPair::from_pem(&stored.key).map_err(|_| form("the key is invalid"))?;
        let authority = Self {
            key,
            generations: stored.generations,
        };
        let Some(newest) = authority.generations.first() else {
            return Err(form("it has no certificate"));
        };
        if newest.name != name_of(&authority.key) {
            return Err(AuthorityError::OtherKey);
        }
        if !authority
            .generations
            .iter()
            .all(Generation::has_valid_times)
        {
            return Err(form("a time is invalid"));
        }
        let certificates = authority
            .generations
            .iter()
            .flat_map(Generation::certificates);
        for certificate in certificates {
            Roots::from_pem(certificate.as_bytes()).map_err(|error| form(&error.to_string()))?;
        }
        Identity::from_pem(newest.certificate.as_bytes(), stored.key.as_bytes())
            .map_err(|_| AuthorityError::OtherKey)?;
        Ok(authority)
    }

    /// The stored form, which contains the key of the CA.
    ///
    /// # Errors
    /// [`AuthorityError::Form`].
    pub fn to_json(&self) -> Result<SecretString, AuthorityError> {
        let stored = Stored {
            key: self.key.serialize_pem(),
            generations: self.generations.clone(),
        };
        let text = serde_json::to_string_pretty(&stored);
        text.map(SecretString::from)
            .map_err(|error| AuthorityError::Form(error.to_string()))
    }

    /// When the newest generation was made.
    #[must_use]
    pub fn begins(&self) -> SystemTime {
        let newest = self.generations.first();
        UNIX_EPOCH + Duration::from_secs(newest.map_or(0, |newest| newest.begins))
    }

    /// When the newest generation expires.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        let newest = self.generations.first();
        UNIX_EPOCH + Duration::from_secs(newest.map_or(0, |newest| newest.expires))
    }

    /// The fingerprint of the newest generation.
    ///
    /// # Errors
    /// [`AuthorityError::Form`].
    pub fn fingerprint(&self) -> Result<Fingerprint, AuthorityError> {
        let newest = self.generations.first();
        let pem = newest.map_or("", |newest| &newest.certificate);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| AuthorityError::Form(error.to_string()))?;
        Ok(Fingerprint::of(&certificate))
    }

    /// The certificates that a client trusts, in PEM: those of all generations that have not expired.
    #[must_use]
    pub fn roots_pem(&self, now: SystemTime) -> String {
        let valid = { self.generations.iter() }.filter(|known| known.expires > seconds(now));
        valid.map(|known| &*known.certificate).collect()
    }

    /// Issues a certificate to a server, with a key of its own, for [`SERVER_NAME`] and for these names. It expires after
    /// `lifetime`, but not after the CA.
    ///
    /// # Errors
    /// [`AuthorityError::Certificate`].
    ///
    /// # Cost
    /// Two keys and a signature: less than a millisecond.
    pub fn issue_server(
        &self,
        names: &[TlsName],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let key = KeyPair::generate()?;
        let expires = { now + lifetime }.min(self.expires());
        let mut params = CertificateParams::new([SERVER_NAME.to_owned()])?;
        for name in names {
            params.subject_alt_names.push(alternative_name(name)?);
        }
        params.distinguished_name = common_name("adit server");
        params.not_before = { now - CLOCK_TOLERANCE }.into();
        params.not_after = expires.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let mut chain = params.signed_by(&key, &self.issuer())?.pem();
        // The newest certificate of the CA follows: its fingerprint is the one that a client reports.
        chain.push_str(&self.roots_pem(now));
        let cross = self
            .generations
            .iter()
            .filter_map(|known| known.cross.as_ref());
        for cross in cross.take_while(|cross| cross.expires > seconds(now)) {
            chain.push_str(&cross.certificate);
        }
        let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes())
            .map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        Ok(Issued { identity, expires })
    }

    /// Issues a certificate to a client, for its key and for the id of its credential. It expires after `lifetime`, but not
    /// after the CA. Returns it in PEM, with its time.
    ///
    /// That the client has the private key is proved by each handshake, not here: a certificate for the key of another one
    /// is of no use.
    ///
    /// # Errors
    /// [`AuthorityError::PublicKey`] and [`AuthorityError::Certificate`].
    ///
    /// # Cost
    /// A signature: a tenth of a millisecond.
    pub fn issue_client(
        &self,
        id: &str,
        public_key: &[u8],
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(String, SystemTime), AuthorityError> {
        let public_key = PublicKey::new(public_key)?;
        let expires = { now + lifetime }.min(self.expires());
        let mut params = CertificateParams::new([format!("{id}{CLIENT_NAME_END}")])?;
        params.distinguished_name = common_name("adit client");
        params.not_before = { now - CLOCK_TOLERANCE }.into();
        params.not_after = expires.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&public_key, &self.issuer())?;
        Ok((certificate.pem(), expires))
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        // Only the name, the uses and the key of an issuer appear in what it signs.
        Issuer::new(ca_params(&self.key, UNIX_EPOCH), &self.key)
    }
}

/// The public key of a client.
struct PublicKey<'k>(&'k [u8]);

impl<'k> PublicKey<'k> {
    fn new(bytes: &'k [u8]) -> Result<Self, AuthorityError> {
        // 4 is the mark of a point that is not compressed.
        let is_point = bytes.len() == PUBLIC_KEY_BYTES && bytes.first() == Some(&4);
        // The parser also refuses a point that is not on the curve, which nobody can prove.
        if is_point && ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, bytes).is_ok() {
            Ok(Self(bytes))
        } else {
            Err(AuthorityError::PublicKey)
        }
    }
}

impl PublicKeyData for PublicKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The id in the certificate of a client, which the handshake has verified to be of the server's own CA.
pub(crate) fn client_id(certificate: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from(certificate);
    let certificate = EndEntityCert::try_from(&certificate).ok()?;
    let mut names = certificate.valid_dns_names();
    names.find_map(|name| name.strip_suffix(CLIENT_NAME_END).map(str::to_owned))
}

impl Generation {
    /// The certificate by the generation before and its own, in PEM.
    fn certificates(&self) -> impl Iterator<Item = &str> {
        let cross = self.cross.iter().map(|cross| &*cross.certificate);
        cross.chain([&*self.certificate])
    }

    fn has_valid_times(&self) -> bool {
        let cross = self.cross.as_ref().map_or(0, |cross| cross.expires);
        self.begins <= LATEST && self.expires <= LATEST && cross <= LATEST
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.generations.iter().map(|known| &known.name).collect();
        f.debug_struct("Authority")
            .field("generations", &names)
            .finish_non_exhaustive()
    }
}

fn ca_params(key: &KeyPair, expires: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&name_of(key));
    // A clock that was wrong when the CA was made does not make it invalid.
    params.not_before = UNIX_EPOCH.into();
    params.not_after = expires.into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

/// The name of the generation with this key. It differs from generation to generation, because a verifier finds issuers by
/// their names.
fn name_of(key: &KeyPair) -> String {
    let public = CertificateDer::from(key.public_key_raw());
    let digits = Fingerprint::of(&public).to_string();
    format!("{CA_NAME}{}", digits.get(..16).unwrap_or_default())
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn alternative_name(name: &TlsName) -> Result<SanType, AuthorityError> {
    match ServerName::try_from(name.as_str()) {
        Ok(ServerName::IpAddress(ip)) => Ok(SanType::IpAddress(ip.into())),
        _ => Ok(SanType::DnsName(name.as_str().try_into()?)),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
