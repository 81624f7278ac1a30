//! The file of users, credentials and enrolments.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use adit_auth::{
    AccessKey, CredentialId, EnrolStoreError, NewCredential, RecordStore, Records, StoreError,
    UserName,
};
use parking_lot::Mutex;
use thiserror::Error;

use crate::invalid_json::invalid_json;

/// The longest file: some times that of the largest number of records.
const LONGEST_FILE: u64 = 64 << 20;

/// Permissions with which others could add a credential.
const OTHERS_WRITE: u32 = 0o022;

/// Users, credentials and enrolments in a state directory: `identities.json`, and `last-used.json` with the times of their
/// last use, which the server alone writes.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    lock: PathBuf,
    uses: PathBuf,
    seen: Mutex<(Seen, Option<CredentialId>)>,
}

/// In the lock file, once there is a file of records.
const BEGUN: &[u8] =
    b"There is an identities.json. Remove this file only to begin anew without it.\n";

/// Identifies the content of the file at the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Nothing,
    NoFile,
    /// Device, inode, length and time of change.
    File([i64; 5]),
}

/// Why the records were not changed.
#[derive(Debug, Error)]
pub enum ChangeError<E> {
    /// The change itself was rejected.
    #[error(transparent)]
    Rejected(E),
    /// The file cannot be read or written.
    #[error(transparent)]
    Store(StoreError),
}

impl RecordFile {
    /// The file in this state directory. Nothing is read yet.
    #[must_use]
    pub fn in_dir(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("identities.json"),
            lock: state_dir.join("identities.lock"),
            uses: state_dir.join("last-used.json"),
            seen: Mutex::new((Seen::Nothing, None)),
        }
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The records; none if there has never been a file.
    ///
    /// # Errors
    /// [`StoreError`], also if the file is gone: without it, users that were removed or restricted could come in by their tokens.
    pub fn read(&self) -> Result<Records, StoreError> {
        let path = self.path.display();
        let failed = |problem: String| StoreError(format!("{path}: {problem}"));
        let text = adit_private_file::read(&self.path, LONGEST_FILE);
        let Some(text) = text.map_err(|error| failed(error.to_string()))? else {
            return match self.was_begun() {
                true => Err(self.gone()),
                false => Ok(Records::default()),
            };
        };
        if let Some(uid) = adit_private_file::foreign_owner(&self.path) {
            return Err(failed(format!(
                "it belongs to another user (uid {uid}), who could add credentials: check its content, then change its owner"
            )));
        }
        match adit_private_file::shared_mode(&self.path) {
            Some(mode) if mode & OTHERS_WRITE != 0 => {
                return Err(failed(format!(
                    "other users can write it (mode {mode:04o}) and could add credentials: check its content, then run \
                     chmod 600 {path}"
                )));
            }
            _ => {}
        }
        serde_json::from_slice(&text).map_err(|error| failed(invalid_json(&error)))
    }

    /// Whether there has been a file of records.
    fn was_begun(&self) -> bool {
        fs::metadata(&self.lock).is_ok_and(|lock| lock.len() > 0)
    }

    fn gone(&self) -> StoreError {
        let (path, lock) = (self.path.display(), self.lock.display());
        StoreError(format!(
            "{path} is gone, with all users and credentials: put it back from a copy; to begin anew without them, remove {lock} \
             as well and restart the server"
        ))
    }

    /// Changes the records, while no other process does.
    ///
    /// # Errors
    /// [`ChangeError`]. The file has not changed then.
    pub fn change<T, E>(
        &self,
        change: impl FnOnce(&mut Records) -> Result<T, E>,
    ) -> Result<T, ChangeError<E>> {
        let store = ChangeError::Store;
        // Dropping it releases the lock.
        let mut lock = self.locked().map_err(|error| {
            store(StoreError(format!(
                "cannot lock {}: {error}",
                self.lock.display()
            )))
        })?;
        let before = self.read().map_err(store)?;
        let mut records = before.clone();
        let value = change(&mut records).map_err(ChangeError::Rejected)?;
        if records != before {
            let begins = || CredentialId::from_random(rand::random());
            records.origin.get_or_insert_with(begins);
            let text = serde_json::to_vec_pretty(&records).map_err(io::Error::other);
            let written = text.and_then(|text| adit_private_file::replace(&self.path, &text));
            written.map_err(|error| {
                store(StoreError(format!(
                    "cannot write {}: {error}",
                    self.path.display()
                )))
            })?;
        }
        if self.path.exists() && !self.was_begun() {
            // The records are written: a mark that is missing is made with the next change.
            let _ = lock.write_all(BEGUN);
        }
        Ok(value)
    }

