//! Why a log cannot be written.

use std::path::PathBuf;

/// Why a log cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogStartError {
    /// The file cannot be opened.
    #[error("cannot write the {log} log to {}: {error}", path.display())]
    Open {
        /// `access`, `error` or `stderr`.
        log: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The thread that writes cannot be started.
    #[error("cannot start the thread of the {log} log: {error}")]
    Thread {
        /// `access`, `error` or `stderr`.
        log: &'static str,
        /// The error of the system.
        error: std::io::Error,
    },
    /// The log has been started already.
    #[error("the {log} log has been started already")]
    Started {
        /// `access`, `error` or `stderr`.
        log: &'static str,
    },
}
