//! The runtime of the main thread.

use crate::report::Failed;

/// The runtime of the main thread: for signals and the admin port, not for data.
///
/// # Errors
/// The system cannot create one.
pub fn background() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failed::other(format!("cannot start a runtime: {error}")))
}
