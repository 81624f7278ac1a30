//! What Prometheus reads: requests counted by tunnel and user, and what a side tells of itself.
//!
//! Holds [`Metrics`], which counts each [`Record`] and writes the text format 0.0.4. The names stand in
//! `docs/metrics.md`, and in [`request_families`] and [`PROCESS_FAMILIES`] for the test that compares them with it.
//!
//! Promises: label sets are bounded ([`MetricsSettings`]), and so is what they hold; a value from outside is cut off or
//! escaped, never believed; nothing is kept for a scrape that does not come.
//!
//! Cost: a request costs one look-up by a short hash, under a lock that only a new label set takes alone, and some ten
//! additions. A label set takes about 1 KiB, and up to 8 KiB of the text.
//!
//! The counters are our own and not those of the `metrics` facade: its exporter keeps every observed value of a histogram
//! until somebody scrapes, and cannot bound label sets.

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

use adit_trace::{Edge, Record, Sample};
use parking_lot::Mutex;

pub use exposition::CONTENT_TYPE;
pub use names::{RequestFamily, request_families};
pub use process::PROCESS_FAMILIES;

use crate::{logs::LogCounters, traces::TracesStats};
use exposition::Exposition;
use label_sets::LabelSets;
use series::Key;

/// Label sets of requests, unless the settings say another number: more tunnels than one server usually has, and at most
/// some 16 MiB of text.
pub const DEFAULT_MAX_LABEL_SETS: usize = 2_000;

/// A label set without a request for so long makes room for a new one, unless the settings say otherwise.
pub const DEFAULT_KEEP_IDLE: Duration = Duration::from_secs(60 * 60);

/// No server needs more, and each costs memory.
const MOST_LABEL_SETS: usize = 1_000_000;

/// How much may be counted apart. Checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsSettings {
    max_label_sets: usize,
    keep_idle: Duration,
}

/// These are no settings for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsSettingsError {
    /// None at all, or more than memory is there for.
    #[error("{0} label sets are not possible; use 1 to {MOST_LABEL_SETS}")]
    LabelSets(usize),
}

impl MetricsSettings {
    /// `max_label_sets` are counted apart: one for each edge, protocol, opener, tunnel, group and user that had a request.
    /// What comes after them is counted together, as tunnel, group and user `_other`. One that had no request for `keep_idle` makes
    /// room when it is needed.
    ///
    /// # Errors
    /// For no label sets, and for more than 1,000,000.
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
    /// Nothing counted yet. `version` is that of the program.
    pub fn new(settings: MetricsSettings, version: &'static str) -> Self {
        Self {
            started_at: SystemTime::now(),
            version,
            requests: LabelSets::new(settings.max_label_sets, settings.keep_idle, Instant::now()),
            logs: Mutex::default(),
        }
    }

    /// What this log loses is told from now on.
    pub fn watch(&self, log: LogCounters) {
        self.logs.lock().push(log);
    }

    /// Counts a request that is over.
    pub fn on_end(&self, record: &Record<'_>) {
        let key = Key::of(record);
        self.requests
            .with(key, record.ended, |series| series.count(record));
    }

    /// Everything, with what the side tells of itself, as text. Of two samples with one name and the same labels the
    /// second counts.
    ///
    /// Cost: grows with the label sets. Not for a thread that moves data.
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
    /// What has become of spans, for a side that sends some.
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
