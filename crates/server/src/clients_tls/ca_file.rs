//! The CA in the state directory.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use adit_private_file as private_file;
use adit_tls::{Authority, AuthorityError, MAX_AUTHORITY_BYTES};
use secrecy::ExposeSecret;

use super::error::TlsSetupError;

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
        let read = private_file::read(&self.private, MAX_AUTHORITY_BYTES as u64);
        let authority = match read.map_err(|error| self.file(error))? {
            Some(json) => {
                self.check_mode()?;
                Authority::from_json(&json).map_err(|error| self.authority(error))?
            }
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
