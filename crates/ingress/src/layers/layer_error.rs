//! Why a layer of a configuration is invalid.

use thiserror::Error;

use crate::layers::network::ParseNetworkError;

/// A part of a layer's configuration that is invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LayerError {
    /// The name of a header is not a token (RFC 9110, 5.1).
    #[error("invalid header name {name:?}")]
    HeaderName {
        /// The start of the name.
        name: String,
    },
    /// The header frames, routes or controls its message, or ends a call of gRPC.
    #[error("the header `{name}` cannot be changed: it controls the message or the connection")]
    ReservedHeader {
        /// The header.
        name: String,
    },
    /// The value of a header, which is not shown: it may be a secret.
    #[error(
        "invalid value of the header `{name}`: it has a control character, or a blank at an end"
    )]
    HeaderValue {
        /// The header.
        name: String,
    },
    /// The status is not allowed for the layer.
    #[error("invalid status {status}: expected {expected}")]
    Status {
        /// The status.
        status: u32,
        /// The allowed statuses.
        expected: &'static str,
    },
    /// A response with this status has no body (RFC 9110, 6.4.1).
    #[error("a response with status {status} has no body")]
    Body {
        /// The status.
        status: u16,
    },
    /// A list of networks has none.
    #[error("expected networks to allow or to deny")]
    NoNetworks,
    /// A text that is not a network.
    #[error(transparent)]
    Network(#[from] ParseNetworkError),
    /// The hash of a password, which is not shown.
    #[error("invalid hash of a password: {problem}; `adit hash-password` makes one")]
    PasswordHash {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A password, which is not shown.
    #[error("a password has from {shortest} to {longest} bytes")]
    Password {
        /// The least bytes.
        shortest: usize,
        /// The most bytes.
        longest: usize,
    },
    /// The number of users.
    #[error("expected from 1 to {most} users")]
    Users {
        /// The most users.
        most: usize,
    },
    /// The hashes of the users were made with different parameters, each of which takes a check of its own (P-15.6).
    #[error(
        "the hashes of the users have more than {most} different parameters: make them with the same ones, such as those of `adit hash-password`"
    )]
    Parameters {
        /// The most different parameters.
        most: usize,
    },
    /// The name of a user.
    #[error(
        "invalid user {name:?}: a name has no colon, no control character and no blank at an end, at most 128 bytes, and stands once"
    )]
    User {
        /// The start of the name.
        name: String,
    },
    /// The realm of a log-in.
    #[error(
        "invalid realm {realm:?}: expected at most 128 characters of visible ASCII without quotes and backslashes"
    )]
    Realm {
        /// The start of the realm.
        realm: String,
    },
    /// A token, which is not shown.
    #[error("a token has at least {shortest} bytes, no control character, and no blank at an end")]
    Token {
        /// The least bytes.
        shortest: usize,
    },
    /// The number of tokens.
    #[error("expected from 1 to {most} tokens")]
    Tokens {
        /// The most tokens.
        most: usize,
    },
    /// The hash of a token.
    #[error("the hash of a token has 32 bytes")]
    TokenHash,
    /// A rate.
    #[error("invalid rate {rate:?}: write it as 10/s, 100/m, 1000/h or 10000/d")]
    Rate {
        /// The start of the text.
        rate: String,
    },
    /// A rate limit has no rate.
    #[error("expected a rate of requests or of connections")]
    NoRate,
    /// A ban.
    #[error("a ban needs at least one denial, and times from a second to a year")]
    Ban,
    /// A rule that visitors cannot meet by proving something.
    #[error("a layer `{kind}` proves nothing about a visitor, so that it cannot be sufficient")]
    NeverSufficient {
        /// The kind of the layer.
        kind: &'static str,
    },
    /// A redirection has no target.
    #[error("expected a scheme or a host to redirect to")]
    NoTarget,
    /// The scheme of a redirection.
    #[error("invalid scheme {scheme:?}: expected `http` or `https`")]
    Scheme {
        /// The start of the scheme.
        scheme: String,
    },
    /// The host of a redirection.
    #[error(
        "invalid host {host:?}: expected a host name or an address, with a port if it is not the default one"
    )]
    Host {
        /// The start of the host.
        host: String,
    },
}

/// The start of a text, for an error.
pub(super) fn start_of(text: &[u8]) -> String {
    const LONGEST: usize = 64;
    let text = String::from_utf8_lossy(text);
    text.chars().take(LONGEST).collect()
}
