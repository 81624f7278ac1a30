//! The task that obtains and renews the certificates of a set of names.

mod context;
mod plan;
mod shared;
mod work;
mod worker;

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    challenge::Answers,
    name::CertName,
    settings::Settings,
    status::{NameStatus, Stats},
    store::Store,
};
use context::Context;
use shared::Shared;
use worker::Worker;

pub use context::StartError;
pub use shared::Update;

/// The task. Dropping it ends running orders as [`stop`](Self::stop) does.
pub struct Manager {
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Manager {
    /// Starts the task on this runtime, without any names. `publish` is called by the task, one call at a time, and must not
    /// block.
    ///
    /// # Errors
    /// [`StartError`]: the system has no trust store, or a root of a CA cannot be used.
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

    /// Replaces the set of names. Certificates of new names that are stored are published at once; others are ordered. The
    /// certificates of names that are left out are withdrawn, and stay in the store.
    ///
    /// # Complexity
    /// Linear in the number of names. Does not block; a set that is replaced before the task has seen it has no effect.
    pub fn want(&self, names: impl IntoIterator<Item = CertName>) {
        *self.shared.wanted.lock() = Some(names.into_iter().collect());
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
