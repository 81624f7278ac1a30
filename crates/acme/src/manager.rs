//! The task that obtains and renews the certificates of a set of names.

mod context;
mod first_orders;
mod plan;
mod shared;
mod stored;
mod wanted;
mod work;
mod worker;

use std::{collections::BTreeMap, sync::Arc};

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    challenge::Answers,
    settings::Settings,
    status::{NameStatus, Stats},
    store::Store,
};
use context::Context;
use shared::Shared;
use worker::Worker;

pub use context::StartError;
pub use shared::Update;
pub use wanted::Wanted;

/// The task. Dropping it ends running orders as [`stop`](Self::stop) does.
pub struct Manager {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Manager {
    /// Starts the task on this runtime, without any names. Stored certificates that are valid are published before it returns,
    /// so that visitors find them before their names are wanted again; they are withdrawn when they expire. `publish` is called
    /// here and then by the task, one call at a time, and must not block.
    ///
    /// # Errors
    /// [`StartError`]: the system has no trust store, or a root of a CA cannot be used.
    ///
    /// # Cost
    /// Blocks for the store, which is read.
    pub fn start(
        settings: Settings,
        store: Arc<dyn Store>,
        answers: Arc<dyn Answers>,
        publish: impl Fn(Update) + Send + Sync + 'static,
        runtime: &Handle,
    ) -> Result<Self, StartError> {
        let stop = CancellationToken::new();
        let context = Context::new(settings, store, answers, stop.clone())?;
        let shared = Arc::new(Shared::default());
        let worker = Worker::new(Arc::new(context), shared.clone(), Box::new(publish));
        let tasks = TaskTracker::new();
        tasks.spawn_on(worker.run(), runtime);
        tasks.close();
        Ok(Self {
            shared,
            stop,
            tasks,
        })
    }

    /// Replaces the set of names. A name that is given twice is wanted as it was given first. Certificates of new names that are stored are published at once; others are ordered. The
    /// certificates of names that are left out are withdrawn, and stay in the store.
    ///
    /// # Complexity
    /// Linear in the number of names. Does not block; a set that is replaced before the task has seen it has no effect.
    pub fn want(&self, names: impl IntoIterator<Item = impl Into<Wanted>>) {
        let mut wanted = BTreeMap::new();
        for one in names.into_iter().map(Into::into) {
            wanted.entry(one.name.clone()).or_insert(one);
        }
        *self.shared.wanted.lock() = Some(wanted);
        self.shared.changed.notify_one();
    }

    /// The status of each name, in the order of the names.
    #[must_use]
    pub fn status(&self) -> Vec<NameStatus> {
        self.shared.status.lock().values().cloned().collect()
    }

    /// Counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock()
    }

    /// Ends running orders and the task. An order that the CA may have finished gets
    /// [`Timeouts::shutdown`](crate::Timeouts::shutdown), and records of dns-01 are removed. Does not wait.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits until the task has ended, after [`stop`](Self::stop).
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait; another call waits again.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl std::fmt::Debug for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manager")
            .field("names", &self.shared.status.lock().len())
            .finish_non_exhaustive()
    }
}
