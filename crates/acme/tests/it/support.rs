//! A manager under test, with the certificates that it publishes.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use adit_acme::{
    CertName, Certificate, Challenges, FileStore, Manager, NameStatus, Settings, State, Stats,
    Store, Update, Wanted,
    schedule::{Policy, Retries},
};
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::timeout};

use crate::programs::PATIENCE;

/// Retries that a test need not wait for.
pub(crate) fn quick() -> Policy {
    Policy {
        retries: Retries::new(&[Duration::from_millis(200)]).unwrap(),
        ..Policy::default()
    }
}

pub(crate) fn name(text: &str) -> CertName {
    CertName::parse(text).unwrap()
}

/// What was published.
#[derive(Default)]
struct Published {
    now: Mutex<HashMap<CertName, Certificate>>,
    all: Mutex<Vec<Update>>,
    changed: Notify,
}

pub(crate) struct Run {
    manager: Manager,
    published: Arc<Published>,
}

impl Run {
    /// A manager with its files in a directory.
    pub(crate) fn start(settings: Settings, dir: &Path, challenges: &Challenges) -> Self {
        let store = FileStore::open(dir).unwrap();
        Self::with_store(settings, Arc::new(store), challenges)
    }

    pub(crate) fn with_store(
        settings: Settings,
        store: Arc<dyn Store>,
        challenges: &Challenges,
    ) -> Self {
        let published = Arc::new(Published::default());
        let sink = published.clone();
        let publish = move |update: Update| {
            match &update {
                Update::Available { name, certificate } => {
                    sink.now.lock().insert(name.clone(), certificate.clone());
                }
                Update::Withdrawn { name } => {
                    sink.now.lock().remove(name);
                }
            }
            sink.all.lock().push(update);
            sink.changed.notify_waiters();
        };
        let answers = Arc::new(challenges.clone());
        let started = Manager::start(settings, store, answers, publish, &Handle::current());
        Self {
            manager: started.unwrap(),
            published,
        }
    }

    pub(crate) fn want(&self, names: &[&str]) {
        self.manager.want(names.iter().map(|text| name(text)));
    }

    /// Wants names of owners.
    pub(crate) fn want_of(&self, names: &[(&str, &str)]) {
        self.manager.want(names.iter().map(|(text, owner)| Wanted {
            owner: (*owner).into(),
            ..Wanted::from(name(text))
        }));
    }

    /// Wants a name for which nothing may be ordered.
    pub(crate) fn want_in_vain(&self, text: &str, obstacle: &str) {
        self.manager.want([Wanted {
            obstacle: Some(obstacle.into()),
            ..Wanted::from(name(text))
        }]);
    }

    /// The certificate of a name, as soon as there is one.
    pub(crate) async fn certificate(&self, text: &str) -> Certificate {
        let found = timeout(PATIENCE, async {
            loop {
                let changed = self.published.changed.notified();
                if let Some(certificate) = self.served(text) {
                    return certificate;
                }
                changed.await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("no certificate for {text}: {:#?}", self.manager.status()))
    }

    /// The certificate that is served now.
    pub(crate) fn served(&self, text: &str) -> Option<Certificate> {
        self.published.now.lock().get(&name(text)).cloned()
    }

    /// How often a certificate of the name was published.
    pub(crate) fn times_published(&self, text: &str) -> usize {
        let all = self.published.all.lock();
        let own = all.iter().filter(
            |update| matches!(update, Update::Available { name: own, .. } if *own == name(text)),
        );
        own.count()
    }

    pub(crate) fn status(&self, text: &str) -> Option<NameStatus> {
        let all = self.manager.status();
        all.into_iter().find(|status| status.name == name(text))
    }

    pub(crate) fn state(&self, text: &str) -> Option<State> {
        Some(self.status(text)?.state(SystemTime::now()))
    }

    pub(crate) fn stats(&self) -> Stats {
        self.manager.stats()
    }

    /// Waits until the condition holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let waited = waited.await;
        assert!(
            waited.is_ok(),
            "not {what}: {:#?} {:#?}",
            self.manager.status(),
            self.stats()
        );
    }

    /// Waits until the last error of a name has this text.
    pub(crate) async fn error(&self, text: &str, part: &str) -> String {
        let has = |run: &Self| {
            let error = run.status(text).and_then(|status| status.last_error);
            error.filter(|error| error.contains(part))
        };
        self.until(&format!("an error with {part:?}"), |run| has(run).is_some())
            .await;
        has(self).unwrap_or_default()
    }

    pub(crate) async fn shutdown(self) {
        self.manager.stop();
        timeout(PATIENCE, self.manager.stopped())
            .await
            .expect("the shutdown ends");
    }
}
