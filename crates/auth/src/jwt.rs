//! JSON Web Tokens (RFC 7519) that another system issues to clients (P-1.21).
//!
//! A [`JwtIssuer`] is one entry of the configuration: the keys that it trusts and what a token must have. The algorithm belongs
//! to the key and is never taken from the token (RFC 8725, 3.1).

mod algorithm;
mod issuer;
mod key;
mod signer;
mod text;

pub use algorithm::{JwtAlgorithm, JwtAlgorithmError};
pub use issuer::{JwtIssuer, JwtRules, JwtUser};
pub(crate) use issuer::{VerifiedJwt, verify};
pub use key::{JwtKey, JwtKeyError};
pub(crate) use signer::SignerId;
pub(crate) use text::JwtText;
pub use text::{JwtKeyHint, MAX_JWT_BYTES, MAX_JWT_HEADER_BYTES, jwt_expiry, looks_like_jwt};
