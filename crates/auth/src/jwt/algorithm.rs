//! The algorithms by which tokens are signed.

use std::{fmt, str::FromStr};

use jsonwebtoken::Algorithm;
use thiserror::Error;

/// An algorithm by which tokens are signed (RFC 7518, 3; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// RSA of PKCS #1, with SHA-256.
    Rs256,
    /// RSA of PKCS #1, with SHA-384.
    Rs384,
    /// RSA of PKCS #1, with SHA-512.
    Rs512,
    /// RSA-PSS with SHA-256.
    Ps256,
    /// RSA-PSS with SHA-384.
    Ps384,
    /// RSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256, with SHA-256.
    Es256,
    /// ECDSA on P-384, with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// The kind of key that an algorithm has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyFamily {
    /// A secret that both sides have, of at least this many bytes (RFC 7518, 3.2).
    Secret { least_bytes: usize },
    /// A key of RSA.
    Rsa,
    /// A point of a curve whose coordinates have this many bytes.
    Curve { coordinate_bytes: usize },
    /// A key of Ed25519.
    Ed25519,
}

impl JwtAlgorithm {
    /// All algorithms.
    pub const ALL: [Self; 12] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::EdDsa,
    ];

    /// The name in headers and in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Whether both sides have the same secret, with which a token can be made as well as verified.
    #[must_use]
    pub const fn has_shared_secret(self) -> bool {
        matches!(self.family(), KeyFamily::Secret { .. })
    }

    pub(crate) const fn family(self) -> KeyFamily {
        match self {
            Self::Hs256 => KeyFamily::Secret { least_bytes: 32 },
            Self::Hs384 => KeyFamily::Secret { least_bytes: 48 },
            Self::Hs512 => KeyFamily::Secret { least_bytes: 64 },
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => {
                KeyFamily::Rsa
            }
            Self::Es256 => KeyFamily::Curve {
                coordinate_bytes: 32,
            },
            Self::Es384 => KeyFamily::Curve {
                coordinate_bytes: 48,
            },
            Self::EdDsa => KeyFamily::Ed25519,
        }
    }

    pub(super) const fn of_library(self) -> Algorithm {
        match self {
            Self::Hs256 => Algorithm::HS256,
            Self::Hs384 => Algorithm::HS384,
            Self::Hs512 => Algorithm::HS512,
            Self::Rs256 => Algorithm::RS256,
            Self::Rs384 => Algorithm::RS384,
            Self::Rs512 => Algorithm::RS512,
            Self::Ps256 => Algorithm::PS256,
            Self::Ps384 => Algorithm::PS384,
            Self::Ps512 => Algorithm::PS512,
            Self::Es256 => Algorithm::ES256,
            Self::Es384 => Algorithm::ES384,
            Self::EdDsa => Algorithm::EdDSA,
        }
    }
}

impl fmt::Display for JwtAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "unknown algorithm, expected HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA"
)]
pub struct JwtAlgorithmError;

impl FromStr for JwtAlgorithm {
    type Err = JwtAlgorithmError;

    fn from_str(text: &str) -> Result<Self, JwtAlgorithmError> {
        // RFC 9864 gives EdDSA with Ed25519 a name of its own.
        let text = if text == "Ed25519" { "EdDSA" } else { text };
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or(JwtAlgorithmError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_is_read_by_its_name() {
        for algorithm in JwtAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
            let library = format!("{:?}", algorithm.of_library());
            assert_eq!(library, algorithm.as_str());
        }
        assert_eq!("Ed25519".parse(), Ok(JwtAlgorithm::EdDsa));
        for unknown in ["none", "None", "hs256", "ES512", ""] {
            assert_eq!(unknown.parse::<JwtAlgorithm>(), Err(JwtAlgorithmError));
        }
    }
}
