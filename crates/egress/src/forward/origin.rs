//! The properties of a request besides its head: its owner, and how long it has waited.

use std::sync::Arc;

use tokio::time::Instant;

/// The owner that a request's record names. Fields are empty where the owner is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestOwner {
    /// The user whose credential the link was registered with.
    pub user: Box<str>,
    /// The client's group.
    pub group: Box<str>,
    /// The client at the other end of the link, or this client itself.
    pub client: Box<str>,
}

/// The origin of a request that is passed to [`Egress`](crate::Egress).
#[derive(Debug, Clone, Default)]
pub struct RequestOrigin {
    /// The owner of the request.
    pub owner: Arc<RequestOwner>,
    /// When the request began to wait for its turn, by the runtime's clock; `None` if it has not waited. The request's
    /// duration counts from then, and the wait is a phase of it.
    pub waited_since: Option<Instant>,
}
