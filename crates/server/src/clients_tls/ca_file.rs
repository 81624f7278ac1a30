//! The CA in the state directory.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use adit_private_file as private_file;
use adit_tls::{Authority, AuthorityError, MAX_AUTHORITY_BYTES};
use secrecy::ExposeSecret;

use super::error::TlsSetupError;

/// Identifies the content of a file: inode and time of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp(u64, i64, i64);

/// The files of a CA.
#[derive(Debug, Clone)]
pub(super) struct CaFile {
    /// The CA with its key.
    private: PathBuf,
    /// The certificates alone.
    public: PathBuf,
}

impl CaFile {
    pub(super) fn in_dir(state_dir: &Path) -> Self {
        let dir = state_dir.join("tls");
        Self {
            private: dir.join("ca.json"),
            public: dir.join("ca.crt"),
        }
    }

    /// The file with the certificates that clients trust.
    pub(super) fn public(&self) -> &Path {
        &self.public
    }

    /// The stored CA, or a new one.
    pub(super) fn load(
        &self,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Authority, TlsSetupError> {
        let authority = match self.read()? {
            Some(stored) => stored,
            None if self.public.exists() => {
                return Err(TlsSetupError::Lost {
                    path: self.private.clone(),
                    public: self.public.clone(),
                });
            }
            None => {
                let new =
                    Authority::generate(lifetime, now).map_err(|error| self.authority(error))?;
                self.store(&new, now)?;
                tracing::info!(path = %self.private.display(), "the server has a new CA");
                new
            }
        };
        Ok(authority)
    }

    /// Changes when another program has replaced the file. `None`: there is no file.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        let file = fs::metadata(&self.private).ok()?;
        Some(Stamp(file.ino(), file.ctime(), file.ctime_nsec()))
    }

    /// The stored CA; `None` if there is no file.
    pub(super) fn read(&self) -> Result<Option<Authority>, TlsSetupError> {
        let read = private_file::read(&self.private, MAX_AUTHORITY_BYTES as u64);
        let Some(json) = read.map_err(|error| self.file(error))? else {
            return Ok(None);
        };
        self.check_mode()?;
        let authority = Authority::from_json(&json);
        authority.map(Some).map_err(|error| self.authority(error))
    }

    fn check_mode(&self) -> Result<(), TlsSetupError> {
        let path = &self.private;
        match private_file::shared_mode(path) {
            Some(mode) if mode & 0o022 != 0 => Err(TlsSetupError::Shared { path: path.clone() }),
            Some(_) => {
                tracing::warn!(
                    "other users can read the key of the server's own CA in {}: run chmod 600 {}",
                    path.display(),
                    path.display()
                );
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Stores the CA. The key is stored first: a CA that clients trust is never lost.
    pub(super) fn store(
        &self,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<(), TlsSetupError> {
        let json = authority.to_json().map_err(|error| self.authority(error))?;
        let stored = private_file::replace(&self.private, json.expose_secret().as_bytes());
        stored.map_err(|error| self.file(error))?;
        self.publish(authority, now)
    }

    /// Writes the certificates that clients trust.
    pub(super) fn publish(
        &self,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<(), TlsSetupError> {
        let written = private_file::replace(&self.public, authority.roots_pem(now).as_bytes());
        written.map_err(|error| TlsSetupError::File {
            path: self.public.clone(),
            error,
        })
    }

    pub(super) fn authority(&self, error: AuthorityError) -> TlsSetupError {
        TlsSetupError::Authority {
            path: self.private.clone(),
            error,
        }
    }

    fn file(&self, error: std::io::Error) -> TlsSetupError {
        TlsSetupError::File {
            path: self.private.clone(),
            error,
        }
    }
}
