//! Enrolments: the first credential of a client (P-1.19), and the next certificate of one that has a certificate (P-1.20).

use std::{
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use adit_auth::{
    ACCESS_KEY_RANDOM_BYTES, AccessKey, ClientId, CredentialId, DenialReason, Denied, EnrolError,
    EnrolStoreError, Grant, KeyKind, NewCredential, Proof, Scopes, UserName,
};
use adit_link::control::{Refusal, RefusalReason};
use adit_proto::{
    CertificateResult, ClientCertificate, EnrolRequest, EnrolResponse, Error as ProtoError,
    enrol_response::Credential,
};
use secrecy::ExposeSecret;
use tokio::task;

use crate::{clients_tls::ClientsTls, identities::Identities};

/// Makes credentials.
pub(crate) struct Enrolment {
    identities: Arc<Identities>,
    tls: Arc<ClientsTls>,
}

/// Why a client was not enrolled.
pub(crate) enum NotEnrolled {
    /// The key is wrong: the caller delays the refusal and counts it.
    Denied(Denied),
    /// Another cause.
    Refused(Refusal),
}

impl From<Refusal> for NotEnrolled {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Enrolment {
    pub(crate) fn new(identities: Arc<Identities>, tls: Arc<ClientsTls>) -> Self {
        Self { identities, tls }
    }

    /// Uses the key once, and makes a credential: a certificate if the server has a CA of its own, else a key. It is in
    /// force when this returns.
    ///
    /// # Cancel safety
    /// The key may have been used then.
    pub(crate) async fn enrol(
        &self,
        client: &ClientId,
        request: EnrolRequest,
        from: IpAddr,
    ) -> Result<EnrolResponse, NotEnrolled> {
        let key = AccessKey::parse(&request.key)
            .map_err(|_| NotEnrolled::Denied(Denied::new(DenialReason::DamagedKey)))?;
        let now = SystemTime::now();
        let (credential, id, proof) = self.credential(&request.public_key, now)?;
        let new = NewCredential {
            id,
            proof,
            label: client.to_string(),
            expires_at: None,
            scopes: Scopes::default(),
        };
        let (user, awaits_approval) = self.store(key, from, new, seconds(now)).await?;
        tracing::info!(%client, %user, %id, %from, awaits_approval, "client enrolled");
        Ok(EnrolResponse {
            user: user.to_string(),
            credential: Some(credential),
            awaits_approval,
            roots: self.tls.roots_pem(now),
            credential_id: id.to_string(),
        })
    }

    /// A credential, its id, and how it is proved.
    fn credential(
        &self,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<(Credential, CredentialId, Proof), Refusal> {
        let id = CredentialId::from_random(rand::random());
        Ok(match self.certificate(id, public_key, now)? {
            Some(certificate) => (Credential::Certificate(certificate), id, Proof::Certificate),
            None => {
                let random: [u8; ACCESS_KEY_RANDOM_BYTES] = rand::random();
                let key = AccessKey::from_random(KeyKind::Api, random);
                let text = key.to_text().expose_secret().to_owned();
                (Credential::ApiKey(text), key.id(), Proof::Key(key.hash()))
            }
        })
    }

    /// A certificate of the server's own CA; `None` if it has none.
    fn certificate(
        &self,
        id: CredentialId,
        public_key: &[u8],
        now: SystemTime,
    ) -> Result<Option<ClientCertificate>, Refusal> {
        let issued = self.tls.issue_client(&id.to_string(), public_key, now);
        let issued = issued.transpose();
        let issued = issued.map_err(|error| Refusal::new(RefusalReason::BadRequest, error))?;
        Ok(issued.map(|(certificate, expires)| ClientCertificate {
            certificate,
            expires_at: seconds(expires),
        }))
    }

    async fn store(
        &self,
        key: AccessKey,
        from: IpAddr,
        new: NewCredential,
        now: u64,
    ) -> Result<(UserName, bool), NotEnrolled> {
        let identities = self.identities.clone();
        // The store waits for the disk.
        let stored = task::spawn_blocking(move || {
            let stored = identities.store().enrol(&key, from, new, now);
            identities.look();
            stored
        });
        let internal = |text: String| {
            tracing::error!("a client cannot be enrolled: {text}");
            Refusal::new(
                RefusalReason::Internal,
                "the server cannot store the credential: its log has the reason",
            )
        };
        let stored = stored.await.map_err(|error| internal(error.to_string()))?;
        stored.map_err(|error| match error {
            EnrolStoreError::Enrol(EnrolError::Denied(denied)) => NotEnrolled::Denied(denied),
            error => internal(error.to_string()).into(),
        })
    }

    /// The certificates of the server's own CA that clients trust, in PEM.
    pub(crate) fn roots(&self) -> String {
        self.tls.roots_pem(SystemTime::now())
    }

    /// The response to a client that requests another certificate: only one that has a certificate gets another, for the
    /// same credential.
    pub(crate) fn renew(&self, grant: &Grant, public_key: &[u8]) -> CertificateResult {
        let refused = |code: &str, message: String| CertificateResult {
            certificate: None,
            error: Some(ProtoError {
                code: code.to_owned(),
                message,
                detail: String::new(),
            }),
        };
        let id = grant.credential_id().filter(|_| grant.has_certificate());
        let Some(id) = id else {
            let text = "only a client that has a certificate of the server's own CA gets another";
            return refused("forbidden", text.to_owned());
        };
        match self.certificate(id, public_key, SystemTime::now()) {
            Ok(Some(certificate)) => {
                tracing::debug!(client = %grant.client(), %id, "the client has another certificate");
                CertificateResult {
                    certificate: Some(certificate),
                    error: None,
                }
            }
            Ok(None) => refused("forbidden", "the server has no CA of its own".to_owned()),
            Err(refusal) => refused(refusal.reason.as_str(), refusal.detail),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
