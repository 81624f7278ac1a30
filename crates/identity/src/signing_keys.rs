//! The keys of an issuer now.

use std::{fs, io, net::IpAddr, os::unix::fs::MetadataExt, path::Path, sync::Arc, time::Duration};

use adit_auth::JwtKey;
use adit_tls::client_config;
use parking_lot::Mutex;
use rustls::{
    ClientConfig,
    version::{TLS12, TLS13},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{Instant, timeout_at},
};

use crate::{
    fetch::fetch,
    fetch_policy::FetchPolicy,
    jwks::read_jwks,
    key_source::{KeySource, KeySourceError, UrlSource, read_file},
};

/// A longer time is as good as this one, and does not fit into an `Instant`.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The keys of an issuer, which follow their source.
#[derive(Debug)]
pub struct SigningKeys {
    source: KeySource,
    /// For a URL.
    tls: Option<Arc<ClientConfig>>,
    runtime: Handle,
    state: Mutex<State>,
    /// Counts the requests that have ended.
    fetched: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    keys: Arc<[JwtKey]>,
    /// They were not returned by [`SigningKeys::refresh`] yet.
    is_new: bool,
    /// The file that was read last.
    file: Option<Stamp>,
    /// Why the source cannot be read. It is logged when it changes.
    problem: Option<String>,
    /// Of a URL.
    policy: Option<FetchPolicy>,
}

/// Differs between two contents of a file: device, inode, length, and the times of the content and of the inode with their
/// nanoseconds. A program can set the time of the content, but not that of the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp([i128; 7]);

impl SigningKeys {
    /// Reads the keys of a file. Those of a URL are requested at the first [`refresh`](Self::refresh): until then, and until the
    /// issuer responds, there are none. Requests run in `runtime`.
    ///
    /// # Errors
    /// [`KeySourceError`]: the file has no keys.
    pub fn open(source: KeySource, runtime: Handle) -> Result<Arc<Self>, KeySourceError> {
        // Before reading it: a change in between is then found.
        let file = source.path().and_then(|path| stamp(path).ok());
        let keys = read_file(&source)?;
        let (tls, policy) = match &source {
            KeySource::JwksUrl(url) => {
                let policy = FetchPolicy::new(url.refresh, Instant::now().into_std());
                (Some(tls_config(url)?), Some(policy))
            }
            _ => (None, None),
        };
        Ok(Arc::new(Self {
            source,
            tls,
            runtime,
            state: Mutex::new(State {
                keys: keys.into(),
                is_new: false,
                file,
                problem: None,
                policy,
            }),
            fetched: watch::Sender::new(0),
        }))
    }

