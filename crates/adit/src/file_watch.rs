//! Reports when files have changed on disk.
//!
//! The directories of the files are watched, not the files: an editor renames a new file over the old one, and
//! Kubernetes replaces a symbolic link beside it. A change counts when the content of a file differs, so that `touch`
//! and a second write of the same text are not reported.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

/// A file is read when it has not changed for this long: editors write in several steps.
const SETTLE: Duration = Duration::from_millis(200);

/// A file that changes without a pause is read after this long.
const LONGEST_SETTLE: Duration = Duration::from_secs(2);

/// The largest size of a configuration file; of a larger file only the first bytes are compared.
const MAX_COMPARED_BYTES: u64 = 4 << 20;

/// Watches some files.
pub struct FileWatch {
    files: Vec<PathBuf>,
    contents: Vec<Option<blake3::Hash>>,
    /// `None` when the system does not support watches, which has been logged.
    watcher: Option<RecommendedWatcher>,
    events: Arc<Events>,
    directories: BTreeSet<PathBuf>,
    /// An event has arrived, and the files have not been compared since.
    pending: bool,
}

/// The state that the watcher's thread uses.
#[derive(Default)]
struct Events {
    notify: Notify,
    names: parking_lot::Mutex<BTreeSet<OsString>>,
}

impl FileWatch {
    /// A watch without files.
    pub fn new() -> Self {
        let events = Arc::new(Events::default());
        let on_event = {
            let events = events.clone();
            move |event: notify::Result<notify::Event>| events.receive(event)
        };
        let watcher = notify::recommended_watcher(on_event)
            .inspect_err(|error| {
                tracing::warn!(%error, "files cannot be watched; SIGHUP reloads the configuration");
            })
            .ok();
        Self {
            files: Vec::new(),
            contents: Vec::new(),
            watcher,
            events,
            directories: BTreeSet::new(),
            pending: false,
        }
    }

    /// Watches these files after this call. Later content is compared with their current content, unless the same files
    /// were watched before.
    ///
    /// # Cost
    /// Reads each file, if the files differ from the previous ones.
    pub fn set_files(&mut self, files: Vec<PathBuf>) {
        if files == self.files {
            return;
        }
        // The watch begins before the content is read, so that no change is missed.
        self.watch_directories(&files);
        *self.events.names.lock() = files.iter().flat_map(|file| names_of(file)).collect();
        self.contents = files.iter().map(|file| hash(file)).collect();
        self.files = files;
    }

    /// The files that are watched.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Completes when the content of a file has changed and then stayed the same for a moment. Never completes without
    /// files.
    ///
    /// # Cancel safety
    /// A change that was detected before is reported by the next call.
    pub async fn changed(&mut self) {
        while !self.settle().await {}
    }

    /// Waits for an event, and then until no more events arrive. Returns whether the content of a file differs then.
    async fn settle(&mut self) -> bool {
        if !self.pending {
            self.events.notify.notified().await;
            self.pending = true;
        }
        let latest = Instant::now() + LONGEST_SETTLE;
        loop {
            let settled = latest.min(Instant::now() + SETTLE);
            let next = timeout_at(settled, self.events.notify.notified()).await;
            if next.is_err() || Instant::now() >= latest {
                break;
            }
        }
        self.pending = false;
        let contents: Vec<_> = self.files.iter().map(|file| hash(file)).collect();
        let differs = contents != self.contents;
        self.contents = contents;
        differs
    }

    fn watch_directories(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        let wanted: BTreeSet<PathBuf> =
            files.iter().flat_map(|file| directories_of(file)).collect();
        for gone in self.directories.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for directory in wanted.difference(&self.directories) {
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                tracing::warn!(
                    directory = %directory.display(),
                    %error,
                    "changes of the configuration cannot be detected; SIGHUP reloads it"
                );
            }
        }
        self.directories = wanted;
    }
}

impl Default for FileWatch {
    fn default() -> Self {
        Self::new()
    }
}

impl Events {
    /// Handles an event on the watcher's thread.
    fn receive(&self, event: notify::Result<notify::Event>) {
        let is_relevant = match event {
            // Reading a file changes nothing.
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
            Ok(event) => event.need_rescan() || event.paths.iter().any(|path| self.concerns(path)),
            Err(_) => true,
        };
        if is_relevant {
            self.notify.notify_one();
        }
    }

