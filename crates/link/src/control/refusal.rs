//! Why a call of a client fails.

use std::fmt;

use thiserror::Error;

/// The reason of a refused call, as `docs/protocol.md` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The sides have different versions of the protocol (P-1.2).
    Version,
    /// A field of the call is missing or malformed.
    BadRequest,
    /// The credential is invalid (P-1.3).
    Unauthenticated,
    /// The scopes of the credential do not allow the names of the client, or it awaits approval (P-1.18).
    Forbidden,
    /// The session is unknown, taken over or ended (P-1.5).
    StaleSession,
    /// The client id is in use, or belongs to another user (P-1.8, P-1.9).
    ClientIdTaken,
    /// The group belongs to another user (P-1.9).
    GroupTaken,
    /// A bound of the server is reached.
    Limit,
    /// The bytes of a stream are not messages (P-1.13).
    ProtocolError,
    /// An internal error of the server.
    Internal,
}

impl RefusalReason {
    /// All reasons.
    pub const ALL: [Self; 10] = [
        Self::Version,
        Self::BadRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::StaleSession,
        Self::ClientIdTaken,
        Self::GroupTaken,
        Self::Limit,
        Self::ProtocolError,
        Self::Internal,
    ];

    /// The reason on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::BadRequest => "bad_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::StaleSession => "stale_session",
            Self::ClientIdTaken => "client_id_taken",
            Self::GroupTaken => "group_taken",
            Self::Limit => "limit",
            Self::ProtocolError => "protocol_error",
            Self::Internal => "internal",
        }
    }

    /// The reason with this name; `None` for a name of a newer server.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A call that the server refuses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The reason, for programs.
    pub reason: RefusalReason,
    /// The details, for the client's log.
    pub detail: String,
}

impl Refusal {
    /// A refusal; `detail` may be an error.
    #[allow(clippy::needless_pass_by_value)] // for errors in map_err
    pub fn new(reason: RefusalReason, detail: impl ToString) -> Self {
        Self {
            reason,
            detail: detail.to_string(),
        }
    }
}

/// Why a call of this client failed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    /// The server refused the call.
    #[error("{0}")]
    Refused(Refusal),
    /// The peer uses the same transport, but does not know the methods of adit.
    #[error("{0}")]
    NotAdit(String),
    /// The connection was lost, or the call failed for a cause that may be temporary.
    #[error("{0}")]
    Lost(String),
}

impl CallError {
    /// The reason, when the server refused the call.
    pub const fn reason(&self) -> Option<RefusalReason> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason),
            Self::NotAdit(_) | Self::Lost(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        for reason in RefusalReason::ALL {
            assert_eq!(RefusalReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(RefusalReason::parse("a newer one"), None);
    }
}
