//! What is known of a request beside what it says itself.

use std::sync::Arc;

use tokio::time::Instant;

/// Whose a request is, for what is told of it. Empty where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestOwner {
    /// Whose credential the link was made with.
    pub user: Box<str>,
    /// The client's group.
    pub group: Box<str>,
    /// The client at the other end, or this one.
    pub client: Box<str>,
}

/// How a request has come to [`Egress`](crate::Egress).
#[derive(Debug, Clone, Default)]
pub struct RequestOrigin {
    /// Whose it is.
    pub owner: Arc<RequestOwner>,
    /// Since when it has waited for its turn, by the runtime's clock: it counts from then, and the wait is a phase of it.
    /// `None`: it has not waited.
    pub waited_since: Option<Instant>,
}
