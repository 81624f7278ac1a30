//! The shared-state primitives, std's or loom's.
//!
//! `Arc` is std's in both: loom's cannot be a method receiver, and loom need not check the counts of the handles here.

pub(crate) use std::sync::{Arc, PoisonError};

#[cfg(adit_loom)]
pub(crate) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
#[cfg(not(adit_loom))]
pub(crate) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicI64, AtomicU64, Ordering},
};