    /// When each credential was last used, in seconds since 1970. A file that cannot be read is as if there were none.
    #[must_use]
    pub fn last_uses(&self) -> BTreeMap<CredentialId, u64> {
        let text = adit_private_file::read(&self.uses, LONGEST_FILE);
        let text = text.ok().flatten().unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn locked(&self) -> io::Result<File> {
        if let Some(dir) = self.lock.parent() {
            adit_private_file::make_dir(dir)?;
        }
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.lock)?;
        adit_private_file::give_to_owner_of_dir(&self.lock)?;
        file.lock()?;
        Ok(file)
    }

    /// Refuses a set of records that does not continue the one that this process has read: it would revoke everybody.
    fn check_origin(
        &self,
        read: Option<CredentialId>,
        records: &Records,
    ) -> Result<(), StoreError> {
        if read.is_none() || read == records.origin {
            return Ok(());
        }
        Err(StoreError(format!(
            "{} is another set of users and credentials than the one that this server uses: put that one back, or restart the \
             server to use this one",
            self.path.display()
        )))
    }

    fn look(&self) -> Result<Seen, StoreError> {
        match fs::metadata(&self.path) {
            Ok(file) => Ok(Seen::File([
                i64::try_from(file.dev()).unwrap_or_default(),
                i64::try_from(file.ino()).unwrap_or_default(),
                i64::try_from(file.len()).unwrap_or_default(),
                file.ctime(),
                file.ctime_nsec(),
            ])),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                Ok(Seen::NoFile)
            }
            Err(error) => Err(StoreError(format!("{}: {error}", self.path.display()))),
        }
    }
}

impl RecordStore for RecordFile {
    fn changed(&self) -> Result<Option<Arc<Records>>, StoreError> {
        let mut last = self.seen.lock();
        let (seen, origin) = *last;
        let found = self.look()?;
        if seen == found {
            return Ok(None);
        }
        if found == Seen::NoFile && matches!(seen, Seen::File(_)) {
            return Err(self.gone());
        }
        // A file that cannot be read now is read at the next look: the change in it must not be lost.
        let records = self.read()?;
        self.check_origin(origin, &records)?;
        *last = (found, records.origin);
        Ok(Some(Arc::new(records)))
    }

    fn enrol(
        &self,
        key: &AccessKey,
        from: IpAddr,
        new: NewCredential,
        now: u64,
    ) -> Result<(UserName, bool), EnrolStoreError> {
        // A wrong key neither waits for the lock nor writes.
        let records = self.read()?;
        let (_, origin) = *self.seen.lock();
        self.check_origin(origin, &records)?;
        records
            .check_enrolment(key, from, now)
            .map_err(adit_auth::EnrolError::from)?;
        let enrolled = self.change(|records| records.enrol(key, from, new, now));
        enrolled.map_err(|error| match error {
            ChangeError::Rejected(error) => error.into(),
            ChangeError::Store(error) => error.into(),
        })
    }

    fn note_uses(&self, uses: &[(CredentialId, u64)]) -> Result<(), StoreError> {
        let mut all = self.last_uses();
        // Credentials that are gone need no time.
        let known = self.read()?;
        let known: HashSet<_> = known.credentials.iter().map(|one| one.id).collect();
        all.retain(|id, _| known.contains(id));
        all.extend(uses.iter().copied());
        let text = serde_json::to_vec(&all).map_err(io::Error::other);
        let written = text.and_then(|text| adit_private_file::replace(&self.uses, &text));
        written.map_err(|error| StoreError(format!("{}: {error}", self.uses.display())))
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, thread};

    use adit_auth::{
        ACCESS_KEY_RANDOM_BYTES, EnrolmentRecord, KeyKind, Proof, RecordError, Scopes,
    };

    use super::*;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn add(file: &RecordFile, name: &str) -> Result<(), ChangeError<RecordError>> {
        file.change(|records| records.add_user(user(name), Scopes::default(), 1))
    }

    fn new(byte: u8) -> NewCredential {
        NewCredential {
            id: CredentialId::from_random([byte; 6]),
            proof: Proof::Certificate,
            label: String::new(),
            expires_at: None,
            scopes: Scopes::default(),
        }
    }

