//! The clock.

use std::time::Instant;

/// The time by the runtime's clock, which tests may turn.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
