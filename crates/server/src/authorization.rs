//! Whether a link may still be used: its credential is accepted, with the scopes that it registered with.

use std::{sync::Arc, time::SystemTime};

use adit_auth::{Authenticator, Lapsed};
use adit_link::{Failure, Reason};
use adit_registry::{Link, Registry};

/// Compares links with the credentials in force.
pub(crate) struct Authorization {
    authenticator: Arc<dyn Authenticator>,
    registry: Arc<Registry>,
}

impl Authorization {
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>, registry: Arc<Registry>) -> Arc<Self> {
        Arc::new(Self {
            authenticator,
            registry,
        })
    }

    pub(crate) fn authenticator(&self) -> &dyn Authenticator {
        &*self.authenticator
    }

    /// Whether a request may be opened on the link. Its credential is checked again if any has changed since it was
    /// checked last, and a link whose credential is not accepted any more is ended.
    ///
    /// # Cost
    /// Two loads and a comparison, except after a change.
    pub(crate) fn holds(&self, link: &Arc<Link>) -> bool {
        let revision = self.authenticator.revision();
        link.authorized_at() == revision || self.check(link, revision, SystemTime::now())
    }

    /// Ends the link if its credential is not accepted any more, whenever that was checked last: the credential is another one
    /// now.
    pub(crate) fn look(&self, link: &Arc<Link>) -> bool {
        self.check(link, self.authenticator.revision(), SystemTime::now())
    }

    /// Ends all links whose credentials are not accepted any more, and returns their number.
    ///
    /// # Cost
    /// Proportional to the links.
    pub(crate) fn end_lapsed(&self, now: SystemTime) -> usize {
        let revision = self.authenticator.revision();
        let links = self.registry.links().into_iter();
        links
            .filter(|link| !self.check(link, revision, now))
            .count()
    }

    fn check(&self, link: &Arc<Link>, revision: u64, now: SystemTime) -> bool {
        match self.authenticator.check(link.grant(), now) {
            Ok(()) => {
                link.set_authorized_at(revision);
                true
            }
            Err(lapsed) => {
                self.end(link, lapsed);
                false
            }
        }
    }

    fn end(&self, link: &Arc<Link>, lapsed: Lapsed) {
        if link.is_ended() {
            return;
        }
        let (client, user) = (link.grant().client(), link.grant().user());
        tracing::info!(%client, %user, "link ended: {lapsed}");
        // Visitors read this text: the cause is for the log.
        let failure = Failure::new(Reason::LinkLost, "the link of the client has ended");
        self.registry.end(link, &failure);
    }
}
