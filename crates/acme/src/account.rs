//! The account at one CA: made once, stored, used by all orders.

use std::sync::Arc;

use instant_acme::{Account, AccountCredentials, Error as AcmeError, NewAccount};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::{sync::Mutex, task::spawn_blocking};

use crate::{
    error::{Context, OrderError},
    http::{CaHttp, RetryAfter},
    nonce::with_nonce,
    problem::is_problem,
    settings::{Ca, Validation},
    store::Store,
};

/// What is stored of an account: its key, its URL, and the contacts that the CA has.
#[derive(Serialize, Deserialize)]
struct Stored<C> {
    contacts: Vec<String>,
    credentials: C,
}

/// One CA with the account at it. All orders at this CA share it.
pub(crate) struct CaAccount {
    ca: Ca,
    http: CaHttp,
    store: Arc<dyn Store>,
    /// The stored form, once it was read. The lock is held while an account is made, so that only one is.
    stored: Mutex<Option<SecretString>>,
}

/// The account for one order, with the last `Retry-After` that the CA named.
pub(crate) struct Session {
    pub(crate) account: Account,
    pub(crate) retry_after: RetryAfter,
    /// Its stored form, by which [`CaAccount::forget`] finds out whether it is still the one in use.
    stored: SecretString,
}

impl CaAccount {
    pub(crate) fn new(ca: Ca, http: CaHttp, store: Arc<dyn Store>) -> Self {
        Self {
            ca,
            http,
            store,
            stored: Mutex::new(None),
        }
    }

    /// The URL of the CA's directory.
    pub(crate) fn directory(&self) -> &str {
        self.ca.directory()
    }

