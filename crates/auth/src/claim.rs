//! The identity that a client reports when it registers.

use crate::{ClientId, GroupId};

/// The identity that a client reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientClaim {
    /// The name of this client.
    pub client_id: ClientId,
    /// The group whose load the client shares.
    pub group_id: GroupId,
}
