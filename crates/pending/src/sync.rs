//! The lock of the table: std's, or loom's under `cfg(adit_loom)`.

#[cfg(adit_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};
#[cfg(not(adit_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard};
