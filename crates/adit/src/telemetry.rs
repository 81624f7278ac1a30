//! The metrics, logs and traces of a process, from its settings.

use std::{sync::Arc, thread, time::Duration};

use adit_admin::MetricsPage;
use adit_otlp::Traces;
use adit_telemetry::{AccessLog, CONTENT_TYPE, LogGuard, LogReopener, Logging, Metrics, Telemetry};
use adit_trace::{Observer, Sample};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{report::Failed, signals::Signals};

/// Longest wait at the end of a process for a collector that does not respond.
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);

/// Metrics, logs and traces of a process, until it ends.
pub struct ObservabilityGuard {
    telemetry: Arc<Telemetry>,
    /// The time limit for sending the waiting spans at the end.
    patience: Duration,
    /// The guards of the logs: the files are complete when these are dropped.
    logs: Vec<LogGuard>,
}

impl ObservabilityGuard {
    /// Opens the files and starts the threads.
    ///
    /// # Errors
    /// A file cannot be written, or a thread cannot be started.
    pub fn start(settings: adit_config::Telemetry, logging: &Logging) -> Result<Self, Failed> {
        let mut telemetry = Telemetry::default();
        let mut logs = Vec::new();
        if let Some(settings) = settings.error_log {
            logs.push(logging.start_error_log(settings).map_err(Failed::config)?);
        }
        if let Some(settings) = settings.access_log {
            let (access_log, guard) = AccessLog::start(&settings).map_err(Failed::config)?;
            telemetry.access_log = Some(access_log);
            logs.push(guard);
        }
        let mut patience = Duration::ZERO;
        if let Some(settings) = settings.tracing {
            patience = settings.timeout;
            telemetry.traces = Some(Traces::start(settings).map_err(Failed::config)?);
        }
        if let Some(settings) = settings.metrics {
            let metrics = Metrics::new(settings, env!("CARGO_PKG_VERSION"));
            metrics.watch(logging.counters());
            logs.iter().for_each(|log| metrics.watch(log.counters()));
            telemetry.metrics = Some(Arc::new(metrics));
        }
        Ok(Self {
            telemetry: Arc::new(telemetry),
            patience: patience.min(LONGEST_PATIENCE),
            logs,
        })
    }

    /// The observer of the requests of a side.
    pub fn observer(&self) -> Arc<dyn Observer> {
        self.telemetry.clone()
    }

    /// The telemetry that the admin port shows.
    pub const fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// Handles for the signal that reopens the log files.
    pub fn reopeners(&self) -> Vec<LogReopener> {
        self.logs.iter().map(LogGuard::reopener).collect()
    }

    /// Sends the waiting spans, for as long as one export may take and at most 2 s, then writes the waiting log lines,
    /// for at most 2 s; another signal that ends the process stops both. The rest is lost.
    pub async fn end(self, signals: &mut Signals) {
        let (done, over) = oneshot::channel();
        // A detached thread, because a runtime would wait for its blocking tasks at its end.
        let sending = thread::Builder::new().name("telemetry end".to_owned());
        let sending = sending.spawn(move || {
            self.send();
            // The receiver is dropped when another signal came first.
            let _ = done.send(());
        });
        if let Err(error) = sending {
            tracing::warn!(%error, "waiting logs and traces are lost");
            return;
        }
        tokio::select! {
            _ = over => {}
            () = signals.end() => {}
        }
    }

    fn send(self) {
        if let Some(traces) = &self.telemetry.traces {
            let stats = traces.shutdown(self.patience);
            if stats.dropped + stats.failed > 0 {
                tracing::warn!(
                    exported = stats.exported,
                    dropped = stats.dropped,
                    failed = stats.failed,
                    "some spans did not reach the collector"
                );
            }
        }
        // The logs are closed last, since they contain the result of sending the spans, and all at once, so that none
        // waits for another.
        self.logs.iter().for_each(LogGuard::close);
        drop(self.logs);
    }
}

/// The counters of traces and logs, for status.
pub fn status(telemetry: &Telemetry) -> Value {
    let traces = telemetry.traces.as_ref().map(|traces| {
        let stats = traces.stats();
        json!({ "exported": stats.exported, "dropped": stats.dropped, "failed": stats.failed })
    });
    let access_log = telemetry.access_log.as_ref().map(|log| {
        let counters = log.counters();
        json!({ "written": counters.written(), "dropped": counters.dropped(), "failed": counters.failed() })
    });
    json!({ "traces": traces, "access_log": access_log, "metrics": telemetry.metrics.is_some() })
}

/// The metrics of a side, with its samples; `None` when they are turned off.
pub fn metrics_page(telemetry: &Telemetry, samples: &[Sample]) -> Option<MetricsPage> {
    let text = telemetry.render(samples)?;
    Some(MetricsPage {
        content_type: CONTENT_TYPE,
        text,
    })
}
