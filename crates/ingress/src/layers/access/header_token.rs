//! Tokens in a header.

use std::fmt;

use adit_link::Reason;
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use subtle::{Choice, ConstantTimeEq};

use crate::{
    forward::{denial::Denial, headers::retain},
    layers::{access::opinion::Opinion, layer_error::LayerError},
};

/// Carries a token beside an `Authorization` of the service.
const ACCESS_TOKEN: HeaderName = HeaderName::from_static("adit-access-token");
/// Tokens of one layer.
const MOST_TOKENS: usize = 100;
/// The shortest token: it is stored by a fast hash, and must not be guessable.
const SHORTEST: usize = 16;

/// The hash of a token. `Debug` hides it.
#[derive(Clone, Copy)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    ///
    /// # Errors
    /// The token is shorter than 16 bytes, or no value of a header.
    pub fn of(token: &str) -> Result<Self, LayerError> {
        let is_value = HeaderValue::from_str(token).is_ok() && token.trim().len() == token.len();
        if token.len() < SHORTEST || !is_value {
            return Err(LayerError::Token { shortest: SHORTEST });
        }
        Ok(Self(*blake3::hash(token.as_bytes()).as_bytes()))
    }

    /// A hash that was announced.
    ///
    /// # Errors
    /// Another length.
    pub fn read(bytes: &[u8]) -> Result<Self, LayerError> {
        let hash = bytes.try_into();
        hash.map(Self).map_err(|_| LayerError::TokenHash)
    }

    /// The bytes of the hash.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for TokenHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for TokenHash {}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(..)")
    }
}

/// Tokens, one of which a visitor has to send (P-15.7): as `authorization: Bearer TOKEN` or as `adit-access-token: TOKEN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderToken {
    tokens: Vec<TokenHash>,
    keep: bool,
}

impl HeaderToken {
    /// Accepts these tokens. With `keep` the service receives them.
    ///
    /// # Errors
    /// No tokens, or too many.
    pub fn new(tokens: Vec<TokenHash>, keep: bool) -> Result<Self, LayerError> {
        if !(1..=MOST_TOKENS).contains(&tokens.len()) {
            return Err(LayerError::Tokens { most: MOST_TOKENS });
        }
        Ok(Self { tokens, keep })
    }

    /// The hashes of the tokens.
    pub fn tokens(&self) -> &[TokenHash] {
        &self.tokens
    }

    /// Whether the service receives the tokens.
    pub const fn keeps(&self) -> bool {
        self.keep
    }

    pub(super) fn opinion(&self, headers: &HeaderMap) -> Opinion {
        let mut sent = headers.get_all(ACCESS_TOKEN).iter();
        if sent.any(|token| self.has(token.as_bytes())) || self.is_bearer(headers) {
            return Opinion::Granted;
        }
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let is_wrong =
            headers.contains_key(ACCESS_TOKEN) || lines.any(|line| bearer_of(line).is_some());
        let detail = if is_wrong {
            "wrong access token"
        } else {
            "the visitor has to send an access token"
        };
        let denial = Denial::new(Reason::UnauthenticatedVisitor, detail)
            .with_challenge(HeaderValue::from_static("Bearer"));
        Opinion::unproven(if is_wrong {
            denial
        } else {
            denial.without_ban()
        })
    }

    /// Removes the tokens of this layer: another `authorization` is for the service.
    pub(super) fn remove_tokens(&self, headers: &mut HeaderMap) {
        if self.keep {
            return;
        }
        let is_bearer = self.is_bearer(headers);
        retain(headers, |name| {
            *name != ACCESS_TOKEN && !(is_bearer && *name == AUTHORIZATION)
        });
    }

    fn is_bearer(&self, headers: &HeaderMap) -> bool {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        lines.any(|line| bearer_of(line).is_some_and(|token| self.has(token)))
    }

    /// Compares a token with all, in the same time for each.
    fn has(&self, token: &[u8]) -> bool {
        let hash = blake3::hash(token);
        let compare = |met, known: &TokenHash| met | known.0.ct_eq(hash.as_bytes());
        self.tokens.iter().fold(Choice::from(0), compare).into()
    }
}

/// The token behind the scheme `Bearer`.
fn bearer_of(line: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = line.as_bytes().split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a token of sixteen";

    fn tokens() -> HeaderToken {
        let other = TokenHash::of("another token of mine").unwrap();
        HeaderToken::new(vec![other, TokenHash::of(TOKEN).unwrap()], false).unwrap()
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter();
        lines
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn either_header_carries_a_token() {
        let tokens = tokens();
        for (lines, is_met) in [
            (&[("adit-access-token", TOKEN)][..], true),
            (&[("authorization", "Bearer a token of sixteen")], true),
            (&[("authorization", "bearer  another token of mine ")], true),
            (&[("authorization", "Basic a token of sixteen")], false),
            (&[("adit-access-token", "a token of sixteem")], false),
            (&[("adit-access-token", "")], false),
            (&[], false),
        ] {
            let opinion = tokens.opinion(&headers(lines));
            assert_eq!(matches!(opinion, Opinion::Granted), is_met, "{lines:?}");
        }
    }

    #[test]
    fn only_the_tokens_of_the_layer_are_removed() {
        let mut mine = headers(&[("authorization", "Bearer a token of sixteen"), ("x-a", "1")]);
        tokens().remove_tokens(&mut mine);
        assert_eq!(mine, headers(&[("x-a", "1")]));
        let mut both = headers(&[
            ("authorization", "Bearer of the service"),
            ("adit-access-token", TOKEN),
        ]);
        tokens().remove_tokens(&mut both);
        assert_eq!(both, headers(&[("authorization", "Bearer of the service")]));
    }

    #[test]
    fn short_tokens_are_rejected_and_none_is_shown() {
        for bad in ["short", "with a line\nfeed in it", " blank at the start"] {
            let error = TokenHash::of(bad).unwrap_err();
            assert!(!error.to_string().contains(bad));
        }
        TokenHash::read(&[0; 31]).unwrap_err();
        let hash = TokenHash::of(TOKEN).unwrap();
        assert_eq!(TokenHash::read(hash.as_bytes()), Ok(hash));
        assert_eq!(format!("{hash:?}"), "TokenHash(..)");
    }
}
