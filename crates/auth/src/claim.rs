//! What a client says of itself when it asks for a link.

use crate::{ClientId, GroupId};

/// Who a client says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientClaim {
    /// The name of this client.
    pub client_id: ClientId,
    /// The group whose load it shares.
    pub group_id: GroupId,
}
