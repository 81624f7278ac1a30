//! Stores what has been used, every few seconds (P-16.6).

use std::{io, sync::Arc, time::Duration};

use tokio::{task, time::timeout};

use crate::traffic::{Record, Traffic, UsageFile};

/// How often what has been used is written, if it has changed: a server that is killed loses the use of this time.
pub(crate) const USAGE_KEPT: Duration = Duration::from_secs(5);

/// At the end, the last write may take this long.
const LAST_WRITE: Duration = Duration::from_secs(2);

/// Stores what has been used in a file, on another thread: it waits for the disk.
pub(crate) struct UsageKeeper {
    traffic: Arc<Traffic>,
    file: Option<UsageFile>,
    /// What the file has.
    kept: Arc<[Record]>,
    writing: Option<task::JoinHandle<io::Result<Arc<[Record]>>>>,
    has_failed: bool,
}

impl UsageKeeper {
    /// Stores in `file`; without one nothing outlives the process.
    pub(crate) fn new(traffic: Arc<Traffic>, file: Option<UsageFile>) -> Self {
        Self {
            traffic,
            file,
            kept: Arc::new([]),
            writing: None,
            has_failed: false,
        }
    }

    /// Starts to write what has changed, unless the last write is still running.
    pub(crate) async fn look(&mut self) {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            self.on_written(writing.await);
        }
        let has_nothing_to_do = self.traffic.is_empty() && self.kept.is_empty();
        if self.writing.is_some() || has_nothing_to_do {
            return;
        }
        let Some(file) = self.file.clone() else {
            // This drops the accounts that are not used any more.
            self.traffic.records();
            return;
        };
        let (traffic, kept) = (self.traffic.clone(), self.kept.clone());
        self.writing = Some(task::spawn_blocking(move || {
            let records = traffic.records();
            if *records == *kept {
                return Ok(kept);
            }
            file.write(&records)?;
            Ok(records.into())
        }));
    }

    fn on_written(&mut self, written: Result<io::Result<Arc<[Record]>>, task::JoinError>) {
        match written {
            Ok(Ok(kept)) => {
                self.kept = kept;
                self.has_failed = false;
            }
            Ok(Err(error)) if !self.has_failed => {
                self.has_failed = true;
                let path = self.file.as_ref().map(UsageFile::path);
                tracing::warn!(
                    path = %path.unwrap_or(std::path::Path::new("")).display(),
                    %error,
                    "what has been used cannot be written: quotas count from an earlier use when the server restarts"
                );
            }
            Ok(Err(_)) | Err(_) => {}
        }
    }

    /// Writes the last changes, unless the disk does not respond.
    pub(crate) async fn finish(mut self) {
        let finished = async {
            // First the running write, then later changes.
            for _ in 0..2 {
                if let Some(writing) = self.writing.take() {
                    let written = writing.await;
                    self.on_written(written);
                }
                self.look().await;
            }
            if let Some(writing) = self.writing.take() {
                let written = writing.await;
                self.on_written(written);
            }
        };
        if timeout(LAST_WRITE, finished).await.is_err() {
            tracing::warn!("what has been used was not written in time");
        }
    }
}
