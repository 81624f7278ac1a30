//! What the task and its handle share, and what leaves the task.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::wanted::Wanted;
use crate::{
    certificate::Certificate,
    name::CertName,
    status::{NameStatus, Stats},
};

/// A change of the certificates to serve.
#[derive(Debug, Clone)]
pub enum Update {
    /// The name has this certificate from now on. It may have expired: serve it nevertheless until there is a new one.
    Available {
        /// The name.
        name: CertName,
        /// The certificate with its key.
        certificate: Certificate,
    },
    /// The name is not wanted any more, or its certificate was stored and has expired before it was wanted.
    Withdrawn {
        /// The name.
        name: CertName,
    },
}

/// Receives each [`Update`].
pub(super) type Publish = Box<dyn Fn(Update) + Send + Sync>;

/// What the task and its handle share.
#[derive(Default)]
pub(super) struct Shared {
    /// The names of the last [`Manager::want`](crate::Manager::want) that the task has not seen.
    pub(super) wanted: Mutex<Option<BTreeMap<CertName, Wanted>>>,
    pub(super) changed: Notify,
    pub(super) status: Mutex<BTreeMap<CertName, NameStatus>>,
    pub(super) stats: Mutex<Stats>,
}