    /// The host of the CA, for texts.
    pub(crate) fn host(&self) -> &str {
        let rest = self
            .directory()
            .split_once("://")
            .map_or("", |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap_or(rest)
    }

    /// What errors at this CA name.
    pub(crate) fn context<'a>(
        &'a self,
        host: &'a str,
        validation: &'a Validation,
        retry_after: &RetryAfter,
    ) -> Context<'a> {
        Context {
            host,
            ca: self.host(),
            validation,
            retry_after: retry_after.last(),
        }
    }

    /// The account, which is made if it does not exist yet. Reads the CA's directory, which may have changed.
    pub(crate) async fn session(
        &self,
        host: &str,
        validation: &Validation,
    ) -> Result<Session, OrderError> {
        let retry_after = RetryAfter::default();
        let mut known = self.stored.lock().await;
        if known.is_none() {
            *known = self.load().await?;
        }
        let explain = |step: &str, error| {
            self.context(host, validation, &retry_after)
                .error(step, error)
        };
        let (account, stored) = match known.clone() {
            Some(stored) => {
                drop(known);
                let read =
                    parse(&stored).ok_or_else(|| OrderError::local("the account is lost"))?;
                let http = self.http.exchange(&retry_after);
                let account = Account::builder_with_http(http)
                    .from_credentials(read.credentials)
                    .await
                    .map_err(|error| explain("read its directory", error))?;
                let mut in_use = stored.clone();
                if read.contacts != self.ca.contacts() {
                    let updated = self.update_contacts(&account, &stored).await;
                    let updated = updated
                        .map_err(|error| explain("change the contact of the account", error))?;
                    in_use = updated.unwrap_or(stored);
                }
                (account, in_use)
            }
            None => {
                let contacts = self.ca.contacts();
                let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
                let new = NewAccount {
                    contact: &contact,
                    terms_of_service_agreed: true,
                    only_return_existing: false,
                };
                let binding = self.ca.binding().map(|binding| binding.key());
                let directory = self.directory().to_owned();
                let created = with_nonce!({
                    let http = self.http.exchange(&retry_after);
                    let builder = Account::builder_with_http(http);
                    builder.create(&new, directory.clone(), binding.as_ref())
                });
                let (account, credentials) =
                    created.map_err(|error| explain("create an account", error))?;
                let stored = self.save(&contacts, &credentials).await?;
                *known = Some(stored.clone());
                tracing::info!(ca = self.host(), "an account was created at the CA");
                (account, stored)
            }
        };
        Ok(Session {
            account,
            retry_after,
            stored,
        })
    }

    /// Forgets the account of a session if the CA does not know it any more. Returns whether a new session may succeed: also
    /// when another order has replaced the account in the meantime, which is kept then.
    pub(crate) async fn forget(&self, session: &Session, error: &AcmeError) -> bool {
        if !is_problem(error, "accountDoesNotExist") {
            return false;
        }
        // The lock is held until the file is replaced, so that the account of another order is not overwritten.
        let mut known = self.stored.lock().await;
        let own = session.stored.expose_secret();
        if { known.as_ref() }.is_none_or(|known| known.expose_secret() != own) {
            return true;
        }
        tracing::warn!(
            ca = self.host(),
            "the CA does not know the account any more: a new one is made"
        );
        // An empty text, which `load` takes for no account.
        let _ = self.store_text(SecretString::default()).await;
        *known = None;
        true
    }

    /// Returns the new stored form, if it could be stored.
    async fn update_contacts(
        &self,
        account: &Account,
        stored: &SecretString,
    ) -> Result<Option<SecretString>, AcmeError> {
        let contacts = self.ca.contacts();
        let contact: Vec<&str> = contacts.iter().map(String::as_str).collect();
        with_nonce!(account.update_contacts(&contact))?;
        let mut known = self.stored.lock().await;
        if { known.as_ref() }.is_none_or(|known| known.expose_secret() != stored.expose_secret()) {
            // Another order has replaced it in the meantime.
            return Ok(None);
        }
        // The credentials cannot be cloned: they are read again.
        if let Some(read) = parse(stored)
            && let Ok(stored) = self.save(&contacts, &read.credentials).await
        {
            *known = Some(stored.clone());
            return Ok(Some(stored));
        }
        Ok(None)
    }

    async fn load(&self) -> Result<Option<SecretString>, OrderError> {
        let (store, ca) = (self.store.clone(), self.directory().to_owned());
        let read = spawn_blocking(move || store.account(&ca)).await;
        let read = read.map_err(|error| OrderError::local(error.to_string()))?;
        let stored = read.map_err(|error| {
            OrderError::local(format!(
                "the account cannot be read, {error}; repair the file, or remove it to create a new account"
            ))
        })?;
        let known = stored.filter(|stored| !stored.expose_secret().is_empty());
        let valid = known.as_ref().is_none_or(|stored| parse(stored).is_some());
        if !valid {
            // The key is lost, and with it the account. Certificates do not depend on it.
            tracing::warn!(
                ca = self.host(),
                "the stored account is damaged: a new one is made"
            );
        }
        Ok(known.filter(|_| valid))
    }

    async fn save(
        &self,
        contacts: &[String],
        credentials: &AccountCredentials,
    ) -> Result<SecretString, OrderError> {
        let stored = Stored {
            contacts: contacts.to_vec(),
            credentials,
        };
        let json = serde_json::to_string(&stored);
        let json = json.map_err(|error| OrderError::local(error.to_string()))?;
        let stored = SecretString::from(json);
        self.store_text(stored.clone()).await?;
        Ok(stored)
    }

    async fn store_text(&self, text: SecretString) -> Result<(), OrderError> {
        let (store, ca) = (self.store.clone(), self.directory().to_owned());
        let written = spawn_blocking(move || store.store_account(&ca, &text)).await;
        let written = written.map_err(|error| OrderError::local(error.to_string()))?;
        written.map_err(|error| OrderError::local(format!("the account cannot be stored, {error}")))
    }
}

/// The stored form, if it is not damaged.
fn parse(stored: &SecretString) -> Option<Stored<AccountCredentials>> {
    serde_json::from_str(stored.expose_secret()).ok()
}
