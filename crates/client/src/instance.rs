//! The instance secret: proves that it is the same installation that returns (P-1.8).

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Why the secret cannot be kept.
#[derive(Debug, Error)]
pub enum InstanceError {
    /// The file cannot be read or written.
    #[error(
        "cannot keep the instance secret in {path}: {error}; point --state-dir at a directory that can be written"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Another process of this machine runs under the name: the two would take the link from each other for ever.
    #[error(
        "client id `{client_id}` is in use by another process of this machine; choose one with --client-id, or serve all tunnels from one file"
    )]
    InUse {
        /// The name.
        client_id: String,
    },
    /// The file holds something else.
    #[error("{path} does not hold an instance secret; remove it to start as a new instance")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

const SECRET_BYTES: usize = 32;

/// Names that are tried when the user has chosen none and the first is in use.
const MAX_SUFFIX: u32 = 64;

/// A name that is this process's alone on this machine, as long as this lives.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) client_id: String,
    pub(crate) secret: [u8; SECRET_BYTES],
    /// Locked; the lock ends with the process, however it ends.
    _lock: fs::File,
}

/// Takes the name `client_id`. When the user has not chosen it and it is in use, takes `client_id-2` and so on.
///
/// # Errors
/// [`InstanceError`] when the name is in use or the state directory cannot be used.
pub(crate) fn take(
    state_dir: &Path,
    client_id: &str,
    chosen: bool,
    random: [u8; SECRET_BYTES],
) -> Result<Instance, InstanceError> {
    let others = (2..=MAX_SUFFIX).map(|suffix| format!("{client_id}-{suffix}"));
    let names = std::iter::once(client_id.to_owned()).chain(others);
    for name in names.take(if chosen { 1 } else { usize::MAX }) {
        if let Some(lock) = try_lock(state_dir, &name)? {
            return Ok(Instance {
                secret: load_or_create(state_dir, &name, random)?,
                client_id: name,
                _lock: lock,
            });
        }
    }
    Err(InstanceError::InUse {
        client_id: client_id.to_owned(),
    })
}

/// The locked file of a name, or nothing if another process has it.
fn try_lock(state_dir: &Path, client_id: &str) -> Result<Option<fs::File>, InstanceError> {
    let path = state_dir
        .join("instances")
        .join(format!("{client_id}.lock"));
    let io_error = |error| InstanceError::Io {
        path: path.clone(),
        error,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io_error)?;
    }
    let file = fs::File::create(&path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(io_error(error)),
    }
}

/// Reads the secret of `client_id` from the state directory, or makes one and keeps it, readable for its owner only.
///
/// # Errors
/// [`InstanceError`] when the file cannot be used.
fn load_or_create(
    state_dir: &Path,
    client_id: &str,
    random: [u8; SECRET_BYTES],
) -> Result<[u8; SECRET_BYTES], InstanceError> {
    let path = state_dir.join("instances").join(client_id);
    let io_error = |error| InstanceError::Io {
        path: path.clone(),
        error,
    };
    match fs::read(&path) {
        Ok(bytes) => {
            return bytes
                .try_into()
                .map_err(|_| InstanceError::Damaged { path });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io_error(error)),
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io_error)?;
    }
    // Written aside and linked into place: of two clients that start at the same moment one wins, and both use it.
    let aside = path.with_extension(format!("{}.new", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| file.write_all(&random))
        .and_then(|()| match fs::hard_link(&aside, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    let _ = fs::remove_file(&aside);
    written.map_err(io_error)?;
    let bytes = fs::read(&path).map_err(io_error)?;
    bytes
        .try_into()
        .map_err(|_| InstanceError::Damaged { path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path(), "office-1", [1; 32]).unwrap();
        assert_eq!(first, [1; 32]);
        assert_eq!(
            load_or_create(dir.path(), "office-1", [2; 32]).unwrap(),
            first
        );
        assert_eq!(
            load_or_create(dir.path(), "office-2", [3; 32]).unwrap(),
            [3; 32]
        );
        let left: Vec<_> = fs::read_dir(dir.path().join("instances"))
            .unwrap()
            .collect();
        assert_eq!(left.len(), 2, "nothing is left lying about");
    }

    #[test]
    fn two_clients_on_one_machine_do_not_share_a_name() {
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
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("instances")).unwrap();
        fs::write(dir.path().join("instances/a"), b"short").unwrap();
        let error = load_or_create(dir.path(), "a", [1; 32]).unwrap_err();
        assert!(error.to_string().contains("instances/a"), "{error}");
    }
}
