//! Where the credentials of clients are kept, and where the keys of issuers come from.
//!
//! [`RecordFile`] holds users, credentials and enrolments as JSON in the state directory of a server. The command line
//! changes it, also while no server runs; the server finds a change at its next look. [`SigningKeys`] are the keys of an issuer
//! of JWTs, from a file or a URL ([`KeySource`]): a file is read again when it has changed, a URL every few minutes, and also
//! when a token names a key that is not there yet.
//!
//! Promises:
//! - a change of the records is on the disk when it returns, and either whole or not at all;
//! - two changes at a time, of any processes, are made one after the other;
//! - a file of records that is damaged, lost, or that another user could have written, is an error and never an empty set;
//! - a set of records that was begun anew does not replace the one that a running server uses;
//! - no error quotes a file or a response: keys may be in it;
//! - keys that cannot be read again stay as they were, and the problem is logged once;
//! - clients with invented keys, or with tokens that name none, cause at most one request to a URL in ten seconds, one address at most one in thirty, and a new
//!   key is found with the next request, from whatever cause;
//! - a response of a URL is bounded in size and time, comes from that URL (redirects are not followed), and over TLS unless the
//!   URL is of this machine.
//!
//! Leaves to the caller: decisions about credentials (`adit-auth`), when to look, and the thread, which waits for the disk.
//!
//! Cost: a look is one `stat`; a change of the records reads, writes and syncs the file.

mod fetch;
mod fetch_policy;
mod invalid_json;
mod jwks;
mod jwks_url;
mod key_source;
mod record_file;
mod signing_keys;

pub use fetch::FetchError;
pub use jwks::{JwksError, MAX_KEYS, read_jwks};
pub use jwks_url::{JwksUrl, JwksUrlError};
pub use key_source::{KeySource, KeySourceError, MAX_KEY_BYTES, UrlSource};
pub use record_file::{ChangeError, RecordFile};
pub use signing_keys::SigningKeys;
