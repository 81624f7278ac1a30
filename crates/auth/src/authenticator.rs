//! What every way to authenticate has in common.

use std::sync::Arc;

use secrecy::SecretString;

use crate::{ClientClaim, Grant};

/// What a client presents to be let in.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Credential {
    /// Nothing.
    #[default]
    None,
    /// A static token.
    Token(SecretString),
}

/// Decides who may have a link, and as whom.
pub trait Authenticator: Send + Sync {
    /// The grant that `credential` earns a client with this claim.
    ///
    /// # Errors
    /// [`Denied`], whose public text and cost are the same for every cause.
    fn authenticate(&self, credential: &Credential, claim: &ClientClaim) -> Result<Grant, Denied>;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn authenticate(&self, credential: &Credential, claim: &ClientClaim) -> Result<Grant, Denied> {
        (**self).authenticate(credential, claim)
    }
}

/// The credential was not accepted. The `Display` text is for the peer and does not tell the cause; `Debug` and
/// [`reason`](Self::reason) do, and are for the server's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN"
)]
pub struct Denied {
    reason: DenialReason,
}

impl Denied {
    /// A refusal with its cause.
    #[must_use]
    pub fn new(reason: DenialReason) -> Self {
        Self { reason }
    }

    /// The cause: for the log, never for the peer.
    #[must_use]
    pub fn reason(&self) -> DenialReason {
        self.reason
    }
}

/// Why a credential was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// Nothing was presented.
    #[error("no credential")]
    NoCredential,
    /// The token was empty.
    #[error("empty token")]
    EmptyToken,
    /// The token was longer than any can be.
    #[error("token too long")]
    TokenTooLong,
    /// Nobody has this token.
    #[error("unknown token")]
    UnknownToken,
}
