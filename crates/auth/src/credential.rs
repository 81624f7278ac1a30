//! Credentials of clients.

use std::fmt;

use secrecy::SecretString;

/// The credential of a client.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Credential {
    /// No credential.
    #[default]
    None,
    /// A static token.
    Token(SecretString),
}

/// The hash of the credential with which a client obtained a grant, for a later comparison.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CredentialKey(pub(crate) [u8; 32]);

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CredentialKey(..)")
    }
}
