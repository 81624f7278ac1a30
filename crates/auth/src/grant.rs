//! The grant of a client.

use std::sync::Arc;

use crate::{ClientClaim, ClientId, CredentialKey, GroupId, TunnelName, UserName};

/// The owner of a link; for a request also its tunnel and the revision of the configuration. Cheap to clone: all requests
/// of a link share its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    link: Arc<LinkNames>,
    tunnel: Option<TunnelName>,
    revision: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct LinkNames {
    user: UserName,
    client: ClientId,
    group: GroupId,
    credential: Option<CredentialKey>,
}

impl Grant {
    /// The grant of a link. For authenticators: the caller has verified the user.
    #[must_use]
    pub fn for_link(user: UserName, claim: ClientClaim) -> Self {
        Self::earned_by(user, claim, None)
    }

    /// The grant of a whole link, for the client that presented this credential.
    pub(crate) fn earned_by(
        user: UserName,
        claim: ClientClaim,
        credential: Option<CredentialKey>,
    ) -> Self {
        Self {
            link: Arc::new(LinkNames {
                user,
                client: claim.client_id,
                group: claim.group_id,
                credential,
            }),
            tunnel: None,
            revision: 0,
        }
    }

    /// The grant of one request of this link.
    #[must_use]
    pub fn for_tunnel(&self, tunnel: TunnelName, revision: u64) -> Self {
        Self {
            link: Arc::clone(&self.link),
            tunnel: Some(tunnel),
            revision,
        }
    }

    /// The user of the credential.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.link.user
    }

    /// The credential that the client presented; `None` where no credential was needed.
    #[must_use]
    pub fn credential(&self) -> Option<CredentialKey> {
        self.link.credential
    }

    /// The client at the other end of the link.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.link.client
    }

    /// The group of the client.
    #[must_use]
    pub fn group(&self) -> &GroupId {
        &self.link.group
    }

    /// The tunnel of the request; `None` for the grant of a link.
    #[must_use]
    pub fn tunnel(&self) -> Option<&TunnelName> {
        self.tunnel.as_ref()
    }

    /// The revision of the configuration under which the request was opened; 0 for a link.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
