//! The log of the process, and files of logs.
//!
//! Holds the subscriber of the process ([`crate::init`]), the error log beside it, and the parts of every log file:
//! checked settings, rotation, and a thread that writes.
//!
//! Promises: logging never waits for a file, a terminal or a pipe: lines that cannot be written in time are dropped and
//! counted; files are bounded by [`LogFileSettings`], and only files with a name of the rotation are removed.
//!
//! The rotation is written here because `tracing-appender` removes every file whose name begins like the log, removes one
//! too many at each start, and cannot be tested without waiting for midnight.

mod error;
mod filter;
mod queue;
mod rotation;
mod settings;
mod subscriber;

pub use error::LogStartError;
pub use filter::ParseFilterError;
pub use queue::{HeldLog, LogCounters, LogGuard, LogReopener};
pub use settings::{
    AccessLogSettings, DEFAULT_KEEP, LogFileSettings, LogSettingsError, LogTarget, Rotate,
};
pub use subscriber::{
    DEFAULT_FILTER, FILTER_VARIABLE, Format, InitError, Logging, ParseFormatError, init,
};

pub(crate) use queue::{Lines, start};
