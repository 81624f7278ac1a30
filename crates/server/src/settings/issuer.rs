//! Issuers of JWTs.

use adit_auth::JwtRules;
use adit_identity::KeySource;

/// An issuer whose JWTs are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What its tokens must have, and what they give.
    pub rules: JwtRules,
    /// Where its keys come from.
    pub keys: KeySource,
}
