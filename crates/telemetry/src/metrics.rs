//! Metrics for Prometheus: requests by tunnel and user, and the samples of a side.
//!
//! Holds [`Metrics`], which counts each [`Record`] and writes the text format 0.0.4. `docs/metrics.md`
//! lists the names, and a test compares it with [`request_families`] and [`PROCESS_FAMILIES`].
//!
//! Promises: the number of label sets is bounded ([`MetricsSettings`]), and so is the size of each; values of peers are
//! cut and escaped; no memory grows until the next scrape.
//!
//! Cost: a request costs one look-up by a short hash, under a lock that only a new label set takes alone, and some ten
//! additions. A label set takes about 1 KiB, and up to 8 KiB of the text.
//!
//! The counters are not those of the `metrics` facade, whose exporter keeps every observed value of a histogram until the
//! next scrape and cannot bound label sets.

mod exposition;
mod histogram;
mod label_sets;
mod labels;
mod names;
mod process;
mod series;

use std::{
    fmt,
    time::{Duration, Instant, SystemTime},
};

use adit_otlp::TracesStats;
use adit_trace::{Edge, Record, Sample};
use parking_lot::Mutex;

pub use exposition::CONTENT_TYPE;
pub use names::{RequestFamily, request_families};
pub use process::PROCESS_FAMILIES;

use crate::logs::LogCounters;
use exposition::Exposition;
use label_sets::LabelSets;
use series::Key;

/// Default number of label sets of requests: more tunnels than one server usually has, and at most some 16 MiB of text.
pub const DEFAULT_MAX_LABEL_SETS: usize = 2_000;

/// Default time without a request after which a label set can be replaced by a new one.
pub const DEFAULT_KEEP_IDLE: Duration = Duration::from_secs(60 * 60);

/// Upper bound, since each label set costs memory.
const MOST_LABEL_SETS: usize = 1_000_000;

/// Bounds of the label sets. Checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsSettings {
    max_label_sets: usize,
    keep_idle: Duration,
}

/// Invalid settings of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsSettingsError {
    /// The number of label sets is 0 or too large.
    #[error("invalid number of label sets {0}, expected 1 to {MOST_LABEL_SETS}")]
    LabelSets(usize),
}

impl MetricsSettings {
    /// At most `max_label_sets` exist: one for each edge, protocol, opener, tunnel, group and user with a request. Requests
    /// of further ones are counted together, as tunnel, group and user `_other`. A label set without a request for
    /// `keep_idle` is replaced when a new one needs its place.
    ///
    /// # Errors
    /// 0 label sets, or more than 1,000,000.
    pub const fn try_new(
        max_label_sets: usize,
        keep_idle: Duration,
    ) -> Result<Self, MetricsSettingsError> {
        if max_label_sets == 0 || max_label_sets > MOST_LABEL_SETS {
            return Err(MetricsSettingsError::LabelSets(max_label_sets));
        }
        Ok(Self {
            max_label_sets,
            keep_idle,
        })
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            max_label_sets: DEFAULT_MAX_LABEL_SETS,
            keep_idle: DEFAULT_KEEP_IDLE,
        }
    }
}

/// The counters of one process.
pub struct Metrics {
    started_at: SystemTime,
    version: &'static str,
    requests: LabelSets,
    logs: Mutex<Vec<LogCounters>>,
}

impl Metrics {
    /// Counters at zero. `version` is the version of the program.
    pub fn new(settings: MetricsSettings, version: &'static str) -> Self {
        Self {
            started_at: SystemTime::now(),
            version,
            requests: LabelSets::new(settings.max_label_sets, settings.keep_idle, Instant::now()),
            logs: Mutex::default(),
        }
    }

    /// Adds the losses of a log to the page.
    pub fn watch(&self, log: LogCounters) {
        self.logs.lock().push(log);
    }

    /// Counts a finished request.
    pub fn on_end(&self, record: &Record<'_>) {
        let key = Key::of(record);
        self.requests
            .with(key, record.ended, |series| series.count(record));
    }

    /// The page for Prometheus, with these samples of the side. Of two samples with the same name and labels the second
    /// counts.
    ///
    /// Cost: grows with the number of label sets. Not for data threads.
    pub fn render(&self, samples: &[Sample]) -> String {
        let mut text = Exposition::default();
        let series = self.requests.sorted();
        for edge in [Edge::Ingress, Edge::Egress] {
            text.requests(edge, &series);
        }
        let mut all = process::samples(self.version, self.started_at);
        all.extend(self.logs.lock().iter().flat_map(process::log_samples));
        all.push(process::label_sets(self.requests.len()));
        all.extend_from_slice(samples);
        text.samples(&all);
        text.into_string()
    }
}

impl Metrics {
    /// Samples of the exported spans.
    pub(crate) fn span_samples(stats: TracesStats) -> [Sample; 3] {
        process::span_samples(stats)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("label_sets", &self.requests.len())
            .finish_non_exhaustive()
    }
}