    /// Opens a source that takes the place of this one. If only how a URL is requested differs, the keys that are known stay
    /// until the first response, which is requested anew.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn reopen(&self, source: KeySource) -> Result<Arc<Self>, KeySourceError> {
        let next = Self::open(source, self.runtime.clone())?;
        if let (KeySource::JwksUrl(old), KeySource::JwksUrl(new)) = (&self.source, &next.source)
            && old.url == new.url
        {
            let known = self.keys();
            let is_for = |key: &&JwtKey| new.algorithm.is_none_or(|only| key.algorithm() == only);
            next.state.lock().keys = known.iter().filter(is_for).cloned().collect();
        }
        Ok(next)
    }

    /// The source.
    pub const fn source(&self) -> &KeySource {
        &self.source
    }

    /// The keys now.
    pub fn keys(&self) -> Arc<[JwtKey]> {
        self.state.lock().keys.clone()
    }

    /// Looks whether the source has changed, and returns the keys if they are others than at the last call. Reads a changed
    /// file; requests a URL in a task when it is due, whose result a later call returns. Called a few times a second, where a
    /// file may be read.
    ///
    /// # Cost
    /// One `stat` of a file.
    pub fn refresh(self: &Arc<Self>, now: Instant) -> Option<Arc<[JwtKey]>> {
        match self.source.path() {
            Some(path) => self.read_changed(path),
            None => self.fetch_if_due(now),
        }
        let mut state = self.state.lock();
        std::mem::take(&mut state.is_new).then(|| state.keys.clone())
    }

    /// Looks for a key that a token names and the set does not have. A URL is requested when the limits of requests allow it
    /// for a client at this address; returns whether the key was found `within` this time. False at once for a file, whose
    /// changes are found by [`refresh`](Self::refresh).
    ///
    /// # Cancel safety
    /// Dropping it does not end the request.
    pub async fn unknown_key(
        self: &Arc<Self>,
        key_id: &str,
        from: IpAddr,
        within: Duration,
    ) -> bool {
        let has = |state: &State| state.has(key_id);
        self.find(Some(key_id), has, from, within).await
    }

    /// Looks for other keys than those that are `known`, because none of them has signed a token that names no key. As
    /// [`unknown_key`](Self::unknown_key) otherwise.
    ///
    /// # Cancel safety
    /// Dropping it does not end the request.
    pub async fn other_keys(
        self: &Arc<Self>,
        known: &[JwtKey],
        from: IpAddr,
        within: Duration,
    ) -> bool {
        let has = |state: &State| *state.keys != *known;
        self.find(None, has, from, within).await
    }

    async fn find(
        self: &Arc<Self>,
        key_id: Option<&str>,
        has: impl Fn(&State) -> bool,
        from: IpAddr,
        within: Duration,
    ) -> bool {
        let until = Instant::now() + within.min(LONGEST_WAIT);
        let mut fetched = self.fetched.subscribe();
        loop {
            fetched.mark_unchanged();
            {
                let now = Instant::now();
                let mut state = self.state.lock();
                if has(&state) {
                    return true;
                }
                let Some(policy) = &mut state.policy else {
                    return false;
                };
                if !policy.on_unknown(key_id, from, now.into_std()) {
                    return false;
                }
            }
            self.fetch_if_due(Instant::now());
            // The next request may begin later, when `refresh` finds it due.
            if timeout_at(until, fetched.changed()).await.is_err() {
                return has(&self.state.lock());
            }
        }
    }

    fn read_changed(&self, path: &Path) {
        let file = match stamp(path) {
            Ok(file) => file,
            Err(error) => {
                let problem = format!("{}: {error}", path.display());
                return self.state.lock().failed(&self.source, problem);
            }
        };
        if self.state.lock().file == Some(file) {
            return;
        }
        let keys = read_file(&self.source);
        let mut state = self.state.lock();
        // A file that is damaged is read again when it changes again.
        state.file = Some(file);
        match keys {
            Ok(keys) => state.set(&self.source, keys),
            Err(error) => state.failed(&self.source, error.to_string()),
        }
    }

    fn fetch_if_due(self: &Arc<Self>, now: Instant) {
        let (KeySource::JwksUrl(source), Some(tls)) = (&self.source, &self.tls) else {
            return;
        };
        let is_due = {
            let mut state = self.state.lock();
            let mut policy = state.policy.as_mut();
            policy
                .as_mut()
                .is_some_and(|policy| policy.begin(now.into_std()))
        };
        if !is_due {
            return;
        }
        let (keys, source, tls) = (self.clone(), source.clone(), tls.clone());
        self.runtime.spawn(async move {
            let fetched = fetch(&source.url, &tls, source.timeout).await;
            let fetched = fetched.map_err(|error| error.to_string()).and_then(|body| {
                let text = str::from_utf8(&body).map_err(|error| error.to_string())?;
                read_jwks(text, source.algorithm, false).map_err(|error| error.to_string())
            });
            keys.on_fetched(fetched);
        });
    }

    fn on_fetched(&self, fetched: Result<Vec<JwtKey>, String>) {
        let now = Instant::now().into_std();
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            match fetched {
                Ok(keys) => {
                    state.set(&self.source, keys);
                    let has = |id: &str| state.keys.iter().any(|key| key.id() == Some(id));
                    if let Some(policy) = &mut state.policy {
                        policy.on_keys(has, now);
                    }
                }
                Err(problem) => {
                    if let Some(policy) = &mut state.policy {
                        policy.on_failure(now);
                    }
                    state.failed(&self.source, problem);
                }
            }
        }
        self.fetched.send_modify(|count| *count += 1);
    }
}

impl State {
    fn has(&self, key_id: &str) -> bool {
        self.keys.iter().any(|key| key.id() == Some(key_id))
    }

    fn set(&mut self, source: &KeySource, keys: Vec<JwtKey>) {
        if self.problem.take().is_some() {
            tracing::info!(%source, "the keys of the issuer can be read again");
        }
        if *self.keys != *keys {
            tracing::info!(%source, keys = keys.len(), "the keys of the issuer have changed");
            self.keys = keys.into();
            self.is_new = true;
        }
    }

    fn failed(&mut self, source: &KeySource, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            let keys = self.keys.len();
            tracing::warn!(
                %source, problem, keys,
                "the keys of the issuer cannot be read: those that are known stay in force"
            );
            self.problem = Some(problem);
        }
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let file = fs::metadata(path)?;
    Ok(Stamp([
        file.dev().into(),
        file.ino().into(),
        file.len().into(),
        file.mtime().into(),
        file.mtime_nsec().into(),
        file.ctime().into(),
        file.ctime_nsec().into(),
    ]))
}

/// TLS 1.2 is accepted too: issuers are not ours. Only HTTP/1.1 is offered, which all have.
fn tls_config(source: &UrlSource) -> Result<Arc<ClientConfig>, KeySourceError> {
    let config = client_config(&source.trust, None, &[&TLS13, &TLS12]);
    let mut config = config.map_err(|error| KeySourceError::Tls(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config.into())
}
