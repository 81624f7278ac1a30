//! Sets of keys (RFC 7517, 5).

use adit_auth::{JwtAlgorithm, JwtKey, JwtKeyError};
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::invalid_json::invalid_json;

/// Keys of one set. Issuers have some few.
pub const MAX_KEYS: usize = 64;

/// Why a set has no keys.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JwksError {
    /// The text is not a set of keys.
    #[error("this is not a JWKS, expected an object with a list `keys`: {0}")]
    Form(String),
    /// There are too many keys.
    #[error("the JWKS has {0} keys, expected at most {MAX_KEYS}")]
    TooMany(usize),
    /// None of the keys can be used. With the first problem.
    #[error("the JWKS has no key that can be used{}", first(.0.as_ref()))]
    NoKey(Option<JwtKeyError>),
}

fn first(problem: Option<&JwtKeyError>) -> String {
    problem.map_or_else(String::new, |problem| format!(": {problem}"))
}

#[derive(Deserialize)]
struct Jwks<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// Reads a set. Keys for other purposes, of other kinds or for another algorithm than `algorithm` are skipped, and so are
/// secrets unless the set may have `secrets`.
///
/// # Errors
/// [`JwksError`].
pub fn read_jwks(
    text: &str,
    algorithm: Option<JwtAlgorithm>,
    secrets: bool,
) -> Result<Vec<JwtKey>, JwksError> {
    let set: Jwks<'_> =
        serde_json::from_str(text).map_err(|error| JwksError::Form(invalid_json(&error)))?;
    if set.keys.len() > MAX_KEYS {
        return Err(JwksError::TooMany(set.keys.len()));
    }
    let mut keys = Vec::with_capacity(set.keys.len());
    let mut problem = None;
    for json in set.keys {
        match JwtKey::from_jwk(json.get(), algorithm) {
            Ok(key) if secrets || !key.algorithm().has_shared_secret() => keys.push(key),
            Ok(_) => _ = problem.get_or_insert(JwtKeyError::Unsupported),
            Err(error) => _ = problem.get_or_insert(error),
        }
    }
    if keys.is_empty() {
        return Err(JwksError::NoKey(problem));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const SECRET: &str =
        r#"{"kty":"oct","kid":"hs","k":"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"}"#;

    fn ids(text: &str, algorithm: Option<JwtAlgorithm>, secrets: bool) -> Vec<String> {
        let keys = read_jwks(text, algorithm, secrets).unwrap();
        let id = |key: &JwtKey| key.id().unwrap_or_default().to_owned();
        keys.iter().map(id).collect()
    }

    #[test]
    fn keys_that_cannot_be_used_are_skipped() {
        let text = format!(
            r#"{{"extra":1,"keys":[{{"kty":"EC","crv":"P-521","x":"a","y":"b"}},{{}},7,{ED},{SECRET},
            {{"kty":"RSA","use":"enc","n":"a","e":"b"}}]}}"#
        );
        assert_eq!(ids(&text, None, true), ["ed", "hs"]);
        assert_eq!(ids(&text, Some(JwtAlgorithm::EdDsa), true), ["ed"]);
    }

    #[test]
    fn a_url_has_no_secrets() {
        let text = format!(r#"{{"keys":[{ED},{SECRET}]}}"#);
        assert_eq!(ids(&text, None, false), ["ed"]);
        let text = format!(r#"{{"keys":[{SECRET}]}}"#);
        assert_eq!(
            read_jwks(&text, None, false),
            Err(JwksError::NoKey(Some(JwtKeyError::Unsupported)))
        );
    }

    #[test]
    fn no_error_quotes_the_text() {
        for text in [
            r#""a-secret-in-the-wrong-file""#,
            r#"{"keys":"a-secret-in-the-wrong-file"}"#,
            r#"{"keys":[{"kty":"oct","k":1,"kid":["a-secret-in-the-wrong-file"]}]}"#,
            r#"{"keys":[{"kty":["a-secret-in-the-wrong-file"]}]}"#,
            r#"{"keys":[{"kty":"RSA","use":"sig","n":"a-secret-in-the-wrong-file","key_ops":"a-secret-in-the-wrong-file"}]}"#,
        ] {
            let error = read_jwks(text, None, true).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_set_without_keys_is_an_error() {
        let problem = |text: &str| read_jwks(text, None, true).unwrap_err();
        assert_eq!(problem(r#"{"keys":[]}"#), JwksError::NoKey(None));
        for text in ["", "[]", "{}", r#"{"keys":{}}"#, "<html>", r#"{"keys":[1"#] {
            assert!(matches!(problem(text), JwksError::Form(_)), "{text}");
        }
        let many = vec![ED; MAX_KEYS + 1].join(",");
        assert_eq!(
            problem(&format!(r#"{{"keys":[{many}]}}"#)),
            JwksError::TooMany(MAX_KEYS + 1)
        );
    }
}
