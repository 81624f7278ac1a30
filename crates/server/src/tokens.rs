//! The tokens in force.

use adit_auth::{
    Authenticator, ClientClaim, Credential, Denied, Grant, TokenAuthenticator, TokenSetError,
    UserName,
};
use arc_swap::ArcSwap;

use crate::settings::NamedToken;

/// Authenticates by the tokens of the configuration in force.
pub(crate) struct Tokens {
    current: ArcSwap<TokenAuthenticator>,
}

impl Tokens {
    pub(crate) fn new(first: TokenAuthenticator) -> Self {
        Self {
            current: ArcSwap::from_pointee(first),
        }
    }

    /// Replaces the tokens. The caller ends the links of removed tokens.
    pub(crate) fn replace(&self, next: TokenAuthenticator) {
        self.current.store(next.into());
    }
}

impl Authenticator for Tokens {
    fn authenticate(&self, credential: &Credential, claim: &ClientClaim) -> Result<Grant, Denied> {
        self.current.load().authenticate(credential, claim)
    }

    fn is_valid(&self, grant: &Grant) -> bool {
        self.current.load().is_valid(grant)
    }
}

/// The authenticator for these tokens.
///
/// # Errors
/// The reason why a user name or a token is invalid.
pub(crate) fn authenticator(tokens: &[NamedToken]) -> Result<TokenAuthenticator, String> {
    let tokens = users(tokens)?
        .into_iter()
        .zip(tokens.iter().map(|named| named.token.clone()));
    TokenAuthenticator::new(tokens).map_err(|error: TokenSetError| error.to_string())
}

/// The users of these tokens, in their order.
///
/// # Errors
/// The reason why a user name is invalid.
pub(crate) fn users(tokens: &[NamedToken]) -> Result<Vec<UserName>, String> {
    let users = tokens.iter().map(|named| UserName::parse(&named.user));
    users
        .collect::<Result<_, _>>()
        .map_err(|error| error.to_string())
}
