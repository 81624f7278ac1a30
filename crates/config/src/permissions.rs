//! Checks the permissions of files that hold secrets.
//!
//! A file that every user can write is rejected, as in OpenSSH, because its writer decides which clients are accepted.
//! For a file that others can read, or its group can write, a warning is logged, as in `wg-quick`: secrets mounted by
//! Docker and Kubernetes are readable for all users, and if each user has a group, a file that its group can write is
//! still writable only for its owner.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
};

use crate::{error::Origin, read::Item};

const OTHERS_WRITE: u32 = 0o002;
const OTHERS_READ: u32 = 0o004;
const GROUP_WRITES: u32 = 0o020;

const ROOT: u32 = 0;

/// The owner of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The user of this process, or root.
    Ours,
    /// Another user, with this id.
    Other(u32),
}

/// Determines the owner of the file.
#[must_use]
pub fn owner(metadata: &Metadata) -> Owner {
    let uid = metadata.uid();
    if uid == ROOT || uid == rustix::process::geteuid().as_raw() {
        Owner::Ours
    } else {
        Owner::Other(uid)
    }
}

/// Checks a file with a secret. Returns a warning, if there is one.
///
/// # Errors
/// The reason why it must not be used, and the advice.
pub fn check_secret(path: &Path, metadata: &Metadata) -> Result<Option<String>, String> {
    // A pipe or a socket was opened for this process, whatever its mode.
    if !metadata.is_file() {
        return Ok(None);
    }
    let (file, mode) = (path.display(), metadata.mode() & 0o7777);
    if mode & OTHERS_WRITE != 0 {
        return Err(format!(
            "every user of this machine can write {file} (mode {mode:04o}): run chmod 600 {file}, and replace the secret"
        ));
    }
    let who = match (mode & OTHERS_READ != 0, mode & GROUP_WRITES != 0) {
        (true, _) => "every user of this machine can read",
        (false, true) => "its group can write",
        (false, false) => {
            return Ok(match owner(metadata) {
                Owner::Ours => None,
                Owner::Other(uid) => Some(format!(
                    "{file} belongs to another user (uid {uid}), who knows the secret in it and can change it"
                )),
            });
        }
    };
    Ok(Some(format!(
        "{who} {file} (mode {mode:04o}): run chmod 600 {file}"
    )))
}

/// Adds a warning if others can read or write a configuration file that contains a secret; one for each file.
pub(crate) fn warn_of_inline_secret(
    item: &Item<'_>,
    file: Option<&Path>,
    warnings: &mut Vec<String>,
) {
    if matches!(item.origin(), Origin::Variable(_)) {
        return;
    }
    let Some(file) = file else { return };
    let Ok(metadata) = fs::metadata(file) else {
        return;
    };
    if let Ok(Some(warning)) | Err(warning) = check_secret(file, &metadata) {
        let warning = format!("{warning}; it contains a token");
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn checked(mode: u32) -> Result<Option<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        check_secret(file.path(), &fs::metadata(file.path()).unwrap())
    }

    #[test]
    fn a_world_writable_secret_is_refused() {
        for mode in [0o602, 0o666, 0o646] {
            let error = checked(mode).unwrap_err();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_secret_of_another_user_is_a_warning() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // Only root can change the owner of a file; other users skip the test.
        if std::os::unix::fs::chown(file.path(), Some(12_345), None).is_err() {
            return;
        }
        let metadata = fs::metadata(file.path()).unwrap();
        assert_eq!(owner(&metadata), Owner::Other(12_345));
        let warning = check_secret(file.path(), &metadata).unwrap().unwrap();
        assert!(warning.contains("uid 12345"), "{warning}");
    }

    #[test]
    fn a_secret_that_others_can_read_is_a_warning() {
        for mode in [0o644, 0o604, 0o664, 0o660, 0o620] {
            assert!(checked(mode).unwrap().is_some(), "{mode:o}");
        }
        for mode in [0o600, 0o400, 0o640] {
            assert_eq!(checked(mode), Ok(None), "{mode:o}");
        }
    }
}
