//! Spans that a collector rejects from a batch that it accepts otherwise.
//!
//! The exporter of `opentelemetry-otlp` reports them only as an event of its own log. The exporting thread therefore
//! has this subscriber, which keeps that event, drops the exporter's lines about failures (there is one for each try;
//! `health.rs` decides which are logged), and passes all other events on.

use std::{fmt, mem, sync::Arc};

use parking_lot::Mutex;
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span,
    subscriber::{Interest, NoSubscriber},
};

/// The number of rejected spans, and the reason.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rejection {
    pub(super) spans: i64,
    pub(super) reason: String,
}

/// The rejections since they were last taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Rejections(Arc<Mutex<Rejection>>);

impl Rejections {
    pub(super) fn take(&self) -> Rejection {
        mem::take(&mut *self.0.lock())
    }
}

/// The log of the exporting thread.
pub(super) struct ExporterLog {
    log: Dispatch,
    rejections: Rejections,
}

impl ExporterLog {
    /// `log` receives all other events.
    pub(super) fn new(log: Dispatch, rejections: Rejections) -> Self {
        Self { log, rejections }
    }

    fn has_log(&self) -> bool {
        !self.log.is::<NoSubscriber>()
    }
}

/// The handling of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    Keep,
    Drop,
    PassOn,
}

fn route(metadata: &Metadata<'_>) -> Route {
    match (metadata.target(), metadata.name()) {
        ("opentelemetry-otlp", name) if name.ends_with(".PartialSuccess") => Route::Keep,
        ("opentelemetry-otlp", name) if name.starts_with("Export.Failed.") => Route::Drop,
        _ => Route::PassOn,
    }
}

impl Visit for Rejection {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "rejected_spans" {
            self.spans = value;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "error_message" {
            value.clone_into(&mut self.reason);
        }
    }

    fn record_debug(&mut self, _field: &Field, _value: &dyn fmt::Debug) {}
}

impl Subscriber for ExporterLog {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match route(metadata) {
            Route::Keep => Interest::always(),
            Route::Drop => Interest::never(),
            Route::PassOn if self.has_log() => self.log.register_callsite(metadata),
            Route::PassOn => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match route(metadata) {
            Route::Keep => true,
            Route::Drop => false,
            Route::PassOn => self.has_log() && self.log.enabled(metadata),
        }
    }

    /// The level of the process is the highest of all subscribers: this one needs one warning only, and must not enable
    /// events in other threads that no subscriber reads.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, span: &span::Attributes<'_>) -> span::Id {
        self.log.new_span(span)
    }

    fn record(&self, span: &span::Id, values: &span::Record<'_>) {
        self.log.record(span, values);
    }

    fn record_follows_from(&self, span: &span::Id, follows: &span::Id) {
        self.log.record_follows_from(span, follows);
    }

    fn event(&self, event: &Event<'_>) {
        match route(event.metadata()) {
            Route::Keep => {
                let mut rejection = Rejection::default();
                event.record(&mut rejection);
                *self.rejections.0.lock() = rejection;
            }
            Route::Drop => {}
            Route::PassOn => self.log.event(event),
        }
    }

    fn enter(&self, span: &span::Id) {
        self.log.enter(span);
    }

    fn exit(&self, span: &span::Id) {
        self.log.exit(span);
    }

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.log.clone_span(id)
    }

    fn try_close(&self, id: span::Id) -> bool {
        self.log.try_close(id)
    }
}

#[cfg(test)]
mod tests {
    use tracing::{dispatcher, warn};

    use super::*;

    #[test]
    fn a_partial_success_is_kept_until_taken() {
        let rejections = Rejections::default();
        let log = ExporterLog::new(Dispatch::none(), rejections.clone());
        dispatcher::with_default(&Dispatch::new(log), || {
            warn!(
                name: "TonicTracesClient.PartialSuccess",
                target: "opentelemetry-otlp",
                name = "TonicTracesClient.PartialSuccess",
                rejected_spans = 3_i64,
                error_message = "too old"
            );
            warn!(target: "other", rejected_spans = 7_i64);
        });
        let expected = Rejection {
            spans: 3,
            reason: "too old".to_owned(),
        };
        assert_eq!(rejections.take(), expected);
        assert_eq!(rejections.take(), Rejection::default());
    }
}
