//! Files of the state directory that only their owner can read.
//!
//! Promises: a file is replaced as a whole, and is on the disk when [`replace`] returns; after a crash it is either the old
//! one or the new one. No other user can read a new file, or list a directory that is made for it.
//!
//! Leaves to the caller: what the file contains, and two writers of the same file at a time.
//!
//! Cost: [`replace`] waits for the disk: milliseconds, or much longer on a busy one. Call it where a thread may block.

use std::{
    fs, io,
    io::{Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
};

/// Reads a file; `None` if it does not exist.
///
/// # Errors
/// The file cannot be read, or has more than `most` bytes: another program has written it.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if content.len() as u64 > most {
        let error = format!("more than {most} bytes are too many");
        return Err(io::Error::new(io::ErrorKind::InvalidData, error));
    }
    Ok(Some(content))
}

/// The permissions of a file, if it gives any to others than its owner.
#[must_use]
pub fn shared_mode(path: &Path) -> Option<u32> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

/// The user that owns a file, if it is neither root nor the owner of the file's directory.
#[must_use]
pub fn foreign_owner(path: &Path) -> Option<u32> {
    let owner = fs::metadata(path).ok()?.uid();
    let of_dir = fs::metadata(parent(path)?).ok()?.uid();
    (owner != 0 && owner != of_dir).then_some(owner)
}

/// Gives a file that root has made to the owner of its directory: a program that runs as that user has to read it.
///
/// # Errors
/// The owner cannot be changed.
pub fn give_to_owner_of_dir(path: &Path) -> io::Result<()> {
    let Some(dir) = parent(path) else {
        return Ok(());
    };
    let (file, dir) = (fs::metadata(path)?, fs::metadata(dir)?);
    if file.uid() == 0 && dir.uid() != 0 {
        chown(path, Some(dir.uid()), Some(dir.gid()))?;
    }
    Ok(())
}

fn parent(path: &Path) -> Option<&Path> {
    path.parent().filter(|dir| !dir.as_os_str().is_empty())
}

/// Makes a directory, and those above it, that only the owner can list. One that exists is not changed.
///
/// # Errors
/// The directory cannot be made.
pub fn make_dir(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// Replaces a file: writes a new one beside it and renames that, so that a crash leaves either the old or the new file.
/// Makes its directory. A file that root writes belongs to the owner of the directory.
///
/// # Errors
/// The file cannot be written; the old one is unchanged.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".new.{}", std::process::id()));
    // One that a killed process with this number has left.
    let _ = fs::remove_file(&aside);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| give_to_owner_of_dir(Path::new(&aside)))
        .and_then(|()| fs::rename(&aside, path))
        .and_then(|()| match parent(path) {
            // The new name outlives a loss of power only with its directory.
            Some(dir) => fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        });
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_for_its_owner_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/file.json");
        assert_eq!(read(&path, 10).unwrap(), None);
        replace(&path, b"first").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(read(&path, 6).unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(shared_mode(&path), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(shared_mode(&path), Some(0o640));
        replace(&path, b"second").unwrap();
        assert_eq!(shared_mode(&path), None);
        let files = fs::read_dir(dir.path().join("deep")).unwrap();
        assert_eq!(files.count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_of_root_is_given_to_the_owner_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // Only root can change the owner of a directory; other users skip the test.
        if chown(dir.path(), Some(12_345), None).is_err() {
            return;
        }
        replace(&path, b"content").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), 12_345);
        assert_eq!(foreign_owner(&path), None);
        chown(&path, Some(23_456), None).unwrap();
        assert_eq!(foreign_owner(&path), Some(23_456));
    }

    #[test]
    fn a_file_that_is_too_long_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, &[0; 11]).unwrap();
        let error = read(&path, 10).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
