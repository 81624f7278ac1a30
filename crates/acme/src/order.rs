//! One order at a CA, from the account to the certificate (RFC 8555, 7.4).

mod issue;
mod poll;
mod present;
mod validate;

use std::sync::Arc;

use instant_acme::{CertificateIdentifier, Error as AcmeError, Identifier, NewOrder, Order};
use tokio_util::sync::CancellationToken;

use crate::{
    account::{CaAccount, Session},
    certificate::Certificate,
    challenge::Answers,
    error::{Context, OrderError},
    http::HttpError,
    name::CertName,
    nonce::with_nonce,
    problem::is_problem,
    settings::{Timeouts, Validation},
};

/// What an order needs.
pub(crate) struct Job<'a> {
    pub(crate) ca: &'a CaAccount,
    pub(crate) name: &'a CertName,
    pub(crate) validation: &'a Validation,
    pub(crate) answers: &'a Arc<dyn Answers>,
    pub(crate) timeouts: Timeouts,
    /// The certificate that is renewed, for a CA that exempts renewals from its limits (RFC 9773, 5).
    pub(crate) replaces: Option<CertificateIdentifier<'static>>,
    pub(crate) stop: &'a CancellationToken,
}

/// How an order ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Issued(Certificate),
    Failed(OrderError),
    /// It was given up at a shutdown.
    Abandoned {
        may_have_issued: bool,
    },
}

/// What is learnt of an order while it runs.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Seen {
    /// The CA accepted the order.
    pub(crate) accepted: bool,
    /// The CA did not accept that the order replaces a certificate.
    pub(crate) replaces_refused: bool,
}

/// The order was given up.
struct Stopped;

impl Job<'_> {
    /// Runs the order. Answers and records of the validation are removed at its end, whatever the end is.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a record of dns-01 behind; cancel `stop` instead, which ends it within the time of one
    /// change of a record, or within [`Timeouts::shutdown`] in the last step.
    pub(crate) async fn run(&self, seen: &mut Seen) -> Ended {
        let (session, mut order) = match self.until_stopped(self.begin(seen)).await {
            Ok(Ok(begun)) => begun,
            Ok(Err(error)) => return Ended::Failed(error),
            Err(Stopped) => {
                return Ended::Abandoned {
                    may_have_issued: false,
                };
            }
        };
        match self.validate(&session, &mut order).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Ended::Failed(error),
            Err(Stopped) => {
                return Ended::Abandoned {
                    may_have_issued: false,
                };
            }
        }
        let stopped = async {
            self.stop.cancelled().await;
            tokio::time::sleep(self.timeouts.shutdown).await;
        };
        tokio::select! {
            issued = self.issue(&session, &mut order) => match issued {
                Ok(certificate) => Ended::Issued(certificate),
                Err(error) => Ended::Failed(error),
            },
            () = stopped => Ended::Abandoned { may_have_issued: true },
        }
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Stopped> {
        tokio::select! {
            done = work => Ok(done),
            () = self.stop.cancelled() => Err(Stopped),
        }
    }

    fn context(&self, session: &Session) -> Context<'_> {
        self.ca
            .context(self.name.base(), self.validation, &session.retry_after)
    }

    /// The account and a new order.
    async fn begin(&self, seen: &mut Seen) -> Result<(Session, Order), OrderError> {
        let host = self.name.base();
        let mut session = self.ca.session(host, self.validation).await?;
        let mut order = self.new_order(&session, seen).await;
        if let Err(error) = &order
            && self.ca.forget(&session, error).await
        {
            session = self.ca.session(host, self.validation).await?;
            order = self.new_order(&session, seen).await;
        }
        let order =
            order.map_err(|error| self.context(&session).error("create an order", error))?;
        seen.accepted = true;
        Ok((session, order))
    }

    async fn new_order(&self, session: &Session, seen: &mut Seen) -> Result<Order, AcmeError> {
        let identifiers = [Identifier::Dns(self.name.to_string())];
        if let Some(replaces) = &self.replaces {
            let order = NewOrder::new(&identifiers).replaces(replaces.clone());
            match with_nonce!(session.account.new_order(&order)) {
                Err(error) if is_about_replaces(&error) => {
                    // Without this, the certificate would expire while each order is refused.
                    tracing::info!(name = %self.name, %error, "the CA does not accept that the order replaces the certificate");
                    seen.replaces_refused = true;
                }
                other => return other,
            }
        }
        let order = NewOrder::new(&identifiers);
        with_nonce!(session.account.new_order(&order))
    }
}

/// Whether an order may succeed without `replaces`: the CA has replaced the certificate already (409), does not know it, or
/// has no renewal information.
fn is_about_replaces(error: &AcmeError) -> bool {
    match error {
        AcmeError::Api(_) => {
            let others = [
                "rateLimited",
                "accountDoesNotExist",
                "serverInternal",
                "badNonce",
                "rejectedIdentifier",
            ];
            !others.iter().any(|kind| is_problem(error, kind))
        }
        AcmeError::Other(error) => match error.downcast_ref::<HttpError>() {
            Some(HttpError::Status(status)) => status.as_u16() == 409,
            Some(_) => false,
            // The CA did not repeat the field in its response.
            None => true,
        },
        AcmeError::Unsupported(_) => true,
        _ => false,
    }
}