    fn concerns(&self, path: &Path) -> bool {
        let Some(name) = path.file_name() else {
            return true;
        };
        // Kubernetes keeps the files of a volume behind the link `..data`.
        name.as_encoded_bytes().starts_with(b"..") || self.names.lock().contains(name)
    }
}

/// The names under which a change of the file is reported: its own name, and that of the file to which a link points.
fn names_of(file: &Path) -> impl Iterator<Item = OsString> {
    let own = file.file_name().map(ToOwned::to_owned);
    let target = file.canonicalize().ok();
    let target = target.and_then(|target| target.file_name().map(ToOwned::to_owned));
    own.into_iter().chain(target)
}

/// The directories in which a change of the file is reported.
fn directories_of(file: &Path) -> impl Iterator<Item = PathBuf> {
    let parent = |file: &Path| match file.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(PathBuf::from(".")),
        parent => parent.map(Path::to_path_buf),
    };
    let target = file.canonicalize().ok();
    let target = target.and_then(|target| parent(&target));
    parent(file).into_iter().chain(target)
}

/// The hash of a file's content; `None` when the file cannot be read: its removal is a change as well.
fn hash(file: &Path) -> Option<blake3::Hash> {
    let mut content = Vec::new();
    let file = File::open(file).ok()?;
    file.take(MAX_COMPARED_BYTES)
        .read_to_end(&mut content)
        .ok()?;
    Some(blake3::hash(&content))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time::timeout;

    use super::*;

    /// The time is longer than any operation of these tests takes; a test that waits for this long fails.
    const DEADLINE: Duration = Duration::from_secs(20);

    fn watch(file: &Path) -> FileWatch {
        let mut watch = FileWatch::new();
        watch.set_files(vec![file.to_path_buf()]);
        watch
    }

    async fn is_reported(watch: &mut FileWatch) {
        timeout(DEADLINE, watch.changed())
            .await
            .expect("a report of the change");
    }

    #[tokio::test]
    async fn a_write_and_a_rename_over_the_file_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = watch(&file);
        fs::write(&file, "two").unwrap();
        is_reported(&mut watch).await;
        let aside = dir.path().join("a.yaml.swp");
        fs::write(&aside, "three").unwrap();
        fs::rename(&aside, &file).unwrap();
        is_reported(&mut watch).await;
        fs::remove_file(&file).unwrap();
        is_reported(&mut watch).await;
        fs::write(&file, "four").unwrap();
        is_reported(&mut watch).await;
    }

    #[tokio::test]
    async fn a_replaced_link_of_a_kubernetes_volume_is_reported() {
        let dir = tempfile::tempdir().unwrap();
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(dir.path().join(version)).unwrap();
            fs::write(dir.path().join(version).join("a.yaml"), text).unwrap();
        }
        symlink("..1", dir.path().join("..data")).unwrap();
        let file = dir.path().join("a.yaml");
        symlink("..data/a.yaml", &file).unwrap();
        let mut watch = watch(&file);
        symlink("..2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        is_reported(&mut watch).await;
    }

    #[tokio::test]
    async fn the_same_content_is_not_reported() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = watch(&file);
        fs::write(&file, "one").unwrap();
        let settled = timeout(DEADLINE, watch.settle()).await;
        assert_eq!(settled, Ok(false));
        fs::write(&file, "two").unwrap();
        is_reported(&mut watch).await;
    }

    #[test]
    fn events_of_other_files_are_ignored() {
        let events = Events::default();
        events.names.lock().insert("a.yaml".into());
        assert!(events.concerns(Path::new("/etc/adit/a.yaml")));
        assert!(events.concerns(Path::new("/etc/adit/..data")));
        assert!(!events.concerns(Path::new("/etc/adit/access.log")));
    }

    #[tokio::test]
    async fn a_cancelled_wait_loses_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        fs::write(&file, "one").unwrap();
        let mut watch = watch(&file);
        fs::write(&file, "two").unwrap();
        // The future is dropped during the pause after the event.
        while !watch.pending {
            let _ = timeout(Duration::from_millis(10), watch.changed()).await;
        }
        is_reported(&mut watch).await;
    }
}
