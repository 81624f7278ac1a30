//! The credentials in force: those of the configuration and those of the store.

use std::{
    collections::{BTreeMap, HashSet},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use adit_auth::{
    Attempt, Authenticator, CredentialId, Denied, Grant, JwtIssuer, JwtKeyHint, Lapsed, Principals,
    RecordStore, Records, StaticToken, StoreError, UserName,
};
use adit_identity::SigningKeys;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{runtime::Handle, time::Instant};

use crate::settings::{IssuerSettings, Settings};

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
    /// Where the keys of issuers are requested; only a server that does not get that far starts without it.
    runtime: Option<Handle>,
}

struct Sources {
    configured: Configured,
    records: Arc<Records>,
    /// Why the store could not be read at the last look: logged once.
    error: Option<StoreError>,
}

/// The credentials of a configuration.
pub(crate) struct Configured {
    tokens: Vec<StaticToken>,
    issuers: Vec<Issuer>,
}

struct Issuer {
    entry: JwtIssuer,
    keys: Arc<SigningKeys>,
}

impl Sources {
    fn principals(&self) -> Result<Principals, String> {
        self.configured.principals(&self.records)
    }
}

impl Configured {
    /// Opens the sources of keys, except those that are open already: their keys stay.
    fn open(
        settings: &Settings,
        before: &[Issuer],
        runtime: Option<&Handle>,
    ) -> Result<Self, String> {
        let issuer = |issuer: &IssuerSettings| {
            let same = before.iter().find(|one| *one.keys.source() == issuer.keys);
            let keys = match same {
                Some(same) => Ok(same.keys.clone()),
                None => {
                    let runtime = runtime.ok_or("the keys of an issuer need a runtime")?;
                    SigningKeys::open(issuer.keys.clone(), runtime.clone())
                }
            };
            let keys = keys.map_err(|error| error.to_string())?;
            let entry = JwtIssuer::new(issuer.rules.clone(), keys.keys());
            Ok::<_, String>(Issuer { entry, keys })
        };
        Ok(Self {
            tokens: settings.tokens.clone(),
            issuers: settings
                .issuers
                .iter()
                .map(issuer)
                .collect::<Result<_, _>>()?,
        })
    }

    fn principals(&self, records: &Records) -> Result<Principals, String> {
        let principals = Principals::new(records, &self.tokens);
        let principals = principals.map_err(|error| error.to_string())?;
        let issuers = self.issuers.iter().map(|issuer| issuer.entry.clone());
        Ok(principals.with_issuers(issuers.collect()))
    }
}

impl Identities {
    /// Reads the store and the keys of issuers. Called in the runtime in which keys are requested.
    ///
    /// # Errors
    /// A text: a token is invalid, or the store or a file of keys cannot be read. A server without its records would give the
    /// names of their users away.
    pub(crate) fn start(
        settings: &Settings,
        store: Arc<dyn RecordStore>,
    ) -> Result<Arc<Self>, String> {
        let runtime = Handle::try_current().ok();
        let records = store.changed().map_err(|error| error.to_string())?;
        let sources = Sources {
            configured: Configured::open(settings, &[], runtime.as_ref())?,
            records: records.unwrap_or_default(),
            error: None,
        };
        Ok(Arc::new(Self {
            store,
            records: ArcSwap::new(sources.records.clone()),
            current: ArcSwap::from_pointee(sources.principals()?),
            sources: Mutex::new(sources),
            revision: AtomicU64::new(1),
            uses: Mutex::default(),
            runtime,
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

    /// Whether a token of an issuer can be of this user.
    pub(crate) fn may_name(&self, user: &UserName) -> bool {
        let principals = self.current.load();
        let mut issuers = principals.issuers().iter();
        issuers.any(|issuer| issuer.rules().may_name(user))
    }

    /// The credentials of other settings, checked together with the records.
    ///
    /// # Errors
    /// A text: a token is invalid, or a file of keys cannot be read.
    pub(crate) fn prepare(&self, settings: &Settings) -> Result<Configured, String> {
        let sources = self.sources.lock();
        let next = Configured::open(settings, &sources.configured.issuers, self.runtime.as_ref())?;
        next.principals(&sources.records)?;
        Ok(next)
    }

    /// Replaces the credentials of the configuration by those of [`prepare`](Self::prepare).
    pub(crate) fn replace(&self, configured: Configured) {
        let mut sources = self.sources.lock();
        sources.configured = configured;
        self.publish(&sources);
    }

    /// Looks for changes of the store and of the keys of issuers, and applies them. An error is logged once; what was known
    /// stays in force.
    pub(crate) fn look(&self) {
        self.look_for_keys();
        self.look_at_store();
    }

    fn look_for_keys(&self) {
        let mut sources = self.sources.lock();
        let now = Instant::now();
        let mut is_changed = false;
        for issuer in &mut sources.configured.issuers {
            // Two entries may have the same source, of which only the first one reports the change.
            issuer.keys.refresh(now);
            let keys = issuer.keys.keys();
            if *issuer.entry.keys() != *keys {
                issuer.entry = issuer.entry.with_keys(keys);
                is_changed = true;
            }
        }
        if is_changed {
            self.publish(&sources);
        }
    }

    /// Looks for the key that a token names, at the issuers whose token it may be. Returns whether it was found `within` this
    /// time; it is in force then.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn find_key(&self, hint: &JwtKeyHint, from: IpAddr, within: Duration) -> bool {
        let until = Instant::now() + within;
        let sources: Vec<_> = {
            let sources = self.sources.lock();
            let issuers = sources.configured.issuers.iter();
            let issuers = issuers.filter(|issuer| issuer.entry.is_for(hint.issuer.as_deref()));
            issuers.map(|issuer| issuer.keys.clone()).collect()
        };
        for keys in sources {
            let left = until.saturating_duration_since(Instant::now());
            if keys.unknown_key(&hint.key_id, from, left).await {
                self.look_for_keys();
                return true;
            }
        }
        false
    }

    fn look_at_store(&self) {
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
        match sources.principals() {
            Ok(principals) => {
                self.current.store(Arc::new(principals));
                // After the principals, so that whoever sees the number sees them as well.
                self.revision.fetch_add(1, Ordering::Release);
            }
            // The tokens were checked, and records cannot make them invalid.
            Err(error) => tracing::error!(error, "the credentials of clients cannot be used"),
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
