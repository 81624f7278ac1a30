//! The instance secret, which identifies an installation that reconnects (P-1.8).

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use thiserror::Error;

/// Why a client cannot use its name.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// Another process of this machine uses the name: the two would take over each other's link again and again.
    #[error(
        "client id `{client_id}` is in use by another process of this machine; choose one with --client-id, or serve all tunnels from one file"
    )]
    InUse {
        /// The name.
        client_id: String,
    },
}

const SECRET_BYTES: usize = 32;

/// The highest suffix for a default name that is in use.
const MAX_SUFFIX: u32 = 64;

/// The permissions of the directory: for its owner only, whatever the umask.
const PRIVATE_DIR: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;

/// A name that no other process of this machine uses while this value lives.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) client_id: String,
    pub(crate) secret: [u8; SECRET_BYTES],
    /// The file that is locked until the process ends; `None` if the directory cannot hold a lock.
    _lock: Option<File>,
}

/// Takes the name `client_id`. When the user has not chosen it and it is in use, takes `client_id-2` and so on.
///
/// If the state directory is unusable, a warning is logged: the secret, made of `random`, is then valid only for this
/// process.
///
/// # Errors
/// [`InstanceError`] when the name is in use.
pub(crate) fn take(
    state_dir: &Path,
    client_id: &str,
    chosen: bool,
    random: [u8; SECRET_BYTES],
) -> Result<Instance, InstanceError> {
    let dir = state_dir.join("instances");
    let others = (2..=MAX_SUFFIX).map(|suffix| format!("{client_id}-{suffix}"));
    let names = std::iter::once(client_id.to_owned()).chain(others);
    for name in names.take(if chosen { 1 } else { usize::MAX }) {
        let (lock, secret) = match make_private(&dir).and_then(|()| try_lock(&dir, &name)) {
            Ok(None) => continue,
            Ok(lock) => (lock, load_or_create(&dir, &name, random)),
            // An existing secret may still be readable.
            Err(error) => (None, load(&dir, &name).and_then(|found| found.ok_or(error))),
        };
        let secret = secret.unwrap_or_else(|error| {
            tracing::warn!(
                dir = %dir.display(),
                %error,
                "the instance secret cannot be stored: after a restart the server accepts this client only after it \
                 has detected that the old link is dead; point --state-dir at a writable directory"
            );
            random
        });
        return Ok(Instance {
            client_id: name,
            secret,
            _lock: lock,
        });
    }
    Err(InstanceError::InUse {
        client_id: client_id.to_owned(),
    })
}

fn make_private(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(PRIVATE_DIR).create(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        // Older versions applied the umask. If the directory belongs to another user, its files are still private.
        let _ = fs::set_permissions(dir, Permissions::from_mode(PRIVATE_DIR));
    }
    Ok(())
}

/// The locked file of a name; `None` if another process has locked it.
fn try_lock(dir: &Path, client_id: &str) -> io::Result<Option<File>> {
    let path = dir.join(format!("{client_id}.lock"));
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    // A read-only file can be locked as well.
    let file = options
        .mode(PRIVATE_FILE)
        .open(&path)
        .or_else(|error| File::open(&path).map_err(|_| error))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// The secret of `client_id`, if there is one. An incomplete file counts as missing.
fn load(dir: &Path, client_id: &str) -> io::Result<Option<[u8; SECRET_BYTES]>> {
    match fs::read(dir.join(client_id)) {
        Ok(bytes) => Ok(bytes.try_into().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the secret of `client_id`, or stores `random` as one, readable for its owner only. The name is locked.
fn load_or_create(
    dir: &Path,
    client_id: &str,
    random: [u8; SECRET_BYTES],
) -> io::Result<[u8; SECRET_BYTES]> {
    if let Some(secret) = load(dir, client_id)? {
        return Ok(secret);
    }
    // The secret is written to another file that is then renamed, so that a full disk leaves no incomplete file.
    let path = dir.join(client_id);
    let aside = dir.join(format!("{client_id}.new"));
    let mut options = File::options();
    let written = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE_FILE)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(&random)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&aside, &path));
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written.map(|()| random)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_secret_is_stored_once_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let take = |id: &str, random| take(dir.path(), id, true, [random; 32]).unwrap().secret;
        assert_eq!(take("office-1", 1), [1; 32]);
        assert_eq!(take("office-1", 2), [1; 32]);
        assert_eq!(take("office-2", 3), [3; 32]);
        let instances = dir.path().join("instances");
        assert_eq!(mode(&instances), 0o700);
        assert_eq!(mode(&instances.join("office-1")), 0o600);
        let left = fs::read_dir(instances).unwrap().count();
        assert_eq!(left, 4, "two secrets, two locks, and no temporary file");
    }

    #[test]
    fn a_directory_that_others_can_read_is_made_private() {
        let dir = tempfile::tempdir().unwrap();
        let instances = dir.path().join("instances");
        fs::create_dir(&instances).unwrap();
        fs::set_permissions(&instances, Permissions::from_mode(0o755)).unwrap();
        take(dir.path(), "a", true, [1; 32]).unwrap();
        assert_eq!(mode(&instances), 0o700);
    }

    #[test]
    fn two_clients_on_one_machine_have_different_names() {
        let dir = tempfile::tempdir().unwrap();
        let first = take(dir.path(), "office", false, [1; 32]).unwrap();
        let second = take(dir.path(), "office", false, [2; 32]).unwrap();
        assert_eq!(
            (first.client_id.as_str(), second.client_id.as_str()),
            ("office", "office-2")
        );
        assert_ne!(first.secret, second.secret);
        let refused = take(dir.path(), "office", true, [3; 32]).unwrap_err();
        assert!(matches!(refused, InstanceError::InUse { .. }), "{refused}");
        drop(first);
        let again = take(dir.path(), "office", true, [4; 32]).unwrap();
        assert_eq!(again.secret, [1; 32], "the name's own secret");
    }

    #[test]
    fn an_incomplete_secret_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("instances")).unwrap();
        fs::write(dir.path().join("instances/a"), b"short").unwrap();
        let take = |random| take(dir.path(), "a", true, [random; 32]).unwrap().secret;
        assert_eq!((take(1), take(2)), ([1; 32], [1; 32]));
    }

    #[test]
    fn without_a_state_directory_the_secret_lives_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        // A file in place of the directory, and a directory that cannot be created: both fail for root as well.
        for state_dir in [file.as_path(), Path::new("/proc/adit")] {
            let taken = take(state_dir, "a", true, [7; 32]).unwrap();
            assert_eq!(taken.secret, [7; 32]);
        }
    }
}
