//! Where the credentials of clients are kept.
//!
//! [`SigningKeys`] are the keys of an issuer of JWTs, from a file or a URL ([`KeySource`]). Files are read again when they have
//! changed. A URL is read every few minutes, and also when a token names a key that is not there yet.
//!
//! Promises:
//! - keys that cannot be read again stay as they were, and the problem is logged once;
//! - clients with invented keys cause at most one request to a URL in ten seconds, one address at most one in thirty, and a new
//!   key is found with the next request, whoever causes it;
//! - a response of a URL is bounded in size and time, comes from that URL (redirects are not followed), and over TLS unless the
//!   URL is of this machine.
//!
//! Leaves to the caller: decisions about credentials (`adit-auth`), and when to look.
//!
//! Cost: a look at a file is one `stat`.

mod fetch;
mod fetch_policy;
mod jwks;
mod jwks_url;
mod key_source;
mod signing_keys;

pub use fetch::FetchError;
pub use jwks::{JwksError, MAX_KEYS, read_jwks};
pub use jwks_url::{JwksUrl, JwksUrlError};
pub use key_source::{KeySource, KeySourceError, MAX_KEY_BYTES, UrlSource};
pub use signing_keys::SigningKeys;
