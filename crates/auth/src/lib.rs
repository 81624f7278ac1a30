//! Authentication of clients, and the grants that result from it.
//!
//! Holds [`Principals`], all credentials that a server accepts, which decides as an [`Authenticator`]; the [`Records`] of which
//! it is made, with the changes that administrators and enrolments make to them; [`Scopes`], what a credential may use, as
//! data; the [`Grant`] that each request has from its opening to the access log; [`AccessKey`], the form of the keys that adit
//! issues; [`JwtIssuer`], the tokens of another system that are accepted; [`CertificateRules`], the certificates of other CAs that are; the rules for names; and the secrets that identify a link ([`SessionToken`], [`InstanceSecret`]).
//!
//! Promises:
//! - every wrong token or key costs the same work: two hashes of fixed length, two look-ups and a comparison. The work for a JWT
//!   depends on its key and its claims, which its sender knows, and not on a secret;
//! - the algorithm of a JWT is that of the key, whatever the JWT names, and a JWT without audience or expiry is refused;
//! - the peer receives the same text for every cause, which only the log contains ([`Denied`]);
//! - no `Debug` or `Display` text shows a secret, and only the hash of a secret is kept;
//! - everything that a grant allows is allowed by the scopes of the user and by those of the credential;
//! - a parsed name is safe in a log, a label, a host name or a file name.
//!
//! Leaves to the caller: randomness, the clock, the keys of issuers, the storage of the records, counting and delaying of denials, TLS, and ending
//! the links of grants that have lapsed.
//!
//! Cost: two hashes of fixed length at each registration; on the data path two reference counts per clone of a grant.
//!
//! Proof: `tests/properties.rs` against a map of tokens and a simple grammar of names; `tests/principals.rs`.

mod access_key;
mod authenticator;
mod claim;
mod client_certificate;
mod credential;
mod grant;
mod hex;
mod jwt;
mod link;
mod name;
mod principals;
mod records;
mod scopes;
mod store;
mod token;

pub use access_key::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, AccessKeyError, CredentialId, CredentialIdError, KeyKind,
    SecretHash,
};
pub use authenticator::{Attempt, Authenticator, DenialReason, Denied, Lapsed};
pub use claim::ClientClaim;
pub use client_certificate::{CertificateRules, CertificateUser};
pub use credential::{CertificateNames, Credential};
pub use grant::{Grant, RenewalError};
pub use jwt::{
    JwtAlgorithm, JwtAlgorithmError, JwtIssuer, JwtKey, JwtKeyError, JwtKeyHint, JwtRules, JwtUser,
    MAX_JWT_BYTES, MAX_JWT_HEADER_BYTES, jwt_expiry, looks_like_jwt,
};
pub use link::{InstanceKey, InstanceSecret, LinkKey, ParseSecretError, SessionToken};
pub use name::{ClientId, GroupId, NameError, NameProblem, TunnelName, UserName};
pub use principals::{Principals, StaticToken};
pub use records::{
    CredentialRecord, EnrolError, EnrolmentRecord, MAX_LABEL_BYTES, MAX_RECORDS, NewCredential,
    Proof, RecordError, Records, UserRecord,
};
pub use scopes::{
    HostScope, NamePattern, OutOfScope, PortScope, Protocol, ScopeFormError, Scopes, Wanted,
};
pub use store::{EnrolStoreError, NoRecords, RecordStore, StoreError};
pub use token::{
    MAX_TOKEN_BYTES, MIN_TOKEN_BYTES, TokenProblem, TokenSetError, check_credential, check_token,
    generate_token, hash_token,
};
