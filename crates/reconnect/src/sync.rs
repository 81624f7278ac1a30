//! The primitives of the status cell: those of the standard library, or loom's under `cfg(adit_loom)`.

#[cfg(adit_loom)]
pub(crate) use loom::sync::{Arc, Mutex, MutexGuard};
#[cfg(not(adit_loom))]
pub(crate) use std::sync::{Arc, Mutex, MutexGuard};
