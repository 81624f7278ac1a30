//! The text of a token: its form, its header and its claims, before anything of it is trusted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::algorithm::JwtAlgorithm;
use crate::DenialReason;

/// Length of the longest token. A registration has 4 KiB in all (P-1.1).
pub const MAX_JWT_BYTES: usize = 3 * 1024;

/// Length of the longest header, encoded. Usual ones have some 100 bytes.
pub const MAX_JWT_HEADER_BYTES: usize = 1024;

/// The longest id of a key.
const MAX_KEY_ID_BYTES: usize = 256;

/// Whether a text has the form of a JWT: three parts of base64url, of which the first begins with `{`. The signature may be
/// empty: a token without one is refused as a JWT, not as an unknown token.
#[must_use]
pub fn looks_like_jwt(text: &str) -> bool {
    let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    // `{"`, `{ ` and `{` with a line break begin with these.
    (text.starts_with("ey") || text.starts_with("ew"))
        && text.bytes().filter(|byte| *byte == b'.').count() == 2
        && text.bytes().all(|byte| byte == b'.' || is_base64url(byte))
}

/// A token that can be read. Nothing of it is verified.
#[derive(Debug)]
pub(crate) struct JwtText<'a> {
    /// The algorithm that the header names; `None`: `none`, or one that is not supported.
    pub(crate) algorithm: Option<JwtAlgorithm>,
    /// The id of the key, from the header.
    pub(crate) key_id: Option<String>,
    /// The claims.
    pub(crate) claims: Map<String, Value>,
    /// What is signed: header and claims, encoded.
    pub(crate) signed: &'a str,
    /// The signature, encoded.
    pub(crate) signature: &'a str,
}

/// The part of a header that is used (RFC 7515, 4.1). Keys and addresses of keys in it are not.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> JwtText<'a> {
    /// Reads a token.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn parse(text: &'a str) -> Result<Self, DenialReason> {
        if text.len() > MAX_JWT_BYTES {
            return Err(DenialReason::TokenTooLong);
        }
        let damaged = DenialReason::DamagedJwt;
        let (signed, signature) = text.rsplit_once('.').ok_or(damaged)?;
        let (header, claims) = signed.split_once('.').ok_or(damaged)?;
        if header.len() > MAX_JWT_HEADER_BYTES || claims.contains('.') {
            return Err(damaged);
        }
        let header: Header = read(header).ok_or(damaged)?;
        // Extensions that must be understood, of which none is (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return Err(damaged);
        }
        if { header.kid.as_ref() }.is_some_and(|id| id.len() > MAX_KEY_ID_BYTES) {
            return Err(damaged);
        }
        Ok(Self {
            algorithm: header.alg.parse().ok(),
            key_id: header.kid,
            claims: read(claims).ok_or(damaged)?,
            signed,
            signature,
        })
    }

    /// The issuer that the claims name.
    pub(crate) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }
}

/// A part of a token: JSON in base64url.
fn read<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

/// Which key has signed a token, as the token says, to look for it elsewhere. Nothing of it is verified: the sender of the token chooses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKeyHint {
    /// The issuer that the token names.
    pub issuer: Option<String>,
    /// The id of the key, if the token names one.
    pub key_id: Option<String>,
}

impl JwtKeyHint {
    /// The key that this text names; `None`: it is not a token, or no key can have signed it.
    #[must_use]
    pub fn of(text: &str) -> Option<Self> {
        let token = JwtText::parse(text).ok()?;
        token.algorithm?;
        Some(Self {
            issuer: token.issuer().map(str::to_owned),
            key_id: token.key_id,
        })
    }
}

/// When a JWT expires, as it says itself: nothing of it is verified. `None`: the text is not a JWT, or does not say.
#[must_use]
pub fn jwt_expiry(text: &str) -> Option<SystemTime> {
    let token = JwtText::parse(text).ok()?;
    let seconds = token.claims.get("exp")?.as_f64()?;
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(claims))
    }

    #[test]
    fn a_token_is_known_by_its_form() {
        for header in [
            r#"{"alg":"none"}"#,
            "{ \"alg\": 1}",
            "{\n}",
            "{\t}",
            "{\r\n}",
        ] {
            assert!(looks_like_jwt(&token(header, "{}")), "{header}");
        }
        assert!(looks_like_jwt("eyJhbGciOiJub25lIn0.e30."));
        for other in [
            "",
            "a-static-token",
            "my.static.token",
            "eyJhbGciOiJub25lIn0.e30",
            "eyJhbGciOiJub25lIn0.e30.a.b",
            "eyJhbGciOiJub25lIn0.e 0.a",
            "eyJhbGciOiJub25lIn0.e30=.a",
            "adit_key_000102030405_000000",
        ] {
            assert!(!looks_like_jwt(other), "{other}");
        }
    }

    #[test]
    fn header_and_token_are_bounded() {
        let problem = |text: &str| JwtText::parse(text).err();
        let long = "x".repeat(MAX_JWT_HEADER_BYTES);
        let header = format!(r#"{{"alg":"HS256","typ":"{long}"}}"#);
        assert_eq!(
            problem(&token(&header, "{}")),
            Some(DenialReason::DamagedJwt)
        );
        let claims = format!(r#"{{"sub":"{}"}}"#, "x".repeat(MAX_JWT_BYTES));
        let text = token(r#"{"alg":"HS256"}"#, &claims);
        assert_eq!(problem(&text), Some(DenialReason::TokenTooLong));
        let id = "x".repeat(MAX_KEY_ID_BYTES + 1);
        let header = format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
        assert_eq!(
            problem(&token(&header, "{}")),
            Some(DenialReason::DamagedJwt)
        );
        assert_eq!(problem(&token(&header.replace(&id, "a"), "{}")), None);
    }

    #[test]
    fn extensions_that_must_be_understood_are_refused() {
        let text = token(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, "{}");
        assert_eq!(JwtText::parse(&text).err(), Some(DenialReason::DamagedJwt));
    }

    #[test]
    fn a_token_says_when_it_expires() {
        let header = r#"{"alg":"RS256"}"#;
        let expiry = |claims: &str| jwt_expiry(&token(header, claims));
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(expiry(r#"{"exp":1900000000}"#), at(1_900_000_000));
        assert_eq!(expiry(r#"{"exp":1900000000.0}"#), at(1_900_000_000));
        for other in [
            "{}",
            r#"{"exp":"soon"}"#,
            r#"{"exp":-1}"#,
            r#"{"exp":1e300}"#,
        ] {
            assert_eq!(expiry(other), None, "{other}");
        }
        assert_eq!(jwt_expiry("a-static-token"), None);
    }

    #[test]
    fn a_hint_names_issuer_and_key() {
        let text = token(r#"{"alg":"RS256","kid":"k1"}"#, r#"{"iss":"https://a"}"#);
        let hint = JwtKeyHint {
            issuer: Some("https://a".to_owned()),
            key_id: Some("k1".to_owned()),
        };
        assert_eq!(JwtKeyHint::of(&text), Some(hint));
        let nameless = JwtKeyHint {
            issuer: None,
            key_id: None,
        };
        let text = token(r#"{"alg":"RS256"}"#, "{}");
        assert_eq!(JwtKeyHint::of(&text), Some(nameless));
        assert_eq!(JwtKeyHint::of(&token(r#"{"alg":"none"}"#, "{}")), None);
        assert_eq!(JwtKeyHint::of("a-static-token"), None);
    }
}
