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
    Attempt, Authenticator, CertificateRules, CredentialId, Denied, Grant, JwtIssuer, JwtKeyHint,
    Lapsed, Principals, RecordStore, Records, StaticToken, StoreError, UserName,
};
use adit_identity::SigningKeys;
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::{self, JoinSet},
    time::Instant,
};

use crate::settings::Settings;

/// Sources of keys that are asked at a time for one token.
const MOST_ASKED: usize = 8;

/// Authenticates by the credentials in force, and follows their changes.
///
/// Data threads only load what is in force. The locks over the store and over its uses are held while a disk is read or written,
/// that over the sources never.
pub(crate) struct Identities {
    store: Arc<dyn RecordStore>,
    /// Held while the store is read, so that older records never replace newer ones. Why the store could not be read at the last
    /// look: logged once.
    reading: Mutex<Option<StoreError>>,
    /// Held while the uses are stored, so that older ones never replace newer ones.
    storing: Mutex<()>,
    sources: Mutex<Sources>,
    records: ArcSwap<Records>,
    /// Those of the sources.
    issuers: ArcSwap<Vec<Issuer>>,
    current: ArcSwap<Principals>,
    revision: AtomicU64,
    /// Credentials that were used since the store has kept their times, with the times in seconds since 1970.
    uses: Mutex<BTreeMap<CredentialId, u64>>,
    /// Where the keys of issuers are requested; only a server that does not get that far starts without it.
    runtime: Option<Handle>,
}

/// What the credentials in force are made of.
struct Sources {
    configured: Configured,
    records: Arc<Records>,
}

/// The credentials of a configuration.
pub(crate) struct Configured {
    tokens: Vec<StaticToken>,
    issuers: Vec<Issuer>,
    /// With the CAs of clients.
    certificates: Option<(CertificateRules, Vec<[u8; 32]>)>,
}

