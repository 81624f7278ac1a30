//! Keys that sign tokens.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;
use thiserror::Error;

use super::algorithm::{JwtAlgorithm, KeyFamily};

/// The shortest modulus of RSA that is verified, and the longest (2048 and 8192 bits).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A key that signs tokens, by one algorithm. Tokens do not choose the algorithm.
#[derive(Clone)]
pub struct JwtKey {
    id: Option<Box<str>>,
    algorithm: JwtAlgorithm,
    key: DecodingKey,
    fingerprint: [u8; 32],
}

/// Why a key cannot be used. No text contains a part of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum JwtKeyError {
    /// The algorithm has no keys of this kind.
    #[error("a key of this kind cannot be used with {0}")]
    OtherKind(JwtAlgorithm),
    /// The secret is short enough to be guessed.
    #[error("the secret has {found} bytes, {algorithm} needs at least {least} random ones")]
    ShortSecret {
        /// The algorithm.
        algorithm: JwtAlgorithm,
        /// The least number of bytes.
        least: usize,
        /// The number of bytes found.
        found: usize,
    },
    /// A key in PEM is used as a secret: everyone who has the public key could sign tokens.
    #[error("this is a key in PEM, not a secret; set `key_file` for it")]
    PemAsSecret,
    /// The text is not a public key in PEM of the kind of the algorithm.
    #[error("this is not a public key in PEM for {0} (`-----BEGIN PUBLIC KEY-----`)")]
    Pem(JwtAlgorithm),
    /// The text is a private key, which belongs to the issuer alone.
    #[error(
        "this is a private key; the server needs only the public one, as `openssl pkey -pubout` prints it"
    )]
    PrivateKey,
    /// The text is a certificate.
    #[error(
        "this is a certificate; its public key is needed, as `openssl x509 -noout -pubkey` prints it"
    )]
    Certificate,
    /// The key of RSA has an unsupported length.
    #[error("the RSA key has an unsupported length, expected 2048 to 8192 bits")]
    RsaLength,
    /// The JWK is not valid.
    #[error("invalid JWK: {0}")]
    Jwk(String),
    /// The JWK is for another purpose than signatures.
    #[error("the JWK is not for signatures")]
    OtherPurpose,
    /// The JWK is for another algorithm than the configured one.
    #[error("the JWK is not for {0}")]
    OtherAlgorithm(JwtAlgorithm),
    /// The kind or the algorithm of the JWK is not supported.
    #[error("the kind or the algorithm of the JWK is not supported")]
    Unsupported,
}

/// A JWK (RFC 7517, 4). Parameters that are not needed are skipped, private ones too.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    k: Option<SecretString>,
}

impl JwtKey {
    /// A secret that the issuer has too.
    ///
    /// # Errors
    /// [`JwtKeyError`]: the secret is short, or is a key in PEM.
    pub fn from_secret(algorithm: JwtAlgorithm, secret: &[u8]) -> Result<Self, JwtKeyError> {
        let KeyFamily::Secret { least_bytes } = algorithm.family() else {
            return Err(JwtKeyError::OtherKind(algorithm));
        };
        if secret.windows(11).any(|part| part == b"-----BEGIN ") {
            return Err(JwtKeyError::PemAsSecret);
        }
        if secret.len() < least_bytes {
            return Err(JwtKeyError::ShortSecret {
                algorithm,
                least: least_bytes,
                found: secret.len(),
            });
        }
        let key = DecodingKey::from_secret(secret);
        Ok(Self::new(algorithm, key, &[secret]))
    }

