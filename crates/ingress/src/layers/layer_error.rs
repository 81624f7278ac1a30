//! Why a layer of a configuration is invalid.

use thiserror::Error;

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
