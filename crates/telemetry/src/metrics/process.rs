//! Samples of the process, the same on both sides.

use std::time::{SystemTime, UNIX_EPOCH};
#[cfg(target_os = "linux")]
use std::{fs, io};

use adit_otlp::TracesStats;
use adit_trace::{Family, Sample};
use rustix::time::{ClockId, clock_gettime};

use crate::logs::LogCounters;

/// All families of this file. The names with `process_` are those of all client libraries of Prometheus.
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
    "Lines that were dropped because the queue was full.",
);
static LOG_LINES_FAILED: Family = Family::counter(
    "adit_telemetry_log_lines_failed_total",
    &["log"],
    "Lines that were lost because they could not be written.",
);
static LABEL_SETS: Family = Family::gauge(
    "adit_telemetry_label_sets",
    &[],
    "Label sets of requests in use; requests beyond the bound are counted as _other.",
);
static SPANS: Family = Family::counter(
    "adit_telemetry_spans_total",
    &["outcome"],
    "Spans that are no longer waiting: exported, dropped before they were sent, or sent and not accepted.",
);
static CPU_SECONDS: Family = Family::counter(
    "process_cpu_seconds_total",
    &[],
    "Processor time of all threads, user and system.",
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
    "Resident memory of the process.",
);
static START_TIME: Family = Family::gauge(
    "process_start_time_seconds",
    &[],
    "When the process started, in seconds since 1970.",
);

/// The samples of the process. Values that the system cannot provide are left out.
pub(super) fn samples(version: &str, started_at: SystemTime) -> Vec<Sample> {
    let mut samples = vec![BUILD_INFO.sample(&[version], 1.0)];
    let started = started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    #[allow(clippy::cast_precision_loss)] // seconds with a fraction
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let kernel = kernel();
    let values = [
        (&CPU_SECONDS, Some(cpu)),
        (&MAX_FDS, kernel.max_fds),
        (&OPEN_FDS, kernel.open_fds),
        (&RESIDENT_BYTES, kernel.resident_bytes),
        (&START_TIME, Some(started.as_secs_f64())),
    ];
    let values = values.into_iter();
    samples.extend(values.filter_map(|(family, value)| Some(family.sample(&[], value?))));
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

#[cfg(target_os = "linux")]
const FILES: &str = "/proc/self/fd";

/// Values of the kernel; `None` where it does not provide them.
#[derive(Default)]
struct Kernel {
    open_fds: Option<f64>,
    max_fds: Option<f64>,
    resident_bytes: Option<f64>,
}

#[cfg(not(target_os = "linux"))]
fn kernel() -> Kernel {
    Kernel::default()
}

#[cfg(target_os = "linux")]
#[allow(clippy::cast_precision_loss)] // counts
fn kernel() -> Kernel {
    use rustix::process::{Resource, getrlimit};

    // The system reports no value when there is no limit.
    let max_fds = getrlimit(Resource::Nofile).current;
    Kernel {
        open_fds: open_fds().ok().map(|count| count as f64),
        max_fds: Some(max_fds.map_or(f64::INFINITY, |limit| limit as f64)),
        resident_bytes: resident_bytes().map(|bytes| bytes as f64),
    }
}

/// The number of open files. Since Linux 6.2 it is the size of the directory, which was 0 before.
#[cfg(target_os = "linux")]
fn open_fds() -> io::Result<u64> {
    match fs::metadata(FILES)?.len() {
        0 => listed_fds(),
        count => Ok(count),
    }
}

/// The number of open files by listing the directory, without the descriptor that reads it.
#[cfg(target_os = "linux")]
fn listed_fds() -> io::Result<u64> {
    let files = fs::read_dir(FILES)?.count();
    Ok(files.saturating_sub(1) as u64)
}

#[cfg(target_os = "linux")]
fn resident_bytes() -> Option<u64> {
    let pages = resident_pages(&fs::read_to_string("/proc/self/statm").ok()?)?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// The second number of `/proc/self/statm` (proc_pid_statm(5)).
#[cfg(target_os = "linux")]
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_system_provides_all_values() {
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
    #[test]
    fn resident_pages_are_the_second_number() {
        assert_eq!(resident_pages("2861 1430 1022 7 0 503 0\n"), Some(1430));
        for malformed in ["", "2861", "2861 -1 0", "2861 18446744073709551616"] {
            assert_eq!(resident_pages(malformed), None, "{malformed:?}");
        }
    }

    /// The counts may differ, because other tests of this process open and close files.
    #[test]
    fn both_counts_of_descriptors_agree() {
        let files: Vec<_> = (0..100)
            .map(|_| fs::File::open("/dev/null").unwrap())
            .collect();
        for count in [open_fds().unwrap(), listed_fds().unwrap()] {
            assert!((100..200).contains(&count), "{count}");
        }
        drop(files);
    }
}
