//! Loads the configuration of a running program again: on SIGHUP, and when one of its files has changed.
//!
//! A configuration that cannot be read or is invalid changes nothing: the error is logged, with file, line and column, and
//! counted. Each side applies a new configuration in its own way.

use std::{fmt::Display, fs, path::Path, sync::Arc};

use adit_config::Loaded;
use parking_lot::Mutex;

use crate::{file_watch::FileWatch, load::warn};

type Load<S> = Box<dyn Fn() -> Result<Loaded<S>, String> + Send>;

/// Loads a configuration repeatedly.
pub struct Reloader<S> {
    load: Load<S>,
    watch: FileWatch,
    failures: ReloadFailures,
}

/// Counts the configurations that could not be loaded; shared with the status.
#[derive(Debug, Clone, Default)]
pub struct ReloadFailures(Arc<Mutex<Failures>>);

#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<String>,
}

impl<S> Reloader<S> {
    /// A reloader that uses `load`, and watches the files of `loaded`.
    pub fn new<E: Display>(
        load: impl Fn() -> Result<Loaded<S>, E> + Send + 'static,
        loaded: &Loaded<S>,
    ) -> Self {
        let mut watch = FileWatch::new();
        watch.set_files(loaded.files.clone());
        Self {
            load: Box::new(move || load().map_err(|error| error.to_string())),
            watch,
            failures: ReloadFailures::default(),
        }
    }

    /// The failures, for status and metrics.
    pub fn failures(&self) -> ReloadFailures {
        self.failures.clone()
    }

    /// Completes when a file of the configuration has changed.
    ///
    /// # Cancel safety
    /// A change that was detected before is reported by the next call.
    pub async fn changed(&mut self) {
        self.watch.changed().await;
    }

    /// The configuration as it is now; `None` when it is invalid, which is logged and counted.
    ///
    /// # Cost
    /// Reads all files of the configuration.
    pub fn load(&mut self) -> Option<Loaded<S>> {
        let loaded = match self.watch.files().first() {
            // This is probably a file that is being written, not an intended configuration of defaults.
            Some(file) if is_blank(file) => Err(format!("{}: the file is empty", file.display())),
            _ => (self.load)(),
        };
        match loaded {
            Ok(loaded) => {
                self.watch.set_files(loaded.files.clone());
                self.failures.0.lock().last = None;
                warn(&loaded.warnings);
                Some(loaded)
            }
            Err(error) => {
                self.reject(&error);
                None
            }
        }
    }

    /// Logs and counts an invalid configuration.
    pub fn reject(&self, error: &dyn Display) {
        tracing::error!("the configuration is invalid and nothing has changed: {error}");
        let mut failures = self.failures.0.lock();
        failures.count += 1;
        failures.last = Some(error.to_string());
    }
}

fn is_blank(file: &Path) -> bool {
    fs::read(file).is_ok_and(|text| text.trim_ascii().is_empty())
}

impl ReloadFailures {
    /// Number of configurations that could not be loaded so far.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// Why the newest configuration could not be loaded, if it could not.
    pub fn last(&self) -> Option<String> {
        self.0.lock().last.clone()
    }
}

#[cfg(test)]
mod tests {
    use adit_config::{ServerOverrides, load_server};
    use adit_server::Settings;

    use super::*;

    fn reloader(file: &Path) -> Reloader<Settings> {
        let file = file.to_path_buf();
        let load =
            move || load_server(Some(&file), std::iter::empty(), &ServerOverrides::default());
        let loaded = load().unwrap();
        Reloader::new(load, &loaded)
    }

    #[test]
    fn an_invalid_file_counts_until_a_valid_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server.yaml");
        fs::write(&file, "server: { max_clients: 1 }").unwrap();
        let mut reloader = reloader(&file);
        let failures = reloader.failures();
        fs::write(&file, "server: { max_clients: ten }").unwrap();
        assert!(reloader.load().is_none());
        let error = failures.last().unwrap();
        assert!(
            error.contains("server.yaml:1:24: server.max_clients"),
            "{error}"
        );
        fs::write(&file, " \n").unwrap();
        assert!(reloader.load().is_none());
        assert_eq!(failures.count(), 2);
        fs::write(&file, "server: { max_clients: 2 }").unwrap();
        let loaded = reloader.load().unwrap();
        assert_eq!(loaded.settings.max_clients, 2);
        assert_eq!((failures.count(), failures.last()), (2, None));
    }

    #[test]
    fn token_files_are_watched_with_the_configuration_file() {
        let dir = tempfile::tempdir().unwrap();
        let (file, token) = (dir.path().join("server.yaml"), dir.path().join("alice"));
        fs::write(&token, "a token of alice").unwrap();
        fs::write(
            &file,
            "server: { auth: { user: alice, token_file: alice } }",
        )
        .unwrap();
        assert_eq!(reloader(&file).watch.files(), [file, token]);
    }
}
