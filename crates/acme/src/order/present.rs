//! What the CA is shown during a validation.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use instant_acme::ChallengeHandle;

use crate::{
    challenge::{Answers, challenge_certificate},
    dns::{Change, Dns01, DnsError, DnsProvider, Propagation, Record},
    error::{OrderError, printable},
    name::CertName,
    settings::Validation,
};

/// The token of a challenge and what proves the account's key.
pub(super) struct Proof {
    token: String,
    authorization: String,
    /// The digest for dns-01, in base64url.
    dns_value: String,
}

impl Proof {
    pub(super) fn of(challenge: &ChallengeHandle<'_>) -> Self {
        let authorization = challenge.key_authorization();
        Self {
            token: challenge.token.clone(),
            authorization: authorization.as_str().to_owned(),
            dns_value: authorization.dns_value(),
        }
    }
}

/// An answer of a listener, until it is dropped.
pub(super) enum Answering {
    /// With the token.
    Http01(Arc<dyn Answers>, String),
    /// With the host.
    TlsAlpn01(Arc<dyn Answers>, String),
}

impl Drop for Answering {
    fn drop(&mut self) {
        match self {
            Self::Http01(answers, token) => answers.set_http01(token, None),
            Self::TlsAlpn01(answers, host) => answers.set_tls_alpn01(host, None),
        }
    }
}

/// What is shown; [`withdraw`](Self::withdraw) removes it.
pub(super) enum Presented<'a> {
    /// An answer of a listener, until it is dropped.
    Answer { _answering: Answering },
    Record {
        provider: &'a DnsProvider,
        propagation: &'a Propagation,
        host: &'a str,
        record: Record,
    },
}

impl<'a> Presented<'a> {
    pub(super) async fn new(
        validation: &'a Validation,
        answers: &Arc<dyn Answers>,
        name: &'a CertName,
        proof: &Proof,
    ) -> Result<Self, OrderError> {
        let host = name.base();
        let answering = match validation {
            Validation::Http01 => {
                answers.set_http01(&proof.token, Some(&proof.authorization));
                Answering::Http01(answers.clone(), proof.token.clone())
            }
            Validation::TlsAlpn01 => {
                let digest = digest(&SHA256, proof.authorization.as_bytes());
                let digest = <&[u8; 32]>::try_from(digest.as_ref());
                let digest = digest.map_err(|error| OrderError::local(error.to_string()))?;
                let certificate = challenge_certificate(host, digest).map_err(OrderError::local)?;
                answers.set_tls_alpn01(host, Some(Arc::new(certificate)));
                Answering::TlsAlpn01(answers.clone(), host.to_owned())
            }
            Validation::Dns01(dns) => {
                let Dns01 {
                    provider,
                    propagation,
                } = &**dns;
                let record = Record {
                    name: name.record(),
                    value: proof.dns_value.clone(),
                };
                let presented = Self::Record {
                    provider,
                    propagation,
                    host,
                    record: record.clone(),
                };
                let added = provider.change(Change::Add, host, &record).await;
                if let Err(error) = added {
                    // It may have been added nevertheless.
                    presented.withdraw().await;
                    return Err(local(&error));
                }
                return Ok(presented);
            }
        };
        Ok(Self::Answer {
            _answering: answering,
        })
    }

    /// Waits until the CA can see it.
    pub(super) async fn wait(&self) -> Result<(), OrderError> {
        match self {
            Self::Answer { .. } => Ok(()),
            Self::Record {
                propagation,
                record,
                ..
            } => propagation
                .wait(record)
                .await
                .map_err(|error| local(&error)),
        }
    }

    pub(super) async fn withdraw(self) {
        if let Self::Record {
            provider,
            host,
            record,
            ..
        } = self
            && let Err(error) = provider.change(Change::Remove, host, &record).await
        {
            tracing::warn!("a record of a validation is left behind: {error}");
        }
    }
}

fn local(error: &DnsError) -> OrderError {
    OrderError::local(printable(&error.to_string()))
}
