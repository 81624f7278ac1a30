//! The clock of the runtime.

use std::time::Instant;

/// The time by the runtime's clock, which tests can control.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
