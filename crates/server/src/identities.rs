//! The credentials in force: those of the configuration and those of the store.

use std::{
    collections::{BTreeMap, HashSet},
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
    /// Held while the store is read, so that older records never replace newer ones.
    sources: Mutex<Sources>,
    records: ArcSwap<Records>,
    current: ArcSwap<Principals>,
    revision: AtomicU64,
    /// Credentials that were used since the store has kept their times, with the times in seconds since 1970.
    uses: Mutex<BTreeMap<CredentialId, u64>>,
}

struct Sources {
    tokens: Vec<StaticToken>,
    records: Arc<Records>,
    /// Why the store could not be read at the last look: logged once.
    error: Option<StoreError>,
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
            records: ArcSwap::new(records.clone()),
            sources: Mutex::new(Sources {
                tokens: tokens.to_vec(),
                records,
                error: None,
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

    /// The records as they were at the last look.
    pub(crate) fn records(&self) -> Arc<Records> {
        self.records.load_full()
    }

    /// The users that exist: those of credentials, and those of the records without a credential.
    pub(crate) fn users(&self) -> HashSet<UserName> {
        let mut users: HashSet<_> = self.current.load().users().cloned().collect();
        users.extend(self.records().users.iter().map(|user| user.name.clone()));
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

    /// Looks for changes of the store, and applies them. An error is logged once; what was known stays in force.
    pub(crate) fn look(&self) {
        let mut sources = self.sources.lock();
        match self.store.changed() {
            Ok(None) => sources.error = None,
            Ok(Some(records)) => {
                sources.error = None;
                tracing::info!(
                    users = records.users.len(),
                    credentials = records.credentials.len(),
                    "the credentials of clients have changed"
                );
                self.records.store(records.clone());
                sources.records = records;
                self.publish(&sources);
            }
            Err(error) => {
                if sources.error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the credentials of clients cannot be read: those that were known stay in force");
                }
                sources.error = Some(error);
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
