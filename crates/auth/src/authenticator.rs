//! The interface of all ways to authenticate.

use crate::{ClientClaim, Credential, Grant};

/// Decides about credentials.
pub trait Authenticator: Send + Sync {
    /// The grant of a client with this claim and this credential.
    ///
    /// # Errors
    /// [`Denied`], whose public text and cost are the same for every cause.
    fn authenticate(&self, credential: &Credential, claim: &ClientClaim) -> Result<Grant, Denied>;

    /// Whether the credential of this grant is still accepted. The caller ends the links of grants that are no longer
    /// valid.
    fn is_valid(&self, grant: &Grant) -> bool;
}

/// The credential was not accepted. The `Display` text is for the peer and does not contain the cause; `Debug` and
/// [`reason`](Self::reason) contain it, for the log of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN"
)]
pub struct Denied {
    reason: DenialReason,
}

impl Denied {
    /// A denial with its cause.
    #[must_use]
    pub fn new(reason: DenialReason) -> Self {
        Self { reason }
    }

    /// The cause, for the log and never for the peer.
    #[must_use]
    pub fn reason(&self) -> DenialReason {
        self.reason
    }
}

/// Why a credential was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DenialReason {
    /// There was no credential.
    #[error("no credential")]
    NoCredential,
    /// The token was empty.
    #[error("empty token")]
    EmptyToken,
    /// The token was longer than the longest valid one.
    #[error("token too long")]
    TokenTooLong,
    /// The token is unknown.
    #[error("unknown token")]
    UnknownToken,
}
