//! Who is told of each request, and what the program says of itself: metrics, access log, traces; log and error log.
//!
//! Holds [`Telemetry`], the observer that both sides tell of their requests, and its parts: [`Metrics`] counts,
//! [`AccessLog`] writes a line, [`Traces`] sends spans. [`init`], which both programs call once, first thing, installs
//! the log, and [`Logging`] adds the error log.
//!
//! Promises: nobody who moves data waits for any of them; what each holds is bounded, and what it loses is counted; an id
//! stands for the same request in all of them. The rooms promise the rest: `logs.rs`, `metrics.rs`, `access_log.rs`,
//! `traces.rs`.
//!
//! Leaves to the caller: settings, and to keep each [`LogGuard`] to the end of `main`.
//!
//! Proof: the tests of each file; `tests/metrics.rs` checks the text that Prometheus reads, `tests/access_log.rs` the
//! lines of the access log, `tests/otlp.rs` the spans.

mod access_log;
mod grpc;
mod logs;
mod metrics;
mod observer;
mod traces;

pub use access_log::AccessLog;
pub use logs::{
    AccessLogSettings, DEFAULT_FILTER, DEFAULT_KEEP, FILTER_VARIABLE, Format, HeldLog, InitError,
    LogCounters, LogFileSettings, LogGuard, LogReopener, LogSettingsError, LogStartError,
    LogTarget, Logging, ParseFormatError, Rotate, init,
};
pub use metrics::{
    CONTENT_TYPE, DEFAULT_KEEP_IDLE, DEFAULT_MAX_LABEL_SETS, Metrics, MetricsSettings,
    MetricsSettingsError, PROCESS_FAMILIES, RequestFamily, request_families,
};
pub use observer::Telemetry;
pub use traces::{StartTracesError, Traces, TracesSettings, TracesSettingsError, TracesStats};
