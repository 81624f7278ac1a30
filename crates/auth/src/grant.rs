//! The grant of a client.

use std::sync::{Arc, Mutex, PoisonError};

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

#[derive(Debug)]
struct LinkGrant {
    user: UserName,
    client: ClientId,
    group: GroupId,
    /// Replaced by a renewal. It is not read on the data path.
    credential: Mutex<Option<CredentialKey>>,
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
                credential: Mutex::new(credential),
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
        let credential = self.link.credential.lock();
        *credential.unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the credential of this grant, and of all that share its link, by that of another grant of the same client: the
    /// link then ends with the new credential.
    ///
    /// # Errors
    /// [`RenewalError`]: the grants differ in more than the credential. Nothing has changed then.
    pub fn renew(&self, by: &Self) -> Result<(), RenewalError> {
        let (old, new) = (&self.link, &by.link);
        if (&old.client, &old.group) != (&new.client, &new.group) {
            return Err(RenewalError::Client);
        }
        if old.user != new.user {
            return Err(RenewalError::User);
        }
        let is_proved_by_handshake = |grant: &Self| {
            let credential = grant.credential();
            matches!(credential, Some(CredentialKey::ClientCertificate { .. }))
                || grant.has_certificate()
        };
        if is_proved_by_handshake(self) || is_proved_by_handshake(by) {
            return Err(RenewalError::Certificate);
        }
        if old.scopes != new.scopes {
            return Err(RenewalError::Scopes);
        }
        let credential = by.credential();
        *self
            .link
            .credential
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = credential;
        Ok(())
    }

    /// The user of the credential.
    #[must_use]
    pub fn user(&self) -> &UserName {
        &self.link.user
    }

    /// The id of the credential; `None` for a token, which has none, and where no credential was needed.
    #[must_use]
    pub fn credential_id(&self) -> Option<CredentialId> {
        self.credential().and_then(|credential| credential.id())
    }

    /// Whether the client proved its identity by a certificate of the server's own CA.
    #[must_use]
    pub fn has_certificate(&self) -> bool {
        matches!(self.credential(), Some(CredentialKey::Certificate(_)))
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

impl PartialEq for LinkGrant {
    fn eq(&self, other: &Self) -> bool {
        let credential = |grant: &Self| {
            let credential = grant.credential.lock();
            *credential.unwrap_or_else(PoisonError::into_inner)
        };
        (&self.user, &self.client, &self.group, &self.scopes)
            == (&other.user, &other.client, &other.group, &other.scopes)
            && credential(self) == credential(other)
    }
}

impl Eq for LinkGrant {}

/// Why a grant does not continue with another credential. The text is for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// The new credential is for another client or group.
    #[error("the new credential is not for this client")]
    Client,
    /// The new credential is of another user.
    #[error("the new credential is of another user: the client has to connect again")]
    User,
    /// A certificate is proved by the handshake of a connection.
    #[error("a link that was authenticated by a certificate is not renewed by a token")]
    Certificate,
    /// The new credential has other scopes.
    #[error("the new credential has other scopes: the client has to connect again")]
    Scopes,
}
