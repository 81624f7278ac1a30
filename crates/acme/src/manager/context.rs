//! What all orders of a manager share.

use std::sync::Arc;

use adit_tls::SetupError;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::{
    account::CaAccount,
    challenge::Answers,
    http::CaHttp,
    name::CertName,
    schedule::{Environment, Policy},
    settings::{Ca, Settings, Validation},
    store::{Store, StoreError, StoredCertificate, StoredRecord},
};

/// Why a manager cannot start.
#[derive(Debug, Clone, Error)]
pub enum StartError {
    /// The connections to a CA cannot be set up.
    #[error("the connection to the CA {directory}: {error}")]
    Tls {
        /// The URL of the CA's directory.
        directory: String,
        /// What is wrong.
        error: SetupError,
    },
}

pub(super) struct Context {
    pub(super) settings: Settings,
    pub(super) policy: Arc<Policy>,
    pub(super) answers: Arc<dyn Answers>,
    pub(super) stop: CancellationToken,
    store: Arc<dyn Store>,
    production: CaAccount,
    staging: Option<CaAccount>,
}

impl Context {
    pub(super) fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        answers: Arc<dyn Answers>,
        stop: CancellationToken,
    ) -> Result<Self, StartError> {
        let account = |ca: &Ca| {
            let http = CaHttp::new(ca, settings.timeouts.request);
            let http = http.map_err(|error| StartError::Tls {
                directory: ca.directory().to_owned(),
                error,
            })?;
            Ok(CaAccount::new(ca.clone(), http, store.clone()))
        };
        let production = account(&settings.production)?;
        let staging = settings.staging.as_ref().map(account).transpose()?;
        let policy = Policy {
            staging: staging.is_some(),
            ..settings.policy.clone()
        };
        Ok(Self {
            policy: Arc::new(policy),
            settings,
            answers,
            stop,
            store,
            production,
            staging,
        })
    }

    pub(super) fn ca(&self, environment: Environment) -> &CaAccount {
        match (environment, &self.staging) {
            (Environment::Staging, Some(staging)) => staging,
            _ => &self.production,
        }
    }

    /// Whether a certificate can be obtained for the name: a wildcard name needs dns-01.
    pub(super) fn supports(&self, name: &CertName) -> bool {
        !name.is_wildcard() || matches!(self.settings.validation, Validation::Dns01(_))
    }

    /// Whether two orders would change the records of the same name. Programs that replace records exist.
    pub(super) fn share_record(&self, one: &CertName, other: &CertName) -> bool {
        matches!(self.settings.validation, Validation::Dns01(_)) && one.base() == other.base()
    }

    /// The store, with the CA that everything in it belongs to. It may block.
    pub(super) fn store(&self) -> (&dyn Store, &str) {
        (&*self.store, self.production.directory())
    }

    /// Calls the store on a thread that may block. Everything belongs to the production CA: the staging CA has only an
    /// account.
    pub(super) async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store, &str) -> T + Send + 'static,
    ) -> Option<T> {
        let (store, ca) = (self.store.clone(), self.production.directory().to_owned());
        spawn_blocking(move || work(&*store, &ca)).await.ok()
    }

    pub(super) async fn store_record(
        &self,
        name: &CertName,
        record: StoredRecord,
    ) -> Result<(), StoreError> {
        let own = name.clone();
        let stored = self.with_store(move |store, ca| store.store_record(ca, &own, &record));
        stored.await.unwrap_or_else(|| Err(ended(name)))
    }

    pub(super) async fn store_certificate(
        &self,
        name: &CertName,
        certificate: StoredCertificate,
    ) -> Result<(), StoreError> {
        let own = name.clone();
        let stored =
            self.with_store(move |store, ca| store.store_certificate(ca, &own, &certificate));
        stored.await.unwrap_or_else(|| Err(ended(name)))
    }
}

/// The store panicked, or the runtime ends.
pub(super) fn ended(name: &CertName) -> StoreError {
    StoreError {
        place: name.to_string(),
        problem: "the store did not finish".to_owned(),
    }
}
