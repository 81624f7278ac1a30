//! The configuration file of a server, as a source that the server follows.

use std::sync::Arc;

use adit_server::{ConfigSource, Configuration, Rejections, Settings};
use tokio::sync::watch;

use crate::reload::ReloadFailures;

/// Publishes the configurations that a file held, one after the other.
pub struct FileSource {
    current: watch::Sender<Arc<Configuration>>,
    failures: ReloadFailures,
}

impl FileSource {
    /// A source with the settings of the start as revision 1. `failures` counts invalid settings, which are not
    /// published.
    pub fn new(settings: Settings, failures: ReloadFailures) -> Self {
        let first = Configuration {
            revision: 1,
            settings,
        };
        Self {
            current: watch::Sender::new(Arc::new(first)),
            failures,
        }
    }

    /// Publishes settings under the next revision, unless they are equal to the newest ones. Returns the revision, if
    /// there is a new one.
    pub fn publish(&self, settings: Settings) -> Option<u64> {
        let newest = self.current.borrow().clone();
        if newest.settings == settings {
            return None;
        }
        let revision = newest.revision + 1;
        self.current
            .send_replace(Arc::new(Configuration { revision, settings }));
        Some(revision)
    }
}

impl ConfigSource for FileSource {
    fn watch(&self) -> watch::Receiver<Arc<Configuration>> {
        self.current.subscribe()
    }

    fn rejections(&self) -> Rejections {
        Rejections {
            count: self.failures.count(),
            last: self.failures.last(),
        }
    }
}
