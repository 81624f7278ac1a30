//! The observer that both sides tell of their requests.

use std::sync::Arc;

use adit_trace::{Observer, Record, Sample, Timeline};

use crate::{access_log::AccessLog, metrics::Metrics, traces::Traces};

/// Whoever is told of requests: any of these, or none.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Decides what is traced, and sends spans.
    pub traces: Option<Traces>,
    /// Counts.
    pub metrics: Option<Arc<Metrics>>,
    /// Writes a line.
    pub access_log: Option<AccessLog>,
}

impl Telemetry {
    /// What Prometheus reads, with these samples of the side; nothing when nothing is counted.
    pub fn render(&self, samples: &[Sample]) -> Option<String> {
        let metrics = self.metrics.as_ref()?;
        let Some(traces) = &self.traces else {
            return Some(metrics.render(samples));
        };
        let mut samples = samples.to_vec();
        samples.extend(Metrics::span_samples(traces.stats()));
        Some(metrics.render(&samples))
    }
}

impl Observer for Telemetry {
    fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        self.traces.as_ref()?.begin(traceparent)
    }

    fn random(&self) -> u64 {
        rand::random()
    }

    fn is_enabled(&self) -> bool {
        self.traces.is_some() || self.metrics.is_some() || self.access_log.is_some()
    }

    fn needs_details(&self) -> bool {
        self.access_log.is_some()
    }

    fn on_end(&self, record: &Record<'_>) {
        if let Some(metrics) = &self.metrics {
            metrics.on_end(record);
        }
        if let Some(access_log) = &self.access_log {
            access_log.on_end(record);
        }
        if let Some(traces) = &self.traces {
            traces.on_end(record);
        }
    }
}