#[derive(Clone)]
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
    /// Opens the sources of keys, except those that are open already: their keys stay, also when only how they are requested has
    /// changed.
    fn open(
        settings: &Settings,
        before: &[Issuer],
        runtime: Option<&Handle>,
    ) -> Result<Self, String> {
        let mut issuers: Vec<Issuer> = Vec::with_capacity(settings.issuers.len());
        for issuer in &settings.issuers {
            let source = &issuer.keys;
            let mut open = before.iter().chain(&issuers);
            let keys = match open.find(|one| one.keys.source() == source) {
                Some(same) => Ok(same.keys.clone()),
                None => match before
                    .iter()
                    .find(|one| one.keys.source().is_same_place(source))
                {
                    Some(same) => same.keys.reopen(source.clone()),
                    None => {
                        let runtime = runtime.ok_or("the keys of an issuer need a runtime")?;
                        SigningKeys::open(source.clone(), runtime.clone())
                    }
                },
            };
            let keys = keys.map_err(|error| error.to_string())?;
            let entry = JwtIssuer::new(issuer.rules.clone(), keys.keys());
            issuers.push(Issuer { entry, keys });
        }
        Ok(Self {
            tokens: settings.tokens.clone(),
            issuers,
            certificates: { settings.certificates.clone() }
                .map(|rules| (rules, settings.tls.client_cas())),
        })
    }

    fn principals(&self, records: &Records) -> Result<Principals, String> {
        let principals = Principals::new(records, &self.tokens);
        let principals = principals.map_err(|error| error.to_string())?;
        let issuers = self.issuers.iter().map(|issuer| issuer.entry.clone());
        let principals = principals.with_issuers(issuers.collect());
        Ok(match &self.certificates {
            Some((rules, cas)) => principals.with_certificates(rules, cas.iter().copied()),
            None => principals,
        })
    }

    /// Takes the keys that the sources have now. Returns whether any are others.
    fn take_keys(&mut self) -> bool {
        let mut is_changed = false;
        for issuer in &mut self.issuers {
            let keys = issuer.keys.keys();
            if *issuer.entry.keys() != *keys {
                issuer.entry = issuer.entry.with_keys(keys);
                is_changed = true;
            }
        }
        is_changed
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
        };
        Ok(Arc::new(Self {
            store,
            reading: Mutex::new(None),
            storing: Mutex::new(()),
            records: ArcSwap::new(sources.records.clone()),
            issuers: ArcSwap::from_pointee(sources.configured.issuers.clone()),
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
        let before = self.issuers.load();
        let next = Configured::open(settings, &before, self.runtime.as_ref())?;
        next.principals(&self.records())?;
        Ok(next)
    }

    /// Replaces the credentials of the configuration by those of [`prepare`](Self::prepare).
    pub(crate) fn replace(&self, configured: Configured) {
        let mut sources = self.sources.lock();
        sources.configured = configured;
        // Those that have come since.
        sources.configured.take_keys();
        self.publish(&sources);
    }

    /// Looks for changes of the store and of the keys of issuers, and applies them. An error is logged once; what was known
    /// stays in force. Waits for disks.
    pub(crate) fn look(&self) {
        self.look_for_keys();
        self.look_at_store();
    }

    fn look_for_keys(&self) {
        let now = Instant::now();
        for issuer in self.issuers.load().iter() {
            issuer.keys.refresh(now);
        }
        let mut sources = self.sources.lock();
        if sources.configured.take_keys() {
            self.publish(&sources);
        }
    }

    /// Looks for the key of a token that no known key has signed, at all issuers whose token it may be. Returns whether there
    /// are other keys `within` this time; they are in force then.
    ///
    /// # Cancel safety
    /// Yes.
    pub(crate) async fn find_key(
        self: &Arc<Self>,
        hint: &JwtKeyHint,
        from: IpAddr,
        within: Duration,
    ) -> bool {
        let until = Instant::now() + within;
        let mut sources: Vec<Issuer> = Vec::new();
        for issuer in self.issuers.load().iter() {
            let is_new = |one: &Issuer| !Arc::ptr_eq(&one.keys, &issuer.keys);
            if issuer.entry.is_for(hint.issuer.as_deref()) && sources.iter().all(is_new) {
                sources.push(issuer.clone());
            }
        }
        let mut sources = sources.into_iter();
        let mut asked = JoinSet::new();
        let ask = |asked: &mut JoinSet<bool>, Issuer { entry, keys }: Issuer| {
            let key_id = hint.key_id.clone();
            asked.spawn(async move {
                let left = until.saturating_duration_since(Instant::now());
                match key_id {
                    Some(key_id) => keys.unknown_key(&key_id, from, left).await,
                    None => keys.other_keys(entry.keys(), from, left).await,
                }
            });
        };
        for source in sources.by_ref().take(MOST_ASKED) {
            ask(&mut asked, source);
        }
        while let Some(found) = asked.join_next().await {
            if found.is_ok_and(|found| found) {
                let identities = self.clone();
                // Files of other issuers are looked at as well. A task that fails leaves the keys as they were.
                let _ = task::spawn_blocking(move || identities.look_for_keys()).await;
                return true;
            }
            if let Some(source) = sources.next() {
                ask(&mut asked, source);
            }
        }
        false
    }

    fn look_at_store(&self) {
        let mut last_error = self.reading.lock();
        match self.store.changed() {
            Ok(None) => *last_error = None,
            Ok(Some(records)) => {
                *last_error = None;
                tracing::info!(
                    users = records.users.len(),
                    credentials = records.credentials.len(),
                    "the credentials of clients have changed"
                );
                self.records.store(records.clone());
                let mut sources = self.sources.lock();
                sources.records = records;
                self.publish(&sources);
            }
            Err(error) => {
                if last_error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the credentials of clients cannot be read: those that were known stay in force");
                }
                *last_error = Some(error);
            }
        }
    }

    fn publish(&self, sources: &Sources) {
        self.issuers
            .store(Arc::new(sources.configured.issuers.clone()));
        match sources.principals() {
            Ok(principals) => {
                self.current.store(Arc::new(principals));
                // After the principals, so that a thread that loads the number loads them as well.
                self.revision.fetch_add(1, Ordering::Release);
            }
            // The tokens were checked, and records cannot make them invalid.
            Err(error) => tracing::error!(error, "the credentials of clients cannot be used"),
        }
    }

    /// Keeps the times of the last uses in the store. Waits for its disk.
    pub(crate) fn keep_uses(&self) {
        let _storing = self.storing.lock();
        let uses = std::mem::take(&mut *self.uses.lock());
        if uses.is_empty() {
            return;
        }
        let list: Vec<_> = uses.iter().map(|(id, at)| (*id, *at)).collect();
        if let Err(StoreError(error)) = self.store.note_uses(&list) {
            tracing::debug!(error, "the last uses of credentials are not kept");
            let mut newer = self.uses.lock();
            for (id, at) in uses {
                newer.entry(id).or_insert(at);
            }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use adit_auth::{AccessKey, Credential, EnrolStoreError, JwtKey, JwtRules, NewCredential};
    use adit_identity::{KeySource, UrlSource};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::settings::IssuerSettings;

    const SOON: Duration = Duration::from_secs(20);

    /// A set with one key of this id.
    fn jwks(id: &str) -> String {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"{id}","x":"{x}"}}]}}"#)
    }

    /// The source of a set with one key; one without a set never responds.
    async fn source(set: Option<String>) -> UrlSource {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let Some(set) = &set else {
                    held.push(stream);
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let length = set.len();
                let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{set}");
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        });
        UrlSource::new(url.parse().unwrap())
    }

    fn settings(sources: &[&UrlSource]) -> Settings {
        let any = ([127, 0, 0, 1], 0).into();
        let mut settings = Settings::new(any, any);
        let issuers = sources.iter().map(|source| IssuerSettings {
            rules: JwtRules {
                audience: vec!["adit".to_owned()],
                ..JwtRules::default()
            },
            keys: KeySource::JwksUrl((*source).clone()),
        });
        settings.issuers = issuers.collect();
        settings.tokens = vec![StaticToken {
            user: UserName::parse("ann").unwrap(),
            token: "a-token-of-ann".into(),
            scopes: adit_auth::Scopes::default(),
        }];
        settings
    }

    fn ids(identities: &Identities) -> Vec<Option<String>> {
        let principals = identities.current.load();
        let keys = principals.issuers().iter().flat_map(JwtIssuer::keys);
        keys.map(|key: &JwtKey| key.id().map(str::to_owned))
            .collect()
    }

    fn hint(key_id: &str) -> JwtKeyHint {
        JwtKeyHint {
            issuer: None,
            key_id: Some(key_id.to_owned()),
        }
    }

    fn from() -> IpAddr {
        [192, 0, 2, 1].into()
    }

    #[tokio::test]
    async fn a_changed_way_to_request_keys_keeps_them() {
        let source = source(Some(jwks("old"))).await;
        let first = settings(&[&source]);
        let identities = Identities::start(&first, Arc::new(adit_auth::NoRecords)).unwrap();
        assert!(identities.find_key(&hint("old"), from(), SOON).await);
        let known = [Some("old".to_owned())];
        assert_eq!(ids(&identities), known);
        let changed = UrlSource {
            refresh: Duration::from_secs(7),
            ..source.clone()
        };
        let next = identities.prepare(&settings(&[&changed])).unwrap();
        identities.replace(next);
        assert_eq!(ids(&identities), known);
        // Two entries with one source share its keys.
        let next = identities
            .prepare(&settings(&[&changed, &changed]))
            .unwrap();
        assert!(Arc::ptr_eq(&next.issuers[0].keys, &next.issuers[1].keys));
    }

    #[tokio::test]
    async fn a_source_that_does_not_respond_does_not_hold_up_the_others() {
        let (silent, quick) = (source(None).await, source(Some(jwks("new"))).await);
        let settings = settings(&[&silent, &quick]);
        let identities = Identities::start(&settings, Arc::new(adit_auth::NoRecords)).unwrap();
        // Less than the time of one request.
        let within = Duration::from_secs(4);
        assert!(identities.find_key(&hint("new"), from(), within).await);
        assert_eq!(ids(&identities), [Some("new".to_owned())]);
    }

    /// A store that waits at each look but the first one, and whose uses cannot be written at first.
    struct SlowStore {
        looks: Mutex<Option<mpsc::Receiver<()>>>,
        begun: mpsc::Sender<()>,
        uses: Mutex<Vec<Vec<(CredentialId, u64)>>>,
    }

    impl RecordStore for SlowStore {
        fn changed(&self) -> Result<Option<Arc<Records>>, StoreError> {
            let waits = self.looks.lock().take();
            if let Some(waits) = waits {
                self.begun.send(()).unwrap();
                let _ = waits.recv();
            }
            Ok(None)
        }

        fn enrol(
            &self,
            _: &AccessKey,
            _: IpAddr,
            _: NewCredential,
            _: u64,
        ) -> Result<(UserName, bool), EnrolStoreError> {
            Err(StoreError("not here".to_owned()).into())
        }

        fn note_uses(&self, uses: &[(CredentialId, u64)]) -> Result<(), StoreError> {
            let mut all = self.uses.lock();
            all.push(uses.to_vec());
            match all.len() {
                1 => Err(StoreError("the disk is full".to_owned())),
                _ => Ok(()),
            }
        }
    }

    fn slow() -> (Arc<SlowStore>, mpsc::Receiver<()>) {
        let (begun, begins) = mpsc::channel();
        let store = SlowStore {
            looks: Mutex::new(None),
            begun,
            uses: Mutex::default(),
        };
        (Arc::new(store), begins)
    }

    #[tokio::test]
    async fn a_disk_that_waits_holds_up_neither_clients_nor_a_reload() {
        let source = source(Some(jwks("new"))).await;
        let (store, begun) = slow();
        let settings = settings(&[&source]);
        let identities = Identities::start(&settings, store.clone()).unwrap();
        let (release, waits) = mpsc::channel();
        *store.looks.lock() = Some(waits);
        let looking = {
            let identities = identities.clone();
            task::spawn_blocking(move || identities.look())
        };
        task::spawn_blocking(move || begun.recv().unwrap())
            .await
            .unwrap();
        // While it waits: a client with a token, one with a new key, and a reload.
        let claim = adit_auth::ClientClaim {
            client_id: adit_auth::ClientId::parse("one").unwrap(),
            group_id: adit_auth::GroupId::parse("one").unwrap(),
        };
        let attempt = Attempt {
            credential: &Credential::Token("a-token-of-ann".into()),
            claim: &claim,
            address: from(),
            now: SystemTime::now(),
        };
        let grant = identities.authenticate(&attempt).unwrap();
        assert!(identities.find_key(&hint("new"), from(), SOON).await);
        let next = identities.prepare(&settings).unwrap();
        identities.replace(next);
        assert_eq!(identities.check(&grant, SystemTime::now()), Ok(()));
        identities.keep_uses();
        assert!(!looking.is_finished());
        drop(release);
        looking.await.unwrap();
    }

    #[tokio::test]
    async fn uses_that_cannot_be_stored_are_stored_later() {
        let (store, _begun) = slow();
        let identities = Identities::start(&settings(&[]), store.clone()).unwrap();
        let [one, two] = [1, 2].map(|byte| CredentialId::from_random([byte; 6]));
        identities.uses.lock().extend([(one, 1), (two, 1)]);
        identities.keep_uses();
        identities.uses.lock().insert(one, 5);
        identities.keep_uses();
        identities.keep_uses();
        let uses = store.uses.lock();
        assert_eq!(
            uses[..],
            [vec![(one, 1), (two, 1)], vec![(one, 5), (two, 1)]]
        );
    }
}