    #[test]
    fn a_change_is_seen_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        assert_eq!(*file.changed().unwrap().unwrap(), Records::default());
        assert_eq!(file.changed().unwrap(), None);
        add(&RecordFile::in_dir(dir.path()), "ann").unwrap();
        let records = file.changed().unwrap().unwrap();
        assert_eq!(records.users.len(), 1);
        assert_eq!(file.changed().unwrap(), None);
        assert!(add(&file, "ann").is_err());
        assert_eq!(file.changed().unwrap(), None);
        let mode = fs::metadata(file.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_or_writable_file_is_reported_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        add(&file, "ann").unwrap();
        fs::write(file.path(), "{").unwrap();
        assert!(file.changed().is_err());
        assert!(file.changed().is_err(), "it is read again");
        let error = add(&file, "bob").unwrap_err().to_string();
        assert!(
            error.contains("identities.json: invalid JSON at line 1"),
            "{error}"
        );
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "{");
        fs::write(file.path(), "{}").unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o622)).unwrap();
        let error = add(&file, "bob").unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_that_is_gone_is_not_an_empty_set() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        add(&file, "ann").unwrap();
        assert!(file.changed().unwrap().is_some());
        let content = fs::read(file.path()).unwrap();
        fs::remove_file(file.path()).unwrap();
        let error = file.changed().unwrap_err().to_string();
        assert!(error.contains("is gone"), "{error}");
        adit_private_file::replace(file.path(), &content).unwrap();
        assert!(file.changed().unwrap().is_some());
    }

    #[test]
    fn a_file_that_is_gone_is_not_begun_anew_by_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        // A change that is rejected begins nothing.
        let rejected = file.change(|records| records.revoke_user(&user("ann"), 1));
        assert!(matches!(rejected, Err(ChangeError::Rejected(_))));
        add(&file, "ann").unwrap();
        fs::remove_file(file.path()).unwrap();
        let others = RecordFile::in_dir(dir.path());
        for error in [
            add(&others, "bob").unwrap_err().to_string(),
            others.read().unwrap_err().to_string(),
            // A server does not start without it either.
            others.changed().unwrap_err().to_string(),
        ] {
            assert!(error.contains("is gone"), "{error}");
            assert!(error.contains("identities.lock"), "{error}");
        }
        assert!(!file.path().exists());
        fs::remove_file(dir.path().join("identities.lock")).unwrap();
        add(&others, "bob").unwrap();
    }

    #[test]
    fn records_that_were_begun_anew_do_not_replace_those_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let server = RecordFile::in_dir(dir.path());
        add(&server, "ann").unwrap();
        assert!(server.changed().unwrap().is_some());
        let content = fs::read(server.path()).unwrap();
        for name in ["identities.json", "identities.lock"] {
            fs::remove_file(dir.path().join(name)).unwrap();
        }
        add(&RecordFile::in_dir(dir.path()), "bob").unwrap();
        for _ in 0..2 {
            let error = server.changed().unwrap_err().to_string();
            assert!(error.contains("another set"), "{error}");
        }
        let restarted = RecordFile::in_dir(dir.path());
        assert_eq!(restarted.changed().unwrap().unwrap().users.len(), 1);
        // The old set continues where it was.
        adit_private_file::replace(server.path(), &content).unwrap();
        let records = server.changed().unwrap().unwrap();
        assert_eq!(records.users[0].name, user("ann"));
        add(&RecordFile::in_dir(dir.path()), "bob").unwrap();
        assert_eq!(server.changed().unwrap().unwrap().users.len(), 2);
    }

    #[test]
    fn changes_at_a_time_are_all_made() {
        let dir = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for writer in 0..4 {
                let dir = dir.path();
                scope.spawn(move || {
                    let file = RecordFile::in_dir(dir);
                    for number in 0..8 {
                        add(&file, &format!("user-{writer}-{number}")).unwrap();
                    }
                });
            }
        });
        let records = RecordFile::in_dir(dir.path()).read().unwrap();
        assert_eq!(records.users.len(), 32);
    }

    #[test]
    fn an_enrolment_key_is_used_once_by_many() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        add(&file, "ann").unwrap();
        let key = AccessKey::from_random(KeyKind::Enrolment, [7; ACCESS_KEY_RANDOM_BYTES]);
        let enrolment = EnrolmentRecord {
            id: key.id(),
            user: user("ann"),
            hash: key.hash(),
            uses_left: 1,
            created_at: 1,
            expires_at: 100,
            revoked_at: None,
            addresses: Vec::new(),
            approval: false,
            scopes: Scopes::default(),
        };
        file.change(|records| records.add_enrolment(enrolment))
            .unwrap();
        let from = [192, 0, 2, 7].into();
        let enrolled: Vec<_> = thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|byte| {
                    let (file, key) = (&file, &key);
                    scope.spawn(move || file.enrol(key, from, new(byte), 10).is_ok())
                })
                .collect();
            tries.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert_eq!(enrolled.iter().filter(|done| **done).count(), 1);
        assert_eq!(file.read().unwrap().credentials.len(), 1);
    }

    #[test]
    fn uses_of_known_credentials_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = RecordFile::in_dir(dir.path());
        add(&file, "ann").unwrap();
        for byte in 1..=2 {
            file.change(|records| records.add_credential(user("ann"), new(byte), 1))
                .unwrap();
        }
        let (first, second) = (new(1).id, new(2).id);
        file.note_uses(&[(first, 5)]).unwrap();
        file.note_uses(&[(second, 6)]).unwrap();
        let both = BTreeMap::from([(first, 5), (second, 6)]);
        assert_eq!(file.last_uses(), both);
        file.change(|records| {
            records.credentials.retain(|one| one.id == second);
            Ok::<_, RecordError>(())
        })
        .unwrap();
        file.note_uses(&[]).unwrap();
        assert_eq!(file.last_uses(), BTreeMap::from([(second, 6)]));
    }
}
