//! A directory that is removed with its owner.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// A new directory under the temporary one of the system, for its owner only; removed when dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Creates one. Fails when it exists: it would be another user's.
    pub(super) fn new() -> Result<Self, String> {
        let path = env::temp_dir().join(format!("adit-demo-{:032x}", rand::random::<u128>()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            format!("cannot make the directory {} for the demo: {error}; TMPDIR may name a better place", path.display())
        })?;
        Ok(Self { path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing depends on a directory that cannot be removed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::PermissionsExt};

    use super::Scratch;

    #[test]
    fn it_is_private_and_removed_with_its_owner() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(path.join("file"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn two_have_different_paths() {
        assert_ne!(
            Scratch::new().unwrap().path(),
            Scratch::new().unwrap().path()
        );
    }
}
