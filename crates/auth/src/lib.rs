//! From a credential to a grant.
//!
//! Holds the answer to "who is this client?" ([`Authenticator`], today [`TokenAuthenticator`]), the [`Grant`] that travels
//! with each of its requests from open to access log, the rules for names, and the secrets that a link is known by
//! ([`SessionToken`], [`InstanceSecret`]).
//!
//! Promises:
//! - a presented token costs the same whatever is wrong with it: it is hashed at one length and compared with every known
//!   one;
//! - the peer is told one sentence, the log gets the cause ([`Denied`]);
//! - no `Debug` or `Display` text shows a secret, and what is kept to recognise one is only its hash;
//! - a name that was parsed is safe in a log, a label, a host name or a file name.
//!
//! Leaves to the caller: randomness, where tokens are stored, counting and delaying refusals, TLS, ending the links of
//! what was revoked.
//!
//! Cost: one hash of fixed length and one comparison per known token at each registration; nothing on the data path but
//! two reference counts per clone of a grant.
//!
//! Proof: `tests/properties.rs` against a map of tokens and a plain grammar of names.

mod authenticator;
mod claim;
mod grant;
mod hex;
mod link;
mod name;
mod token;

pub use authenticator::{Authenticator, Credential, DenialReason, Denied};
pub use claim::ClientClaim;
pub use grant::Grant;
pub use link::{InstanceKey, InstanceSecret, LinkKey, ParseSecretError, SessionToken};
pub use name::{ClientId, GroupId, NameError, NameProblem, TunnelName, UserName};
pub use token::{
    MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, TokenAuthenticator, TokenProblem, TokenSetError, check_token,
    generate_token,
};
