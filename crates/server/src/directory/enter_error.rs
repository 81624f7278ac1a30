//! Why a client may not register.

use thiserror::Error;

/// Why a client may not register under its names.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EnterError {
    /// The group is shared by other users, by the settings.
    #[error(
        "group `{group}` is shared by other users (`server.shared_groups`); choose another group_id"
    )]
    NotShared { group: String },
    /// The group belongs to another user.
    #[error("group `{group}` belongs to another user{kept}; choose another group_id")]
    Group { group: String, kept: String },
    /// The client id belongs to another user.
    #[error(
        "client id `{client}` belongs to another user, of group `{group}`{kept}; choose another client_id"
    )]
    Client {
        client: String,
        group: String,
        kept: String,
    },
}
