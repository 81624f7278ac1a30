//! The states of a lane; `attachment.rs` has the transitions.

use adit_mux::Attachment;

use crate::failure::Failure;

/// The state of a lane's life.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The lane has a connection.
    Attached(Attachment),
    /// The lane has no connection, for this reason, and may get another one.
    Detached(Failure),
    /// The lane is over, for this reason.
    Closed(Failure),
}

/// The effect of a lost connection on its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnLoss {
    /// The lane is over.
    Close,
    /// The lane waits for another connection.
    Detach,
}
