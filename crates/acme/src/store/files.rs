//! Files in a directory.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use adit_private_file as private_file;
use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};

use super::{Store, StoreError, StoredCertificate, StoredRecord};
use crate::name::CertName;

/// The bound of every file: far more than a chain of certificates has.
const LONGEST_FILE: u64 = 1 << 20;

/// Keeps everything in files of a directory, in one directory for each CA:
///
/// ```text
/// DIR/acme-v02.api.letsencrypt.org-86f6aa6f/account.json           the account and its key
/// DIR/acme-v02.api.letsencrypt.org-86f6aa6f/app.example.com.pem    key and chain
/// DIR/acme-v02.api.letsencrypt.org-86f6aa6f/app.example.com.json   orders of the past
/// ```
///
/// Each file is replaced as a whole and only its owner can read it (mode 0600, directories 0700).
#[derive(Debug, Clone)]
pub struct FileStore {
    dir: PathBuf,
}

impl FileStore {
    /// Uses this directory, and makes it if it does not exist. Other users can no longer list it.
    ///
    /// # Errors
    /// [`StoreError`]: the directory cannot be made or restricted.
    ///
    /// # Cost
    /// Blocks for the file system.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)));
        made.map_err(|error| failed(dir, &error))?;
        Ok(Self { dir: dir.into() })
    }

    fn path(&self, ca: &str, file: &str) -> PathBuf {
        self.dir.join(ca_dir(ca)).join(file)
    }

    fn read(&self, ca: &str, file: &str) -> Result<Option<String>, StoreError> {
        let path = self.path(ca, file);
        let read = private_file::read(&path, LONGEST_FILE);
        let Some(content) = read.map_err(|error| failed(&path, &error))? else {
            return Ok(None);
        };
        if private_file::shared_mode(&path).is_some() {
            let path = path.display();
            tracing::warn!("other users can read {path}: run chmod 600 {path}");
        }
        // The text of the error could have a part of a key.
        String::from_utf8(content)
            .map(Some)
            .map_err(|_| damaged(&path, "not a text"))
    }

    fn replace(&self, ca: &str, file: &str, content: &str) -> Result<(), StoreError> {
        let path = self.path(ca, file);
        private_file::replace(&path, content.as_bytes()).map_err(|error| failed(&path, &error))
    }
}

impl Store for FileStore {
    fn account(&self, ca: &str) -> Result<Option<SecretString>, StoreError> {
        Ok(self.read(ca, "account.json")?.map(SecretString::from))
    }

    fn store_account(&self, ca: &str, account: &SecretString) -> Result<(), StoreError> {
        self.replace(ca, "account.json", account.expose_secret())
    }

    fn certificate(
        &self,
        ca: &str,
        name: &CertName,
    ) -> Result<Option<StoredCertificate>, StoreError> {
        let file = format!("{}.pem", name.file_stem());
        Ok(self.read(ca, &file)?.map(SecretString::from))
    }

    fn store_certificate(
        &self,
        ca: &str,
        name: &CertName,
        certificate: &StoredCertificate,
    ) -> Result<(), StoreError> {
        let file = format!("{}.pem", name.file_stem());
        self.replace(ca, &file, certificate.expose_secret())
    }

    fn record(&self, ca: &str, name: &CertName) -> Result<Option<StoredRecord>, StoreError> {
        let file = format!("{}.json", record_stem(name));
        let Some(json) = self.read(ca, &file)? else {
            return Ok(None);
        };
        let record = serde_json::from_str(&json);
        record
            .map(Some)
            .map_err(|error| damaged(&self.path(ca, &file), &error.to_string()))
    }

    fn store_record(
        &self,
        ca: &str,
        name: &CertName,
        record: &StoredRecord,
    ) -> Result<(), StoreError> {
        let file = format!("{}.json", record_stem(name));
        let json = serde_json::to_string(record);
        let json = json.map_err(|error| damaged(&self.path(ca, &file), &error.to_string()))?;
        self.replace(ca, &file, &json)
    }

