//! The configuration of a running server: its source, and the one in force.
//!
//! A [`ConfigSource`] publishes complete, validated [`Configuration`]s, each under a revision. The server follows the source
//! and applies each new revision as a whole or not at all; [`InForce`] holds the one that was applied last. A file is one
//! source ([`FixedSource`] is a file that is read once); a database can be another.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{settings::Settings, status::ConfigStatus};

/// Settings with their revision.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// The revision, which grows with each change; the first is at least 1.
    pub revision: u64,
    /// All settings, complete and validated.
    pub settings: Settings,
}

/// A source of configurations.
pub trait ConfigSource: Send + Sync {
    /// The newest configuration and its successors. A receiver may skip revisions, it never receives an older one. When the
    /// sender is dropped, the last configuration stays in force.
    fn watch(&self) -> watch::Receiver<Arc<Configuration>>;

    /// Changes that the source itself rejected, such as a file with a syntax error. They never become a revision.
    fn rejections(&self) -> Rejections {
        Rejections::default()
    }
}

/// Changes of the configuration that were rejected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejections {
    /// The number of rejected changes.
    pub count: u64,
    /// Why the last change was rejected, while no later one was accepted.
    pub last: Option<String>,
}

/// A source whose configuration never changes.
#[derive(Debug)]
pub struct FixedSource(watch::Sender<Arc<Configuration>>);

impl FixedSource {
    /// The settings as revision 1.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self(watch::Sender::new(Arc::new(Configuration {
            revision: 1,
            settings,
        })))
    }
}

impl ConfigSource for FixedSource {
    fn watch(&self) -> watch::Receiver<Arc<Configuration>> {
        self.0.subscribe()
    }
}

/// The configuration that the server follows now.
///
/// Reading it takes no lock: it is read when a connection, a registration or a wait begins, never for each message.
pub(crate) struct InForce {
    current: ArcSwap<Configuration>,
    source: Arc<dyn ConfigSource>,
    /// Changes that were applied; the configuration of the start is not counted.
    applied: AtomicU64,
    /// Changes that the source published and the server could not apply.
    rejected: Mutex<Rejections>,
    /// Settings of the newest configuration that wait for a restart.
    needs_restart: Mutex<Vec<&'static str>>,
}

impl InForce {
    pub(crate) fn new(first: Arc<Configuration>, source: Arc<dyn ConfigSource>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::new(first),
            source,
            applied: AtomicU64::new(0),
            rejected: Mutex::default(),
            needs_restart: Mutex::default(),
        })
    }

    /// The settings in force. The guard must not be held across an await: clone the values that are needed there.
    pub(crate) fn load(&self) -> Guard<Arc<Configuration>> {
        self.current.load()
    }

    /// The settings in force, to be kept across an await.
    pub(crate) fn load_full(&self) -> Arc<Configuration> {
        self.current.load_full()
    }

    /// Records a configuration as applied.
    pub(crate) fn applied(&self, next: Arc<Configuration>, needs_restart: Vec<&'static str>) {
        self.current.store(next);
        self.applied.fetch_add(1, Ordering::Relaxed);
        self.rejected.lock().last = None;
        *self.needs_restart.lock() = needs_restart;
    }

    /// Records a configuration that could not be applied.
    pub(crate) fn rejected(&self, why: String) {
        let mut rejected = self.rejected.lock();
        rejected.count += 1;
        rejected.last = Some(why);
    }

    pub(crate) fn status(&self) -> ConfigStatus {
        let own = self.rejected.lock().clone();
        let by_source = self.source.rejections();
        ConfigStatus {
            revision: self.current.load().revision,
            applied: self.applied.load(Ordering::Relaxed),
            rejected: own.count + by_source.count,
            last_error: by_source.last.or(own.last),
            needs_restart: self.needs_restart.lock().clone(),
        }
    }
}
