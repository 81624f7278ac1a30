//! Authentication of clients, and the grants that result from it.
//!
//! Holds [`Authenticator`], implemented by [`TokenAuthenticator`]; the [`Grant`] that each request has from its opening to
//! the access log; the rules for names; and the secrets that identify a link ([`SessionToken`], [`InstanceSecret`]).
//!
//! Promises:
//! - every wrong token takes the same time: it is hashed at one length and compared with every known token;
//! - the peer receives the same text for every cause, which only the log contains ([`Denied`]);
//! - no `Debug` or `Display` text shows a secret, and only the hash of a secret is kept;
//! - a parsed name is safe in a log, a label, a host name or a file name.
//!
//! Leaves to the caller: randomness, the storage of tokens, counting and delaying of denials, TLS, and ending the links of
//! revoked credentials.
//!
//! Cost: one hash of fixed length and one comparison per known token at each registration; on the data path two reference
//! counts per clone of a grant.
//!
//! Proof: `tests/properties.rs` against a map of tokens and a simple grammar of names.

mod authenticator;
mod claim;
mod credential;
mod grant;
mod hex;
mod link;
mod name;
mod token;

pub use authenticator::{Authenticator, DenialReason, Denied};
pub use claim::ClientClaim;
pub use credential::{Credential, CredentialKey};
pub use grant::Grant;
pub use link::{InstanceKey, InstanceSecret, LinkKey, ParseSecretError, SessionToken};
pub use name::{ClientId, GroupId, NameError, NameProblem, TunnelName, UserName};
pub use token::{
    MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, TokenAuthenticator, TokenProblem, TokenSetError, check_token,
    generate_token,
};
