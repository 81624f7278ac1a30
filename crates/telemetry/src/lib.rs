//! Metrics and access log of the requests of a process; its log and error log.
//!
//! Holds [`Telemetry`], the observer of both sides, and its parts: [`Metrics`] counts, [`AccessLog`] writes a line,
//! and [`adit_otlp::Traces`] exports spans. [`init`], which both programs call first, installs the log, and [`Logging`] adds the error
//! log.
//!
//! Promises: data threads never wait for any of them; the memory of each is bounded, and its losses are counted; a request
//! has the same id in all of them. Further promises are in `logs.rs`, `metrics.rs` and `access_log.rs`.
//!
//! Leaves to the caller: settings, and keeping each [`LogGuard`] until the end of `main`.
//!
//! Proof: the tests of each file; `tests/metrics.rs` checks the text for Prometheus, `tests/access_log.rs` the lines of
//! the access log.

mod access_log;
mod logs;
mod metrics;
mod observer;

pub use access_log::AccessLog;
pub use logs::{
    AccessLogSettings, DEFAULT_FILTER, DEFAULT_KEEP, FILTER_VARIABLE, Format, HeldLog, InitError,
    LogCounters, LogFileSettings, LogGuard, LogReopener, LogSettingsError, LogStartError,
    LogTarget, Logging, ParseFilterError, ParseFormatError, Rotate, init,
};
pub use metrics::{
    CONTENT_TYPE, DEFAULT_KEEP_IDLE, DEFAULT_MAX_LABEL_SETS, Metrics, MetricsSettings,
    MetricsSettingsError, PROCESS_FAMILIES, RequestFamily, request_families,
};
pub use observer::Telemetry;
