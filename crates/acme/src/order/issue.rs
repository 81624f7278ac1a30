//! The last step of an order: the certificate of a validated name (RFC 8555, 7.4).

use std::time::SystemTime;

use instant_acme::{Order, OrderStatus};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::{Job, poll::Poll};
use crate::{
    account::Session, certificate::Certificate, error::OrderError, name::CertName,
    nonce::with_nonce, schedule::Cause,
};

impl Job<'_> {
    /// Requests the certificate of a validated name, and receives it.
    pub(super) async fn issue(
        &self,
        session: &Session,
        order: &mut Order,
    ) -> Result<Certificate, OrderError> {
        let explain = |error| self.context(session).error("issue the certificate", error);
        let mut poll = Poll::new(self.timeouts.issuance);
        self.until(session, order, &mut poll, OrderStatus::Ready)
            .await?;
        let key = KeyPair::generate().map_err(|error| OrderError::local(error.to_string()))?;
        let request = signing_request(self.name, &key)?;
        self.finalize(session, order, &mut poll, &request).await?;
        let valid = self
            .until(session, order, &mut poll, OrderStatus::Valid)
            .await;
        valid.map_err(|ended| match ended.failure.cause {
            // The CA ended the order, or it did not respond.
            Cause::Unreachable | Cause::RateLimited { .. } => ended.after_finalizing(),
            _ => ended,
        })?;
        loop {
            match order.certificate().await.map_err(explain) {
                Ok(Some(chain)) => return self.accept(format!("{}{chain}", key.serialize_pem())),
                Ok(None) => {}
                Err(error) if error.is_of_ca() => {}
                Err(error) => return Err(error.after_finalizing()),
            }
            if !poll.next().await {
                return Err(self.slow().after_finalizing());
            }
        }
    }

    /// Requests the certificate, until the CA has accepted the request. An error of the CA says nothing about the order, which
    /// is looked at then: the CA may be issuing the certificate nevertheless.
    async fn finalize(
        &self,
        session: &Session,
        order: &mut Order,
        poll: &mut Poll,
        request: &[u8],
    ) -> Result<(), OrderError> {
        let explain = |error| self.context(session).error("issue the certificate", error);
        loop {
            let Err(error) = with_nonce!(order.finalize_csr(request)) else {
                return Ok(());
            };
            let mut failed = explain(error);
            if !failed.is_of_ca() {
                return Err(failed);
            }
            // The order is looked at once even if the time is over: whether it counts depends on it.
            let (status, is_over) = loop {
                let is_over = !poll.next().await;
                match order.refresh().await.map_err(explain) {
                    Ok(state) => break (state.status, is_over),
                    Err(error) if error.is_of_ca() && !is_over => failed = error,
                    Err(error) => return Err(error.after_finalizing()),
                }
            };
            if status != OrderStatus::Ready {
                // The next step waits for the end of the order, or reports its error.
                return Ok(());
            }
            // The CA has not accepted the request. If it has named a time, it is kept.
            if is_over || matches!(failed.failure.cause, Cause::RateLimited { .. }) {
                return Err(failed);
            }
        }
    }

    /// Waits until the order has this status. Of a CA that fails to respond it is asked until the time is over: the
    /// certificate counts at the CA.
    async fn until(
        &self,
        session: &Session,
        order: &mut Order,
        poll: &mut Poll,
        status: OrderStatus,
    ) -> Result<(), OrderError> {
        let mut slow = self.slow();
        while poll.next().await {
            let state = order.refresh().await;
            let state =
                state.map_err(|error| self.context(session).error("issue the certificate", error));
            match state {
                Ok(state) if state.status == status => return Ok(()),
                Ok(state) => {
                    if let Some(problem) = &state.error {
                        return Err(self.context(session).problem(problem));
                    }
                    if matches!(state.status, OrderStatus::Invalid) {
                        let (ca, name) = (self.ca.host(), self.name);
                        let text = format!("the CA {ca} ended the order for {name}: it is invalid");
                        return Err(OrderError::new(Cause::Refused, text));
                    }
                }
                Err(error) if error.is_of_ca() => slow = error,
                Err(error) => return Err(error),
            }
        }
        Err(slow)
    }

    fn accept(&self, pem: String) -> Result<Certificate, OrderError> {
        Certificate::from_pem(pem.into(), self.name, SystemTime::now()).map_err(|error| {
            let (ca, name) = (self.ca.host(), self.name);
            let text =
                format!("the CA {ca} issued a certificate for {name} that cannot be used: {error}");
            OrderError::new(Cause::Refused, text).after_finalizing()
        })
    }

    fn slow(&self) -> OrderError {
        let (ca, name, waited) = (self.ca.host(), self.name, self.timeouts.issuance);
        let text =
            format!("the CA {ca} has not issued the certificate for {name} within {waited:?}");
        OrderError::new(Cause::Unreachable, text)
    }
}

/// A request for a certificate of this name and no other: certificates are never extended by a name, because the failure of
/// one name would take the others with it.
fn signing_request(name: &CertName, key: &KeyPair) -> Result<Vec<u8>, OrderError> {
    let failed = |error: rcgen::Error| OrderError::local(error.to_string());
    let mut params = CertificateParams::new([name.to_string()]).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(failed)?;
    Ok(request.der().to_vec())
}
