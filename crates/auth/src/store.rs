//! Where records are kept.

use std::{net::IpAddr, sync::Arc};

use thiserror::Error;

use crate::{AccessKey, CredentialId, EnrolError, NewCredential, Records, UserName};

/// Keeps the records of users, credentials and enrolments. Several processes may change them.
///
/// All functions may wait for a disk or a database: they are called off the threads that forward data.
pub trait RecordStore: Send + Sync {
    /// The records, if they have changed since the last call; the first call returns them always.
    ///
    /// # Errors
    /// [`StoreError`]. The records that were returned before stay in force.
    fn changed(&self) -> Result<Option<Arc<Records>>, StoreError>;

    /// Uses an enrolment key once: adds a credential, which the next call of [`changed`](Self::changed) returns. Returns the
    /// user, and whether the credential awaits approval.
    ///
    /// # Errors
    /// [`EnrolStoreError`]. Nothing has changed then.
    fn enrol(
        &self,
        key: &AccessKey,
        from: IpAddr,
        new: NewCredential,
        now: u64,
    ) -> Result<(UserName, bool), EnrolStoreError>;

    /// Keeps the times, in seconds since 1970, at which credentials were last used.
    ///
    /// # Errors
    /// [`StoreError`].
    fn note_uses(&self, uses: &[(CredentialId, u64)]) -> Result<(), StoreError>;
}

/// The store cannot be read or written. The text names the place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct StoreError(pub String);

/// Why a client was not enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EnrolStoreError {
    /// The key was not accepted, or the credential cannot be added.
    #[error(transparent)]
    Enrol(#[from] EnrolError),
    /// The store cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A store without records, for a server without a state directory.
#[derive(Debug, Default)]
pub struct NoRecords;

impl RecordStore for NoRecords {
    fn changed(&self) -> Result<Option<Arc<Records>>, StoreError> {
        Ok(None)
    }

    fn enrol(
        &self,
        key: &AccessKey,
        from: IpAddr,
        _: NewCredential,
        now: u64,
    ) -> Result<(UserName, bool), EnrolStoreError> {
        let denied = Records::default().check_enrolment(key, from, now).err();
        Err(match denied {
            Some(denied) => EnrolError::from(denied).into(),
            None => StoreError("this server keeps no records".to_owned()).into(),
        })
    }

    fn note_uses(&self, _: &[(CredentialId, u64)]) -> Result<(), StoreError> {
        Ok(())
    }
}
