//! The owner of a tunnel.

use std::sync::Arc;

use adit_auth::Wanted;
use adit_registry::Link;

use super::claimant;
use crate::{names::Claimant, port::PortKey};

/// The owner of a tunnel, and the link that serves it.
#[derive(Clone)]
pub(crate) struct Owner {
    /// The user and the group that own its names.
    pub(crate) claimant: Claimant,
    /// The link that serves the tunnel from now on. Without one the tunnel waits for a client of its group, and is
    /// removed after the retention like every tunnel without clients.
    pub(crate) link: Option<Arc<Link>>,
}

impl Owner {
    /// Whether the scopes of the owner allow the port.
    pub(crate) fn allows(&self, port: PortKey) -> bool {
        let grant = self.link.as_ref().map(|link| link.grant());
        grant.is_none_or(|grant| grant.allows(Wanted::Port(port.number)).is_ok())
    }

    /// The client at the other end of a link.
    pub(crate) fn of_link(link: &Arc<Link>) -> Self {
        Self {
            claimant: claimant(link.grant()),
            link: Some(Arc::clone(link)),
        }
    }
}
