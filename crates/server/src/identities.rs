//! The credentials in force: those of the configuration and those of the store.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use adit_auth::{
    Attempt, Authenticator, CredentialId, Denied, Grant, Lapsed, Principals, RecordStore, Records,
    StaticToken, StoreError, TokenSetError, UserName,
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Authenticates by the credentials in force, and follows their changes.
pub(crate) struct Identities {
    store: Arc<dyn RecordStore>,
    sources: Mutex<Sources>,
    current: ArcSwap<Principals>,
    revision: AtomicU64,
    /// Credentials that were used since the store has kept their times, with the times in seconds since 1970.
    uses: Mutex<BTreeMap<CredentialId, u64>>,
}

struct Sources {
    tokens: Vec<StaticToken>,
    records: Arc<Records>,
}

impl Identities {
    /// Reads the store.
    ///
    /// # Errors
    /// A text: a token is invalid, or the store cannot be read. A server without its records would give the names of
    /// their users away.
    pub(crate) fn start(
        tokens: &[StaticToken],
        store: Arc<dyn RecordStore>,
    ) -> Result<Arc<Self>, String> {
        let records = store.changed().map_err(|error| error.to_string())?;
        let records = records.unwrap_or_default();
        let principals = Principals::new(&records, tokens).map_err(|error| error.to_string())?;
        Ok(Arc::new(Self {
            store,
            sources: Mutex::new(Sources {
                tokens: tokens.to_vec(),
                records,
            }),
            current: ArcSwap::from_pointee(principals),
            revision: AtomicU64::new(1),
            uses: Mutex::default(),
        }))
    }

    /// The store of the records.
    pub(crate) fn store(&self) -> &dyn RecordStore {
        &*self.store
    }

    /// The users that exist: those of credentials, and those of the records without a credential.
    pub(crate) fn users(&self) -> Vec<UserName> {
        let mut users: Vec<_> = self.current.load().users().cloned().collect();
        let records = &self.sources.lock().records;
        users.extend(records.users.iter().map(|user| user.name.clone()));
        users
    }

    /// Whether these tokens can be used together with the records.
    ///
    /// # Errors
    /// [`TokenSetError`].
    pub(crate) fn check_tokens(&self, tokens: &[StaticToken]) -> Result<(), TokenSetError> {
        Principals::new(&self.sources.lock().records, tokens).map(drop)
    }

    /// Replaces the tokens of the configuration, which [`check_tokens`](Self::check_tokens) has accepted.
    pub(crate) fn replace_tokens(&self, tokens: &[StaticToken]) {
        let mut sources = self.sources.lock();
        sources.tokens = tokens.to_vec();
        self.publish(&sources);
    }

    /// Looks for changes of the store, and applies them. Returns whether something has changed. An error is logged.
    pub(crate) fn look(&self) -> bool {
        match self.store.changed() {
            Ok(None) => false,
            Ok(Some(records)) => {
                let mut sources = self.sources.lock();
                sources.records = records;
                tracing::info!(
                    users = sources.records.users.len(),
                    credentials = sources.records.credentials.len(),
                    "the credentials of clients have changed"
                );
                self.publish(&sources);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the credentials of clients cannot be read: those that were known stay in force");
                false
            }
        }
    }

    fn publish(&self, sources: &Sources) {
        match Principals::new(&sources.records, &sources.tokens) {
            Ok(principals) => {
                self.current.store(Arc::new(principals));
                // After the principals, so that whoever sees the number sees them as well.
                self.revision.fetch_add(1, Ordering::Release);
            }
            // The tokens were checked, and records cannot make them invalid.
            Err(error) => tracing::error!(%error, "the credentials of clients cannot be used"),
        }
    }

    /// Keeps the times of the last uses in the store.
    pub(crate) fn keep_uses(&self) {
        let uses: Vec<_> = std::mem::take(&mut *self.uses.lock()).into_iter().collect();
        if uses.is_empty() {
            return;
        }
        if let Err(StoreError(error)) = self.store.note_uses(&uses) {
            tracing::debug!(error, "the last uses of credentials are not kept");
        }
    }
}

impl Authenticator for Identities {
    fn authenticate(&self, attempt: &Attempt<'_>) -> Result<Grant, Denied> {
        let grant = self.current.load().authenticate(attempt)?;
        if let Some(id) = grant.credential_id() {
            let since = attempt.now.duration_since(SystemTime::UNIX_EPOCH);
            let at = since.map_or(0, |since| since.as_secs());
            self.uses.lock().insert(id, at);
        }
        Ok(grant)
    }

    fn check(&self, grant: &Grant, now: SystemTime) -> Result<(), Lapsed> {
        self.current.load().check(grant, now)
    }

    fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}
