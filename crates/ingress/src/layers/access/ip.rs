//! Addresses that may visit.

use std::net::IpAddr;

use adit_link::Reason;

use crate::{
    forward::denial::Denial,
    layers::{access::opinion::Opinion, layer_error::LayerError, network::Network},
};

/// Networks whose visitors are admitted, and networks whose visitors are not (P-15.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRules {
    allow: Vec<Network>,
    deny: Vec<Network>,
}

impl IpRules {
    /// Visitors of `deny` are not admitted. If `allow` is not empty, only its visitors are.
    ///
    /// # Errors
    /// Both are empty.
    pub fn new(allow: Vec<Network>, deny: Vec<Network>) -> Result<Self, LayerError> {
        if allow.is_empty() && deny.is_empty() {
            return Err(LayerError::NoNetworks);
        }
        Ok(Self { allow, deny })
    }

    /// The networks that are admitted; empty: every one.
    pub fn allowed(&self) -> &[Network] {
        &self.allow
    }

    /// The networks that are not admitted.
    pub fn denied(&self) -> &[Network] {
        &self.deny
    }
}

/// The opinion of a list of networks that are not admitted.
pub(super) fn deny(networks: &[Network], visitor: IpAddr) -> Opinion {
    if networks.iter().any(|network| network.contains(visitor)) {
        return Opinion::denied(not_admitted());
    }
    Opinion::Pass
}

/// The opinion of a list of networks that are admitted.
pub(super) fn allow(networks: &[Network], visitor: IpAddr) -> Opinion {
    if networks.iter().any(|network| network.contains(visitor)) {
        return Opinion::Granted;
    }
    Opinion::unproven(not_admitted())
}

fn not_admitted() -> Denial {
    Denial::new(
        Reason::AccessDenied,
        "the visitor's address is not admitted",
    )
}
