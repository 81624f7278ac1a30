//! What is stored: read at the start, kept while it cannot be read, removed when it is of no more use.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adit_acme::{
    CertName, Challenges, FileStore, Settings, Store, StoreError, StoredCertificate, StoredRecord,
};
use secrecy::SecretString;

use crate::{double::Double, support::Run};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn stored_certificates_are_served_before_their_names_are_wanted() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com", "b.example.com"]);
    run.certificate("a.example.com").await;
    run.certificate("b.example.com").await;
    run.shutdown().await;

    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    assert!(run.served("a.example.com").is_some(), "at once");
    run.want(&["a.example.com"]);
    run.until("wanted", |run| run.status("a.example.com").is_some())
        .await;
    assert!(
        run.served("b.example.com").is_some(),
        "its tunnel may come back"
    );
    run.want(&[]);
    run.until("withdrawn", |run| run.served("a.example.com").is_none())
        .await;
    assert_eq!(double.production.lock().orders.len(), 2);
}

#[tokio::test]
async fn a_stored_certificate_that_is_not_wanted_is_served_until_it_expires() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    double.production.lock().lifetime = Some(3 * SECOND);
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
    run.shutdown().await;
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    assert!(run.served("a.example.com").is_some());
    run.until("withdrawn", |run| run.served("a.example.com").is_none())
        .await;
    run.shutdown().await;
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    assert!(run.served("a.example.com").is_none(), "it has expired");
}

/// The files of a host.
fn files(dir: &tempfile::TempDir, host: &str) -> Vec<PathBuf> {
    let cas = fs::read_dir(dir.path()).unwrap();
    let files = cas.flat_map(|ca| fs::read_dir(ca.unwrap().path()).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(host)
        })
        .collect()
}

#[tokio::test]
async fn files_of_names_that_were_not_used_for_long_are_removed() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["long.example.com"]);
    run.certificate("long.example.com").await;
    double.production.lock().lifetime = Some(SECOND);
    run.want(&["long.example.com", "short.example.com"]);
    run.certificate("short.example.com").await;
    run.shutdown().await;
    assert_eq!(files(&dir, "short").len(), 2);
    tokio::time::sleep(2 * SECOND).await;

    let start = |keep_unused| {
        let settings = Settings {
            keep_unused,
            ..double.settings()
        };
        Run::start(settings, dir.path(), &Challenges::new())
    };
    let run = start(60 * SECOND);
    run.want(&["long.example.com"]);
    run.until("wanted", |run| run.status("long.example.com").is_some())
        .await;
    run.shutdown().await;
    assert_eq!(files(&dir, "short").len(), 2, "it was used a moment ago");
    let run = start(SECOND);
    run.until("removed", |_| files(&dir, "short").is_empty())
        .await;
    assert_eq!(files(&dir, "long").len(), 2, "the certificate is valid");
    assert_eq!(files(&dir, "account").len(), 1);
    drop(run);
}

/// A store whose records cannot be read for a time.
struct Unreadable {
    files: FileStore,
    fails: AtomicBool,
}

impl Store for Unreadable {
    fn account(&self, ca: &str) -> Result<Option<SecretString>, StoreError> {
        self.files.account(ca)
    }
    fn store_account(&self, ca: &str, account: &SecretString) -> Result<(), StoreError> {
        self.files.store_account(ca, account)
    }
    fn certificate(
        &self,
        ca: &str,
        name: &CertName,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        self.files.certificate(ca, name)
    }
    fn store_certificate(
        &self,
        ca: &str,
        name: &CertName,
        pem: &StoredCertificate,
    ) -> Result<(), StoreError> {
        self.files.store_certificate(ca, name, pem)
    }
    fn record(&self, ca: &str, name: &CertName) -> Result<Option<StoredRecord>, StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError {
                place: "the disk".to_owned(),
                problem: "input/output error".to_owned(),
            });
        }
        self.files.record(ca, name)
    }
    fn store_record(
        &self,
        ca: &str,
        name: &CertName,
        record: &StoredRecord,
    ) -> Result<(), StoreError> {
        self.files.store_record(ca, name, record)
    }
    fn names(&self, ca: &str, most: usize) -> Result<Vec<CertName>, StoreError> {
        self.files.names(ca, most)
    }
    fn remove(&self, ca: &str, name: &CertName) -> Result<(), StoreError> {
        self.files.remove(ca, name)
    }
}

#[tokio::test]
async fn nothing_is_ordered_for_a_name_whose_record_cannot_be_read() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
    run.shutdown().await;

    let store = Arc::new(Unreadable {
        files: FileStore::open(dir.path()).unwrap(),
        fails: AtomicBool::new(true),
    });
    let run = Run::with_store(double.settings(), store.clone(), &Challenges::new());
    run.want(&["a.example.com", "b.example.com"]);
    let error = run.error("a.example.com", "input/output error").await;
    assert!(error.contains("nothing is ordered"), "{error}");
    run.until("read again", |run| run.stats().store_errors > 4)
        .await;
    assert_eq!(run.stats().orders, 0);
    store.fails.store(false, Ordering::Relaxed);
    run.certificate("a.example.com").await;
    run.certificate("b.example.com").await;
    assert_eq!(run.stats().orders, 1, "the stored certificate is used");
    assert_eq!(run.status("a.example.com").unwrap().last_error, None);
}

#[tokio::test]
async fn a_damaged_record_is_not_taken_for_none() {
    let double = Double::new().await;
    let dir = tempfile::tempdir().unwrap();
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.certificate("a.example.com").await;
    run.shutdown().await;
    for file in files(&dir, "a.example.com.") {
        fs::write(file, "{").unwrap();
    }
    let run = Run::start(double.settings(), dir.path(), &Challenges::new());
    run.want(&["a.example.com"]);
    run.error("a.example.com", "a.example.com.json").await;
    for file in files(&dir, "a.example.com.") {
        fs::remove_file(file).unwrap();
    }
    run.certificate("a.example.com").await;
}
