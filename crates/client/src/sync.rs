//! Locks and flags of this crate.

pub(crate) use adit_link::signalled;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex whose content a panic cannot leave inconsistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
