//! The observer of both sides.

use std::sync::Arc;

use adit_otlp::Traces;
use adit_trace::{Observer, Record, Sample, Timeline};

use crate::{access_log::AccessLog, metrics::Metrics};

/// The receivers of records: any of them may be absent.
#[derive(Debug, Default)]
pub struct Telemetry {
    /// Decides which requests are traced, and exports their spans.
    pub traces: Option<Traces>,
    /// Counts requests.
    pub metrics: Option<Arc<Metrics>>,
    /// Writes a line for each request.
    pub access_log: Option<AccessLog>,
}

impl Telemetry {
    /// The page for Prometheus, with these samples of the side; `None` when metrics are off.
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
