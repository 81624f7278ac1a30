//! What the process says of itself, whichever side it is.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use adit_trace::{Family, Sample};
use rustix::time::{ClockId, clock_gettime};

use crate::{logs::LogCounters, traces::TracesStats};

/// All families of this file. Those that begin with `process_` are what every client library of Prometheus calls them.
pub const PROCESS_FAMILIES: [&Family; 10] = [
    &BUILD_INFO,
    &LOG_LINES_DROPPED,
    &LOG_LINES_FAILED,
    &LABEL_SETS,
    &SPANS,
    &CPU_SECONDS,
    &MAX_FDS,
    &OPEN_FDS,
    &RESIDENT_BYTES,
    &START_TIME,
];

static BUILD_INFO: Family = Family::gauge(
    "adit_build_info",
    &["version"],
    "Always 1; the version of the program is a label.",
);
static LOG_LINES_DROPPED: Family = Family::counter(
    "adit_telemetry_log_lines_dropped_total",
    &["log"],
    "Lines that were dropped because what waits to be written has a bound.",
);
static LOG_LINES_FAILED: Family = Family::counter(
    "adit_telemetry_log_lines_failed_total",
    &["log"],
    "Lines that were lost because the system did not take them.",
);
static LABEL_SETS: Family = Family::gauge(
    "adit_telemetry_label_sets",
    &[],
    "Label sets that requests are counted under; over the bound they are counted as _other.",
);
static SPANS: Family = Family::counter(
    "adit_telemetry_spans_total",
    &["outcome"],
    "Spans that are no longer waiting: exported, dropped before they were sent, or sent and not accepted.",
);
static CPU_SECONDS: Family = Family::counter(
    "process_cpu_seconds_total",
    &[],
    "Processor time, of all threads, in the system and outside.",
);
static MAX_FDS: Family = Family::gauge(
    "process_max_fds",
    &[],
    "File descriptors that the process may have open.",
);
static OPEN_FDS: Family = Family::gauge("process_open_fds", &[], "File descriptors that are open.");
static RESIDENT_BYTES: Family = Family::gauge(
    "process_resident_memory_bytes",
    &[],
    "Memory of the process that is resident.",
);
static START_TIME: Family = Family::gauge(
    "process_start_time_seconds",
    &[],
    "When the process started, in seconds since 1970.",
);

/// What the system cannot tell is left out.
pub(super) fn samples(version: &str, started_at: SystemTime) -> Vec<Sample> {
    let mut samples = vec![BUILD_INFO.sample(&[version], 1.0)];
    let started = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    #[allow(clippy::cast_precision_loss)] // seconds with a fraction
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let told = [
        (&CPU_SECONDS, Some(cpu)),
        (&MAX_FDS, max_fds()),
        (&OPEN_FDS, open_fds()),
        (&RESIDENT_BYTES, resident_bytes()),
        (&START_TIME, Some(started.as_secs_f64())),
    ];
    let told = told.into_iter();
    samples.extend(told.filter_map(|(family, value)| Some(family.sample(&[], value?))));
    samples
}

#[allow(clippy::cast_precision_loss)] // counts
pub(super) fn log_samples(log: &LogCounters) -> [Sample; 2] {
    let name = [log.name()];
    [
        LOG_LINES_DROPPED.sample(&name, log.dropped() as f64),
        LOG_LINES_FAILED.sample(&name, log.failed() as f64),
    ]
}

#[allow(clippy::cast_precision_loss)] // counts
pub(super) fn span_samples(stats: TracesStats) -> [Sample; 3] {
    [
        SPANS.sample(&["exported"], stats.exported as f64),
        SPANS.sample(&["dropped"], stats.dropped as f64),
        SPANS.sample(&["failed"], stats.failed as f64),
    ]
}

#[allow(clippy::cast_precision_loss)] // a count
pub(super) fn label_sets(count: usize) -> Sample {
    LABEL_SETS.sample(&[], count as f64)
}

#[allow(clippy::cast_precision_loss)] // a count
fn open_fds() -> Option<f64> {
    // One of them is the directory itself.
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(count.saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        number => number.parse().ok(),
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_tells_everything() {
        let samples = samples("1.2.3", SystemTime::now());
        let value = |name: &str| {
            let mut samples = samples.iter();
            samples
                .find(|sample| sample.family.name == name)
                .unwrap()
                .value
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_open_fds") >= 1.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert_eq!(samples[0].values, ["1.2.3"]);
    }
}
