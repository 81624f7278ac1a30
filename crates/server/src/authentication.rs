//! Authenticates clients: with a bound of the guesses of an address, a delay of refusals, and a look for keys that are not
//! known yet.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_auth::{
    Attempt, ClientClaim, Credential, DenialReason, Denied, Grant, JwtKeyHint, RenewalError,
};
use adit_link::control::{Refusal, RefusalReason};
use adit_registry::Link;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::{
    authorization::Authorization, configuration::InForce, floods::Floods, guesses::Guesses,
    identities::Identities,
};

/// Authenticates clients; shared by all connections.
pub(crate) struct Authentication {
    authorization: Arc<Authorization>,
    identities: Arc<Identities>,
    floods: Arc<Floods>,
    guesses: Arc<Guesses>,
    config: Arc<InForce>,
}

impl Authentication {
    pub(crate) fn new(
        authorization: Arc<Authorization>,
        identities: Arc<Identities>,
        (floods, guesses): (Arc<Floods>, Arc<Guesses>),
        config: Arc<InForce>,
    ) -> Self {
        Self {
            authorization,
            identities,
            floods,
            guesses,
            config,
        }
    }

    /// The grant of a client with this credential (P-1.3).
    ///
    /// # Errors
    /// The refusal for the client.
    pub(crate) async fn authenticate(
        &self,
        peer: SocketAddr,
        credential: &Credential,
        claim: &ClientClaim,
    ) -> Result<Grant, Refusal> {
        let began = Instant::now();
        let address = peer.ip();
        // A certificate cannot be guessed: the handshake has proved it.
        let is_guess = !matches!(
            credential,
            Credential::Certificate(_) | Credential::ClientCertificate(_)
        );
        if is_guess {
            self.may_guess(address, began)?;
        }
        let attempt = || {
            self.authorization.authenticator().authenticate(&Attempt {
                credential,
                claim,
                address,
                now: SystemTime::now(),
            })
        };
        let mut result = attempt();
        if let Err(denied) = &result
            && self.finds_key(denied.reason(), credential, address).await
        {
            result = attempt();
        }
        match result {
            Ok(grant) => Ok(grant),
            Err(denied) => {
                let client = &claim.client_id;
                self.floods.denied(client, peer, denied.reason());
                Err(self.denied(address, began, denied, is_guess).await)
            }
        }
    }

    /// Replaces the credential of a link (P-1.22).
    ///
    /// # Errors
    /// The refusal for the client; the link keeps its credential.
    pub(crate) async fn renew(
        &self,
        link: &Arc<Link>,
        credential: &Credential,
    ) -> Result<(), Refusal> {
        let grant = link.grant();
        let claim = ClientClaim {
            client_id: grant.client().clone(),
            group_id: grant.group().clone(),
        };
        let new = self.authenticate(link.peer(), credential, &claim).await?;
        grant
            .renew(&new)
            .map_err(|error: RenewalError| Refusal::new(RefusalReason::Forbidden, error))?;
        let (client, user) = (grant.client(), grant.user());
        tracing::info!(%client, %user, "the credential of the link was renewed");
        // The new one may have been revoked since it was checked.
        self.authorization.look(link);
        Ok(())
    }

    /// Whether the key of a token that was denied was found at its issuer, before the connection ends for want of a session.
    async fn finds_key(
        &self,
        reason: DenialReason,
        credential: &Credential,
        address: IpAddr,
    ) -> bool {
        use DenialReason::{UnknownSigningKey, WrongAlgorithm, WrongSignature};

        let Credential::Token(text) = credential else {
            return false;
        };
        if !matches!(reason, UnknownSigningKey | WrongAlgorithm | WrongSignature) {
            return false;
        }
        let Some(hint) = JwtKeyHint::of(text.expose_secret()) else {
            return false;
        };
        // A key that the token names, and that is known, has not signed it. One without a name may be of any key.
        if hint.key_id.is_some() && reason != UnknownSigningKey {
            return false;
        }
        let setup = self.config.load().settings.timeouts.setup;
        self.identities
            .find_key(&hint, address, most_of(setup))
            .await
    }

    /// Refuses an address that has presented too many wrong credentials.
    ///
    /// # Errors
    /// The refusal for the client.
    pub(crate) fn may_guess(&self, address: IpAddr, now: Instant) -> Result<(), Refusal> {
        let waits = self.guesses.check(address, now.into_std());
        waits.map_err(|wait| {
            let text = format!(
                "too many wrong credentials have come from this address; the next attempt is possible in {} s",
                wait.as_secs() + 1
            );
            Refusal::new(RefusalReason::Limit, text)
        })
    }

    /// The refusal of a wrong credential, after a time that is the same for every cause. A guess counts for its address.
    pub(crate) async fn denied(
        &self,
        address: IpAddr,
        began: Instant,
        denied: Denied,
        is_guess: bool,
    ) -> Refusal {
        if let DenialReason::AwaitsApproval(id) = denied.reason() {
            let text = format!(
                "this client awaits approval: run `adit-server key approve {id}` on the server's machine"
            );
            return Refusal::new(RefusalReason::Forbidden, text);
        }
        if is_guess {
            self.guesses.count(address, began.into_std());
        }
        let delay = self.config.load().settings.timeouts.denial;
        tokio::time::sleep_until(began + delay).await;
        Refusal::new(RefusalReason::Unauthenticated, denied)
    }
}

/// Leaves time for the response.
fn most_of(setup: Duration) -> Duration {
    setup - setup / 5
}
