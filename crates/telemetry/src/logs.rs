//! Logs: what the program says, and where lines of it go.
//!
//! Holds the subscriber of the process ([`crate::init`]), the error log beside it, and what every log file needs: checked
//! settings, rotation, and a thread that writes so that nobody else waits for a disk.
//!
//! Promises: whoever logs never waits for a file, nor for a terminal or a pipe that nobody reads: what cannot be written
//! in time is dropped and counted; files are bounded by [`LogFileSettings`], and no file is removed that does not look like one of ours.
//!
//! Rotation is our own: `tracing-appender` removes every file that begins like the log, one too many at each start, and
//! cannot be tested without a wait for midnight.

mod error;
mod queue;
mod rotation;
mod settings;
mod subscriber;

pub use error::LogStartError;
pub use queue::{HeldLog, LogCounters, LogGuard, LogReopener};
pub use settings::{
    AccessLogSettings, DEFAULT_KEEP, LogFileSettings, LogSettingsError, LogTarget, Rotate,
};
pub use subscriber::{
    DEFAULT_FILTER, FILTER_VARIABLE, Format, InitError, Logging, ParseFormatError, init,
};

pub(crate) use queue::{Lines, start};
