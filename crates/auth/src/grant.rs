//! The grant of a client.

use std::sync::Arc;

use crate::{
    ClientClaim, ClientId, CredentialId, GroupId, OutOfScope, Scopes, TunnelName, UserName, Wanted,
    credential::CredentialKey,
};

/// The owner of a link and what it may use; for a request also its tunnel and the revision of the configuration. Cheap to
/// clone: all requests of a link share its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    link: Arc<LinkGrant>,
    tunnel: Option<TunnelName>,
    revision: u64,
}

#[derive(Debug, PartialEq, Eq)]
struct LinkGrant {
    user: UserName,
    client: ClientId,
    group: GroupId,
    credential: Option<CredentialKey>,
    /// Of the user and of the credential: everything must be allowed by each.
    scopes: Vec<Arc<Scopes>>,
}

impl Grant {
    /// The grant of a link without a credential and without restrictions. For links that this process makes itself.
    #[must_use]
    pub fn for_link(user: UserName, claim: ClientClaim) -> Self {
        Self::earned_by(user, claim, None, Vec::new())
    }

    /// The grant of a whole link, for the client that presented this credential.
    pub(crate) fn earned_by(
        user: UserName,
        claim: ClientClaim,
        credential: Option<CredentialKey>,
        scopes: Vec<Arc<Scopes>>,
    ) -> Self {
        Self {
            link: Arc::new(LinkGrant {
                user,
                client: claim.client_id,
                group: claim.group_id,
                credential,
                scopes,
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

    /// Whether the scopes allow it.
    ///
    /// # Errors
    /// [`OutOfScope`], with the list that does not have it. The text is for the client.
    pub fn allows(&self, wanted: Wanted<'_>) -> Result<(), OutOfScope> {
        let refused = { self.link.scopes.iter() }.find_map(|scopes| scopes.refuses(wanted));
        match refused {
            None => Ok(()),
            Some((key, allowed)) => Err(OutOfScope {
                what: wanted.to_string(),
                user: self.link.user.clone(),
                key,
                allowed,
            }),
        }
    }

    /// The number of clients that the user may have at a time; `None`: no limit of its own.
    #[must_use]
    pub fn max_clients(&self) -> Option<u32> {
        self.least(|scopes| scopes.max_clients)
    }

    /// The number of tunnels that the client may have; `None`: no limit of its own.
    #[must_use]
    pub fn max_tunnels(&self) -> Option<u32> {
        self.least(|scopes| scopes.max_tunnels)
    }

    fn least(&self, number: impl Fn(&Scopes) -> Option<u32>) -> Option<u32> {
        self.link
            .scopes
            .iter()
            .filter_map(|scopes| number(scopes))
            .min()
    }

    pub(crate) fn scopes(&self) -> &[Arc<Scopes>] {
        &self.link.scopes
    }

    pub(crate) fn credential(&self) -> Option<CredentialKey> {
        self.link.credential
    }

    /// The user of the credential.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.link.user
    }

    /// The id of the credential; `None` for a token, which has none, and where no credential was needed.
    #[must_use]
    pub fn credential_id(&self) -> Option<CredentialId> {
        self.link.credential.and_then(|credential| credential.id())
    }

    /// Whether the client proved its identity by a certificate.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        matches!(self.link.credential, Some(CredentialKey::Certificate(_)))
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