    fn names(&self, ca: &str, most: usize) -> Result<Vec<CertName>, StoreError> {
        let dir = self.dir.join(ca_dir(ca));
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(&dir, &error)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let entry = entry.map_err(|error| failed(&dir, &error))?;
            let file = entry.file_name();
            names.extend(file.to_str().and_then(name_of));
            if names.len() >= most {
                break;
            }
        }
        Ok(names.into_iter().collect())
    }

    fn remove(&self, ca: &str, name: &CertName) -> Result<(), StoreError> {
        // The orders go last: they are the guard against duplicates.
        let files = [
            format!("{}.pem", name.file_stem()),
            format!("{}.json", record_stem(name)),
        ];
        for path in files.map(|file| self.path(ca, &file)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed(&path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The name whose certificate or orders a file has; `None` for the account, and for files of others.
fn name_of(file: &str) -> Option<CertName> {
    match file.rsplit_once('.')? {
        (stem, "pem") => CertName::from_file_stem(stem),
        ("account", "json") => None,
        ("_account", "json") => CertName::parse("account").ok(),
        (stem, "json") => CertName::from_file_stem(stem),
        _ => None,
    }
}

/// The name of a file for orders. A host named `account` must not replace the file of the account.
fn record_stem(name: &CertName) -> String {
    match name.as_str() {
        "account" => "_account".to_owned(),
        _ => name.file_stem(),
    }
}

/// The directory of a CA: its host for people, and a digest of the URL, because one host may have several CAs.
fn ca_dir(ca: &str) -> String {
    let rest = ca.split_once("://").map_or(ca, |(_, rest)| rest);
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    let fits = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let host: String = host.chars().filter(fits).take(100).collect();
    let digest = digest(&SHA256, ca.as_bytes());
    let digest = digest.as_ref().iter().take(4);
    let digest: String = digest.map(|byte| format!("{byte:02x}")).collect();
    format!("{host}-{digest}")
}

fn failed(path: &Path, error: &io::Error) -> StoreError {
    StoreError {
        place: path.display().to_string(),
        problem: error.to_string(),
    }
}

fn damaged(path: &Path, problem: &str) -> StoreError {
    StoreError {
        place: path.display().to_string(),
        problem: format!("the file is damaged: {problem}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const PRODUCTION: &str = "https://ca.example/directory";
    const STAGING: &str = "https://ca.example/staging/directory";

    #[test]
    fn files_are_read_back_and_only_their_owner_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(&dir.path().join("acme")).unwrap();
        let name = CertName::parse("*.example.com").unwrap();
        assert_eq!(store.record(PRODUCTION, &name), Ok(None));
        let mut record = StoredRecord::default();
        record.record.failures = 3;
        record.record.orders = vec![UNIX_EPOCH + Duration::from_millis(1_234_567)];
        record.obtained = Some(5);
        store.store_record(PRODUCTION, &name, &record).unwrap();
        store
            .store_certificate(PRODUCTION, &name, &"pem".into())
            .unwrap();
        store.store_account(PRODUCTION, &"key".into()).unwrap();
        assert_eq!(store.record(PRODUCTION, &name), Ok(Some(record)));
        let pem = store.certificate(PRODUCTION, &name).unwrap().unwrap();
        assert_eq!(pem.expose_secret(), "pem");
        let ca = store.dir.join(ca_dir(PRODUCTION));
        for (path, mode) in [
            (&store.dir, 0o700),
            (&ca, 0o700),
            (&ca.join("account.json"), 0o600),
            (&ca.join("_wildcard.example.com.pem"), 0o600),
            (&ca.join("_wildcard.example.com.json"), 0o600),
        ] {
            let found = fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(found, mode, "{}", path.display());
        }
    }

    #[test]
    fn the_stored_names_are_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        assert_eq!(store.names(PRODUCTION, 10), Ok(Vec::new()));
        store.store_account(PRODUCTION, &"key".into()).unwrap();
        let names: Vec<_> = ["*.example.com", "account", "b.example.com"]
            .map(|name| CertName::parse(name).unwrap())
            .into();
        for name in &names {
            let record = StoredRecord::default();
            store.store_record(PRODUCTION, name, &record).unwrap();
        }
        store
            .store_certificate(PRODUCTION, &names[2], &"pem".into())
            .unwrap();
        fs::write(store.path(PRODUCTION, "b.example.com.pem.new.1"), "").unwrap();
        assert_eq!(store.names(PRODUCTION, 10), Ok(names.clone()));
        assert_eq!(store.names(PRODUCTION, 2).unwrap().len(), 2);
        for name in &names {
            store.remove(PRODUCTION, name).unwrap();
            store.remove(PRODUCTION, name).unwrap();
        }
        assert_eq!(store.names(PRODUCTION, 10), Ok(Vec::new()));
        assert!(store.account(PRODUCTION).unwrap().is_some());
    }

    #[test]
    fn staging_and_production_share_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        store.store_account(STAGING, &"key".into()).unwrap();
        assert!(store.account(PRODUCTION).unwrap().is_none());
        assert!(ca_dir(STAGING).starts_with("ca.example-"));
    }

    #[test]
    fn a_host_named_account_does_not_replace_the_account() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let name = CertName::parse("account").unwrap();
        store.store_account(PRODUCTION, &"key".into()).unwrap();
        let record = StoredRecord::default();
        store.store_record(PRODUCTION, &name, &record).unwrap();
        let account = store.account(PRODUCTION).unwrap().unwrap();
        assert_eq!(account.expose_secret(), "key");
        assert_eq!(store.record(PRODUCTION, &name), Ok(Some(record)));
    }

    #[test]
    fn a_damaged_file_is_reported_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileStore::open(dir.path()).unwrap();
        let name = CertName::parse("a.example.com").unwrap();
        let path = store.path(PRODUCTION, "a.example.com.json");
        private_file::replace(&path, b"{\"failures\":").unwrap();
        let error = store.record(PRODUCTION, &name).unwrap_err().to_string();
        assert!(
            error.contains("a.example.com.json") && error.contains("damaged"),
            "{error}"
        );
        private_file::replace(&store.path(PRODUCTION, "a.example.com.pem"), &[0xff]).unwrap();
        store.certificate(PRODUCTION, &name).unwrap_err();
    }
}
