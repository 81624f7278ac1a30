//! Credentials of clients.

use std::fmt;

use secrecy::SecretString;

use crate::{CredentialId, SecretHash, jwt::SignerId};

/// What a client presents.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// A text: a static token, a key or a JWT.
    Token(SecretString),
    /// A certificate of the server's own CA with this id, proved by the handshake of the connection.
    Certificate(CredentialId),
    /// A certificate of a CA of the users, proved by the handshake of the connection.
    ClientCertificate(CertificateNames),
}

/// What a certificate of a client has that decides about it. The handshake has proved it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// Identifies the CA to which its chain leads.
    pub ca: [u8; 32],
    /// The common names of its subject.
    pub common_names: Vec<String>,
    /// The DNS names of its subject's alternative names.
    pub dns_names: Vec<String>,
    /// The URIs of its subject's alternative names.
    pub uris: Vec<String>,
    /// Seconds since 1970.
    pub expires_at: u64,
}

/// Identifies the credential of a grant, for a later comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialKey {
    Token(SecretHash),
    Key(CredentialId, SecretHash),
    Certificate(CredentialId),
    /// Of a CA of the users.
    ClientCertificate {
        /// The rule by which the certificate has its user.
        rule: [u8; 32],
        ca: [u8; 32],
        /// Seconds since 1970.
        expires_at: u64,
    },
    Jwt {
        signer: SignerId,
        /// `exp`: seconds since 1970, without the leeway.
        expires_at: u64,
        /// The last of the grant's scopes are those of the token itself.
        has_scopes: bool,
    },
}

impl CredentialKey {
    /// The id, if the credential has one that may be shown.
    pub(crate) const fn id(&self) -> Option<CredentialId> {
        match self {
            Self::Token(_) | Self::ClientCertificate { .. } | Self::Jwt { .. } => None,
            Self::Key(id, _) | Self::Certificate(id) => Some(*id),
        }
    }
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token(_) => f.write_str("Token(..)"),
            Self::Key(id, _) => write!(f, "Key({id})"),
            Self::Certificate(id) => write!(f, "Certificate({id})"),
            Self::ClientCertificate { expires_at, .. } => {
                write!(f, "ClientCertificate(until {expires_at})")
            }
            Self::Jwt { expires_at, .. } => write!(f, "Jwt(until {expires_at})"),
        }
    }
}
