//! The shared-state primitives, from std or from loom.

#[cfg(not(adit_loom))]
pub(crate) use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

#[cfg(adit_loom)]
pub(crate) use loom::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Loom lacks this type: it is std's, with the orderings converted from loom's.
#[cfg(adit_loom)]
#[derive(Debug)]
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    making: loom::sync::Mutex<()>,
    made: loom::sync::atomic::AtomicBool,
}

#[cfg(adit_loom)]
impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self {
            value: std::sync::OnceLock::new(),
            making: loom::sync::Mutex::new(()),
            made: loom::sync::atomic::AtomicBool::new(false),
        }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        let made = self.made.load(Ordering::Acquire);
        self.value.get().filter(|_| made)
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        let _making = self.making.lock();
        let value = self.value.get_or_init(make);
        self.made.store(true, Ordering::Release);
        value
    }
}
