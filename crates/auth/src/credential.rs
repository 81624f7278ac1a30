//! Credentials of clients.

use std::fmt;

use secrecy::SecretString;

use crate::{CredentialId, SecretHash};

/// What a client presents.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// A text: a static token or a key.
    Token(SecretString),
    /// A certificate of the server's own CA with this id, proved by the handshake of the connection.
    Certificate(CredentialId),
}

/// Identifies the credential of a grant, for a later comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialKey {
    Token(SecretHash),
    Key(CredentialId, SecretHash),
    Certificate(CredentialId),
}

impl CredentialKey {
    /// The id, if the credential has one that may be shown.
    pub(crate) const fn id(&self) -> Option<CredentialId> {
        match self {
            Self::Token(_) => None,
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
        }
    }
}
