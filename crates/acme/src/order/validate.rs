//! The validation of a name (RFC 8555, 7.5).

use instant_acme::{AuthorizationStatus, ChallengeType, Order};

use super::{
    Job, Stopped,
    poll::Poll,
    present::{Presented, Proof},
};
use crate::{
    account::Session,
    error::{OrderError, printable},
    nonce::with_nonce,
    schedule::Cause,
    settings::Validation,
};

impl Job<'_> {
    /// Proves to the CA that the name leads here.
    pub(super) async fn validate(
        &self,
        session: &Session,
        order: &mut Order,
    ) -> Result<Result<(), OrderError>, Stopped> {
        let proof = match self.until_stopped(self.proof(session, order)).await? {
            Ok(Some(proof)) => proof,
            // The CA has validated the name before, and remembers it.
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        };
        // Not until it is stopped: a record that is being added would be left behind.
        let presented = match Presented::new(self.validation, self.answers, self.name, &proof).await
        {
            Ok(presented) => presented,
            Err(error) => return Ok(Err(error)),
        };
        let confirmed = self.until_stopped(async {
            presented.wait().await?;
            self.confirm(session, order).await
        });
        let confirmed = confirmed.await;
        presented.withdraw().await;
        confirmed
    }

    /// What the CA wants to see; `None` if it has validated the name already.
    async fn proof(
        &self,
        session: &Session,
        order: &mut Order,
    ) -> Result<Option<Proof>, OrderError> {
        let explain = |error| self.context(session).error("read the order", error);
        // The library keeps the authorization once it is read.
        let read = with_nonce!(async {
            let first = order
                .authorizations()
                .next()
                .await
                .map(|first| first.map(drop));
            first.transpose()
        });
        read.map_err(explain)?;
        let mut authorizations = order.authorizations();
        let Some(authorization) = authorizations.next().await else {
            return Ok(None);
        };
        let mut authorization = authorization.map_err(explain)?;
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(None),
            AuthorizationStatus::Pending => {}
            status => {
                let text = format!(
                    "the CA {} has ended the validation of {} ({status:?})",
                    self.ca.host(),
                    self.name
                );
                return Err(OrderError::new(Cause::Refused, text));
            }
        }
        let offered = authorization.challenges.iter();
        let offered: Vec<_> = offered.map(|challenge| method(&challenge.r#type)).collect();
        let kind = self.challenge_type();
        match authorization.challenge(kind) {
            Some(challenge) => Ok(Some(Proof::of(&challenge))),
            None => Err(OrderError::new(
                Cause::Refused,
                format!(
                    "the CA {} does not validate {} by {}; it offers {}",
                    self.ca.host(),
                    self.name,
                    self.validation.name(),
                    offered.join(", ")
                ),
            )),
        }
    }

    fn challenge_type(&self) -> ChallengeType {
        match self.validation {
            Validation::Http01 => ChallengeType::Http01,
            Validation::TlsAlpn01 => ChallengeType::TlsAlpn01,
            Validation::Dns01(_) => ChallengeType::Dns01,
        }
    }

    /// Lets the CA validate, and waits until it has.
    async fn confirm(&self, session: &Session, order: &mut Order) -> Result<(), OrderError> {
        let explain = |error| self.context(session).error("validate the name", error);
        let kind = self.challenge_type();
        let gone = || {
            OrderError::new(
                Cause::Refused,
                format!("the CA {} has lost the order", self.ca.host()),
            )
        };
        {
            let mut authorizations = order.authorizations();
            let authorization = authorizations.next().await.ok_or_else(gone)?;
            let mut authorization = authorization.map_err(explain)?;
            let mut challenge = authorization.challenge(kind.clone()).ok_or_else(gone)?;
            with_nonce!(challenge.set_ready()).map_err(explain)?;
        }
        let waited = self.timeouts.validation;
        let (ca, name) = (self.ca.host(), self.name);
        let slow = format!("the CA {ca} has not validated {name} within {waited:?}");
        let mut slow = OrderError::new(Cause::Unreachable, slow);
        let mut poll = Poll::new(waited);
        while poll.next().await {
            let mut authorizations = order.authorizations();
            let authorization = authorizations.next().await.ok_or_else(gone)?;
            let mut authorization = authorization.map_err(explain)?;
            let state = match authorization.refresh().await.map_err(explain) {
                Ok(state) => state,
                // The CA may have validated the name already: it is asked until the time is over.
                Err(error) if error.is_of_ca() => {
                    slow = error;
                    continue;
                }
                Err(error) => return Err(error),
            };
            match state.status {
                AuthorizationStatus::Valid => return Ok(()),
                AuthorizationStatus::Pending => {}
                status => {
                    let mut challenges = state.challenges.iter();
                    let failed = challenges.find_map(|challenge| challenge.error.as_ref());
                    return Err(match failed {
                        Some(problem) => {
                            let mut error = self.context(session).problem(problem);
                            if matches!(error.failure.cause, Cause::Refused) {
                                error.failure.cause = Cause::Validation;
                            }
                            error
                        }
                        None => OrderError::new(
                            Cause::Validation,
                            format!(
                                "the CA {} could not validate {} ({status:?})",
                                self.ca.host(),
                                self.name
                            ),
                        ),
                    });
                }
            }
        }
        Err(slow)
    }
}

/// The name of a method, as in RFC 8555.
fn method(kind: &ChallengeType) -> String {
    match kind {
        ChallengeType::Http01 => "http-01".to_owned(),
        ChallengeType::Dns01 => "dns-01".to_owned(),
        ChallengeType::TlsAlpn01 => "tls-alpn-01".to_owned(),
        other => printable(&format!("{other:?}")),
    }
}
