//! What is kept over a restart: accounts, certificates with their keys, and the orders of the past.

mod files;

use secrecy::SecretString;
use thiserror::Error;

use crate::{name::CertName, schedule::Record};

pub use files::FileStore;

/// A certificate as it is stored: the key and the chain in one text, so that they are replaced together.
pub type StoredCertificate = SecretString;

/// A place for accounts, certificates and orders. `ca` is the directory URL of a CA: nothing is shared between two CAs,
/// so that the certificates of a staging CA are never used for those of production.
///
/// The functions may block. They are called on threads for that purpose, by one task for each name.
pub trait Store: Send + Sync + 'static {
    /// The account at a CA.
    ///
    /// # Errors
    /// [`StoreError`]: what is stored cannot be read.
    fn account(&self, ca: &str) -> Result<Option<SecretString>, StoreError>;

    /// Replaces the account at a CA.
    ///
    /// # Errors
    /// [`StoreError`]: what was stored is unchanged.
    fn store_account(&self, ca: &str, account: &SecretString) -> Result<(), StoreError>;

    /// The certificate of a name.
    ///
    /// # Errors
    /// [`StoreError`]: what is stored cannot be read.
    fn certificate(
        &self,
        ca: &str,
        name: &CertName,
    ) -> Result<Option<StoredCertificate>, StoreError>;

    /// Replaces the certificate of a name.
    ///
    /// # Errors
    /// [`StoreError`]: what was stored is unchanged.
    fn store_certificate(
        &self,
        ca: &str,
        name: &CertName,
        certificate: &StoredCertificate,
    ) -> Result<(), StoreError>;

    /// The orders of a name.
    ///
    /// # Errors
    /// [`StoreError`]: what is stored cannot be read.
    fn record(&self, ca: &str, name: &CertName) -> Result<Option<StoredRecord>, StoreError>;

    /// Replaces the orders of a name.
    ///
    /// # Errors
    /// [`StoreError`]: what was stored is unchanged.
    fn store_record(
        &self,
        ca: &str,
        name: &CertName,
        record: &StoredRecord,
    ) -> Result<(), StoreError>;

    /// The names of which a certificate or orders are stored, in any order; no more than `most` of them.
    ///
    /// # Errors
    /// [`StoreError`]: what is stored cannot be listed.
    fn names(&self, ca: &str, most: usize) -> Result<Vec<CertName>, StoreError>;

    /// Removes the certificate and the orders of a name.
    ///
    /// # Errors
    /// [`StoreError`]: some of it may be left.
    fn remove(&self, ca: &str, name: &CertName) -> Result<(), StoreError>;
}

/// The orders of a name, when its certificate was obtained, and how the last order failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct StoredRecord {
    /// The schedule's part.
    #[serde(flatten)]
    pub record: Record,
    /// Milliseconds since 1970 at which the certificate was obtained.
    pub obtained: Option<u64>,
    /// The text of the last failure, for the status.
    pub last_error: Option<String>,
    /// Whose name it was when it was ordered.
    pub owner: String,
    /// Milliseconds since 1970 at which the name was ordered for the first time within the period of
    /// [`Policy::owner_names`](crate::schedule::Policy::owner_names).
    pub first_order: Option<u64>,
}

/// Why something cannot be stored or read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}: {problem}")]
pub struct StoreError {
    /// The file.
    pub place: String,
    /// What is wrong with it. No text has a part of a key.
    pub problem: String,
}
