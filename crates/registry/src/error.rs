//! Why a client or a stream is refused.

use adit_auth::{ClientId, UserName};
use thiserror::Error;

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RegisterError {
    /// Another machine holds the name, and it responds (P-1.8).
    #[error(
        "client id `{client}` is in use by another instance that responds; choose another client_id or stop the other one"
    )]
    ClientIdTaken {
        /// The name.
        client: ClientId,
    },
    /// The name belongs to another user.
    #[error("client id `{client}` belongs to another user")]
    OtherUser {
        /// The name.
        client: ClientId,
    },
    /// The scopes of the user do not allow more clients.
    #[error("user `{user}` has its limit of {limit} clients already (`max_clients` of its scopes)")]
    TooManyClientsOfUser {
        /// The user.
        user: UserName,
        /// The bound.
        limit: u32,
    },
    /// The user has its share of the clients.
    #[error(
        "user `{user}` has its limit of {limit} clients already (`server.limits.max_clients_per_user`, \
         by default half of `server.max_clients`)"
    )]
    ShareOfUser {
        /// The user.
        user: UserName,
        /// The bound.
        limit: usize,
    },
    /// The limit of clients is reached.
    #[error("the server already has its limit of {limit} clients (`server.max_clients`)")]
    TooManyClients {
        /// The bound.
        limit: usize,
    },
}

/// Why a stream is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamError {
    /// No such session: never issued, taken over, or ended (P-1.5).
    #[error("the session is unknown or stale; register again")]
    StaleSession,
    /// The lane number is not below the agreed number.
    #[error("lane {lane} is not below the agreed number of lanes, {lanes}")]
    NoSuchLane {
        /// The requested number.
        lane: u32,
        /// The agreed number.
        lanes: u32,
    },
}
