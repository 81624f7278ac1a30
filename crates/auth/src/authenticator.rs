//! The interface of all ways to authenticate.

use std::{net::IpAddr, time::SystemTime};

use crate::{ClientClaim, Credential, CredentialId, Grant};

/// A client that wants to register.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// What the client presents.
    pub credential: &'a Credential,
    /// The names that it reports.
    pub claim: &'a ClientClaim,
    /// The address of its connection.
    pub address: IpAddr,
    /// The time of the attempt.
    pub now: SystemTime,
}

/// Decides about credentials.
pub trait Authenticator: Send + Sync {
    /// The grant of a client. Whether its scopes allow the names of the claim is the caller's question to the grant.
    ///
    /// # Errors
    /// [`Denied`], whose public text is the same for every cause.
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Grant, Denied>;

    /// Whether the credential of this grant is still accepted, with the same scopes. The caller ends the links of grants
    /// that are not.
    ///
    /// # Errors
    /// [`Lapsed`].
    fn check(&self, grant: &Grant, now: SystemTime) -> Result<(), Lapsed>;

    /// Changes when the result of [`check`](Self::check) may have changed by something else than time.
    fn revision(&self) -> u64;
}

/// The credential was not accepted. The `Display` text is for the peer and does not contain the cause; `Debug` and
/// [`reason`](Self::reason) contain it, for the log of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server did not accept these credentials: check auth_token, auth_token_file or ADIT__TOKEN, or the certificate \
     of client.tls, or join again with `adit join`"
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
    /// The text begins as a key, and is none.
    #[error("damaged key")]
    DamagedKey,
    /// No key has this id.
    #[error("unknown key")]
    UnknownKey,
    /// The key has another secret.
    #[error("wrong secret")]
    WrongSecret,
    /// The key is for another purpose: one that enrols clients does not authenticate them.
    #[error("key for another purpose")]
    OtherPurpose,
    /// The certificate is of no credential that is known, or of a CA that is not trusted any more.
    #[error("unknown certificate")]
    UnknownCertificate,
    /// The certificate does not have exactly one name of a user.
    #[error(
        "certificate without exactly one valid user name; does `user_from` of `method: mtls` name the right field?"
    )]
    CertificateName,
    /// The certificate names a user that does not exist.
    #[error(
        "unknown user of a certificate: add it with `adit-server user add`, or to `users` of `method: mtls`"
    )]
    CertificateUser,
    /// The text has the form of a JWT and cannot be read, or has a claim of a wrong type.
    #[error("damaged JWT")]
    DamagedJwt,
    /// No issuer of the configuration has this name.
    #[error("unknown issuer of a JWT")]
    WrongIssuer,
    /// No key of the issuer has this id.
    #[error("unknown signing key of a JWT")]
    UnknownSigningKey,
    /// The JWT is signed by another algorithm than that of the key, or not at all.
    #[error("wrong algorithm of a JWT")]
    WrongAlgorithm,
    /// The signature is not of a key of the issuer.
    #[error("wrong signature of a JWT")]
    WrongSignature,
    /// The JWT is for another audience.
    #[error("wrong audience of a JWT")]
    WrongAudience,
    /// The JWT has no expiry.
    #[error("JWT without `exp`")]
    NoExpiry,
    /// The JWT is not valid yet, or was issued in the future.
    #[error("JWT not valid yet; are the clocks of both sides right?")]
    NotYetValid,
    /// The JWT lacks a claim that the configuration requires.
    #[error("JWT without a required claim")]
    RequiredClaim,
    /// The claim with the user is missing or is not a name.
    #[error("JWT without a valid user name in its claim")]
    InvalidUser,
    /// The claim with the scopes is invalid.
    #[error("JWT with invalid scopes")]
    InvalidScopes,
    /// The credential or the key was revoked.
    #[error("revoked")]
    Revoked,
    /// The credential or the key has expired.
    #[error("expired")]
    Expired,
    /// All uses of the key are used up.
    #[error("used up")]
    UsedUp,
    /// The credential or the key may not be used from this address.
    #[error("address not allowed")]
    Address,
    /// The credential awaits the approval of an administrator.
    #[error("awaits approval: approve it with `adit-server key approve {0}`")]
    AwaitsApproval(CredentialId),
}

/// The grant of a link is not valid any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lapsed {
    /// The credential was revoked or removed.
    #[error("the credential of the client was revoked")]
    Revoked,
    /// The credential has expired.
    #[error("the credential of the client has expired")]
    Expired,
    /// The scopes have changed: the client registers again.
    #[error("the scopes of the client have changed")]
    Changed,
}
