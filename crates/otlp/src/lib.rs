//! Exports the spans of traced requests to a collector.
//!
//! A finished request becomes one span for this hop and one for each of its phases. The data thread copies the record
//! into a bounded queue (`finished.rs`). One thread of its own, with a runtime of its own, builds the spans
//! (`spans.rs`), gathers batches (`exporter.rs`) and sends them as OTLP over gRPC or HTTP, by the exporter
//! of the `opentelemetry` crates (`collector.rs`).
//!
//! Promises:
//! - [`Traces::begin`] and [`Traces::on_end`] never wait, need no runtime and take no lock that the exporting thread
//!   holds while it sends;
//! - memory is bounded: a full queue drops the spans of the next request, and counts them;
//! - if the collector is unreachable, spans are lost; the log has one line when that begins, and one when it ends.
//!
//! Cost: a request that is not traced costs [`Traces::begin`], which is one random number. A traced one costs two
//! allocations and a copy of its texts on the data thread; `docs/decisions/0011-traces-from-records.md` has the figures,
//! with those of the exporting thread.
//!
//! Proof: `tests/otlp.rs` receives the spans as a collector does, over gRPC and HTTP, and refuses, hangs and returns.

mod attributes;
mod clock;
mod collector;
mod ended;
mod environment;
mod exporter;
mod finished;
mod grpc;
mod health;
mod queue;
mod refusal;
mod rejections;
mod resource;
mod settings;
mod spans;
mod stats;

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_trace::{Record, Sampler, Timeline, TraceContext, TraceId};
use tokio::sync::watch;

use self::{
    clock::Clock, ended::Ended, exporter::Exporter, finished::Finished, queue::Sender,
    stats::Counters,
};
pub use self::{
    environment::OtelEnvironment,
    settings::{
        ParseTracesProtocolError, TracesHeaders, TracesProtocol, TracesSettings,
        TracesSettingsError, TracesTls,
    },
    stats::TracesStats,
};

/// Why the export of spans cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartTracesError {
    /// A setting is invalid.
    #[error(transparent)]
    Settings(#[from] TracesSettingsError),
    /// The system has no thread, or no file descriptor for a runtime.
    #[error(
        "cannot start the thread that sends traces: {0}; raise the limits of threads and open files, or turn tracing off"
    )]
    Thread(#[from] io::Error),
}

/// Decides which requests are traced, and exports their spans. Dropping it exports the queue in the background.
pub struct Traces {
    sampler: Sampler,
    clock: Clock,
    queue: Sender,
    counters: Arc<Counters>,
    /// The deadline of the thread; `None` while it runs.
    closing: watch::Sender<Option<Instant>>,
    ended: Arc<Ended>,
}

/// The time of a shutdown is divided by this: one part is reserved for counting the spans that could not be sent.
const RESERVED: u32 = 10;

/// Upper bound of the time of a shutdown.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Traces {
    /// Starts the thread, whether the collector can be reached or not.
    ///
    /// The thread logs to the subscriber of the calling thread. The exporter reads the standard `OTEL_*` variables for
    /// headers, compression and resource attributes.
    ///
    /// # Errors
    /// An invalid setting; a system without a free thread or file descriptor.
    pub fn start(settings: TracesSettings) -> Result<Self, StartTracesError> {
        let (target, sampler) = settings.parse()?;
        let counters = Arc::new(Counters::default());
        let (queue, receiver) = queue::queue(settings.max_queue, settings.max_batch);
        let (closing, closes) = watch::channel(None);
        let ended = Arc::new(Ended::default());
        let exporter = Exporter::new(settings, target, receiver, Arc::clone(&counters));
        exporter::spawn(exporter, closes, Arc::clone(&ended))?;
        Ok(Self {
            sampler,
            clock: Clock::new(),
            queue,
            counters,
            closing,
            ended,
        })
    }

    /// Decides about a request that begins. `traceparent` is the header of the request; an empty or invalid one counts
    /// as absent. Returns its timeline if it is traced: the decision of the visitor is followed, and of the traces that
    /// begin here a share is recorded.
    pub fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        let parent: Option<TraceContext> = traceparent.parse().ok();
        let new = match parent {
            Some(parent) if self.sampler.samples(Some(parent), parent.trace_id) => parent.trace_id,
            Some(_) => return None,
            None => {
                let lower_half: u64 = rand::random();
                if !self.sampler.samples_new(lower_half) {
                    return None;
                }
                let upper_half: u64 = rand::random();
                TraceId::from_random(u128::from(upper_half) << 64 | u128::from(lower_half))
            }
        };
        Some(Box::new(Timeline::new(parent, new, rand::random())))
    }

    /// Queues the spans of a finished request. Does nothing without a timeline. Never waits: when the queue is full, the
    /// spans are dropped and counted.
    pub fn on_end(&self, record: &Record<'_>) {
        let Some(timeline) = record.timeline else {
            return;
        };
        let make = || Finished::new(record, timeline, self.clock.scale(record.ended));
        if !self.queue.try_push(make) {
            let spans = finished::count(timeline);
            self.counters.dropped.fetch_add(spans, Ordering::Relaxed);
        }
    }

    /// Counts of the spans so far.
    pub fn stats(&self) -> TracesStats {
        self.counters.stats()
    }

    /// Exports the queue, each batch once, and ends the thread. Spans that finish later, or could not be sent by then,
    /// are dropped and counted.
    ///
    /// Blocks the calling thread for `within` at most. A second call waits for the end too, and changes nothing.
    pub fn shutdown(&self, within: Duration) -> TracesStats {
        let within = within.min(LONGEST);
        let now = Instant::now();
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert(now + (within - within / RESERVED));
            first
        });
        self.ended.wait_until(now + within);
        self.stats()
    }
}

impl fmt::Debug for Traces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Traces")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
