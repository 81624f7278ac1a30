//! A record of a validation, and its change.

use thiserror::Error;

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its name, such as `_acme-challenge.example.com`.
    pub name: String,
    /// Its value: 43 characters.
    pub value: String,
}

/// Whether a record is added or removed. Other records of the same name stay: a wildcard name and its base have two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The record is added.
    Add,
    /// The record is removed.
    Remove,
}

/// Why a record could not be added, removed or found. The text names the program or the name server and what to change.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct DnsError(pub(super) String);
