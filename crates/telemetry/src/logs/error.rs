//! Why a log cannot be written.

use std::path::PathBuf;

/// A log cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// The file.
    #[error("cannot write the {log} log to {}: {error}", path.display())]
    Open {
        /// `access`, `error` or `stderr`.
        log: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The thread that writes.
    #[error("cannot start the thread of the {log} log: {error}")]
    Thread {
        /// `access`, `error` or `stderr`.
        log: &'static str,
        /// Why.
        error: std::io::Error,
    },
    /// It has been started already.
    #[error("the {log} log has been started already")]
    Started {
        /// `access`, `error` or `stderr`.
        log: &'static str,
    },
}