    /// A public key in PEM: one section.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn from_pem(algorithm: JwtAlgorithm, pem: &str) -> Result<Self, JwtKeyError> {
        if pem.contains("PRIVATE KEY-----") {
            return Err(JwtKeyError::PrivateKey);
        }
        if pem.contains("CERTIFICATE-----") {
            return Err(JwtKeyError::Certificate);
        }
        let key = match algorithm.family() {
            KeyFamily::Secret { .. } => return Err(JwtKeyError::OtherKind(algorithm)),
            KeyFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            KeyFamily::Curve { .. } => DecodingKey::from_ec_pem(pem.as_bytes()),
            KeyFamily::Ed25519 => DecodingKey::from_ed_pem(pem.as_bytes()),
        };
        let key = key.map_err(|_| JwtKeyError::Pem(algorithm))?;
        let bytes = key
            .try_get_as_bytes()
            .map_err(|_| JwtKeyError::Pem(algorithm))?;
        let bytes = bytes.to_vec();
        match algorithm.family() {
            // DER adds some bytes to the modulus.
            KeyFamily::Rsa if bytes.len() < *RSA_BYTES.start() => Err(JwtKeyError::RsaLength),
            KeyFamily::Curve { coordinate_bytes } if bytes.len() != 1 + 2 * coordinate_bytes => {
                Err(JwtKeyError::Pem(algorithm))
            }
            KeyFamily::Ed25519 if bytes.len() != 32 => Err(JwtKeyError::Pem(algorithm)),
            _ => Ok(Self::new(algorithm, key, &[&bytes])),
        }
    }

    /// A JWK (RFC 7517) as JSON. Its algorithm is that of the JWK, which must be `algorithm` if that is given; a JWK without
    /// one is for `algorithm`, or else for the usual one of its kind: RS256, HS256, or that of its curve.
    ///
    /// # Errors
    /// [`JwtKeyError`].
    pub fn from_jwk(json: &str, algorithm: Option<JwtAlgorithm>) -> Result<Self, JwtKeyError> {
        // The text of the error could contain a part of the key.
        let jwk: Jwk = serde_json::from_str(json).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            JwtKeyError::Jwk(format!(
                "a wrong or missing field at line {line}, column {column}"
            ))
        })?;
        let verifies = |operations: &Vec<String>| operations.iter().any(|one| one == "verify");
        if { jwk.purpose.as_ref() }.is_some_and(|purpose| purpose != "sig")
            || !jwk.key_ops.as_ref().is_none_or(verifies)
        {
            return Err(JwtKeyError::OtherPurpose);
        }
        let usual = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => JwtAlgorithm::Rs256,
            ("oct", _) => JwtAlgorithm::Hs256,
            ("EC", Some("P-256")) => JwtAlgorithm::Es256,
            ("EC", Some("P-384")) => JwtAlgorithm::Es384,
            ("OKP", Some("Ed25519")) => JwtAlgorithm::EdDsa,
            _ => return Err(JwtKeyError::Unsupported),
        };
        let own = match &jwk.alg {
            Some(name) => Some(name.parse().map_err(|_| JwtKeyError::Unsupported)?),
            None => None,
        };
        let chosen = own.or(algorithm).unwrap_or(usual);
        if let Some(wanted) = algorithm.filter(|wanted| *wanted != chosen) {
            return Err(JwtKeyError::OtherAlgorithm(wanted));
        }
        let fits = match (usual.family(), chosen.family()) {
            (KeyFamily::Secret { .. }, KeyFamily::Secret { .. }) => true,
            (kind, other) => kind == other,
        };
        if !fits {
            return Err(JwtKeyError::OtherKind(chosen));
        }
        let key = jwk.key(chosen)?;
        Ok(match jwk.kid {
            Some(id) => key.with_id(&id),
            None => key,
        })
    }

    /// The key with an id, by which tokens name it.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.into());
        self
    }

    fn new(algorithm: JwtAlgorithm, key: DecodingKey, parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("adit 2026 key of JWT");
        hasher.update(algorithm.as_str().as_bytes());
        for part in parts {
            hasher.update(&part.len().to_le_bytes()).update(part);
        }
        Self {
            id: None,
            algorithm,
            key,
            fingerprint: *hasher.finalize().as_bytes(),
        }
    }

    /// The id by which tokens name the key (`kid`).
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The one algorithm of the key.
    #[must_use]
    pub const fn algorithm(&self) -> JwtAlgorithm {
        self.algorithm
    }

    /// Identifies algorithm and key material, not the id.
    pub(super) const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether this key made the signature. The time for a wrong one does not depend on the bytes that are right.
    pub(super) fn has_signed(&self, message: &str, signature: &str) -> bool {
        let algorithm = self.algorithm.of_library();
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, algorithm)
            .unwrap_or(false)
    }
}

impl Jwk {
    /// The key, for an algorithm that fits its kind.
    fn key(&self, algorithm: JwtAlgorithm) -> Result<JwtKey, JwtKeyError> {
        let bytes = |name: &str, text: Option<&str>| {
            let text = text.ok_or_else(|| JwtKeyError::Jwk(format!("`{name}` is missing")))?;
            let decoded = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
            let decoded = decoded.map(Zeroizing::new);
            decoded.map_err(|_| JwtKeyError::Jwk(format!("`{name}` is not base64url")))
        };
        let coordinate = |name: &str, text: Option<&String>, length: usize| {
            let coordinate = bytes(name, text.map(String::as_str))?;
            if coordinate.len() != length {
                let found = coordinate.len();
                let text = format!("`{name}` has {found} bytes, expected {length}");
                return Err(JwtKeyError::Jwk(text));
            }
            Ok(coordinate)
        };
        match algorithm.family() {
            KeyFamily::Secret { .. } => {
                let secret = bytes("k", self.k.as_ref().map(ExposeSecret::expose_secret))?;
                JwtKey::from_secret(algorithm, &secret)
            }
            KeyFamily::Rsa => {
                let (n, e) = (
                    bytes("n", self.n.as_deref())?,
                    bytes("e", self.e.as_deref())?,
                );
                let n = without_zeros(&n);
                if !RSA_BYTES.contains(&n.len()) {
                    return Err(JwtKeyError::RsaLength);
                }
                let e = without_zeros(&e);
                let key = DecodingKey::from_rsa_raw_components(n, e);
                Ok(JwtKey::new(algorithm, key, &[n, e]))
            }
            KeyFamily::Curve { coordinate_bytes } => {
                let x = coordinate("x", self.x.as_ref(), coordinate_bytes)?;
                let y = coordinate("y", self.y.as_ref(), coordinate_bytes)?;
                // An uncompressed point, as keys in PEM have it.
                let point = [&[4], &x[..], &y[..]].concat();
                let key = DecodingKey::from_ec_der(&point);
                Ok(JwtKey::new(algorithm, key, &[&point]))
            }
            KeyFamily::Ed25519 => {
                let x = coordinate("x", self.x.as_ref(), 32)?;
                let key = DecodingKey::from_ed_der(&x);
                Ok(JwtKey::new(algorithm, key, &[&x]))
            }
        }
    }
}

/// The number without the zeros that some encoders put in front of it.
fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.get(zeros..).unwrap_or_default()
}

impl PartialEq for JwtKey {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint && self.id == other.id
    }
}

impl Eq for JwtKey {}

impl fmt::Debug for JwtKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtKey")
            .field("id", &self.id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}
