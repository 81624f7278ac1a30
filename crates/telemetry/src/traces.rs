//! Spans of the requests that are traced, on their way to a collector.
//!
//! A request that is over becomes one span for this hop and one for each of its phases (`traces/tree.rs`). They go into
//! a bounded queue; one thread of its own, with a runtime of its own, sends them as OTLP over gRPC
//! (`traces/exporter.rs`).
//!
//! Promises:
//! - who calls [`Traces::begin`] and [`Traces::on_end`] never waits, needs no runtime and takes no lock that the thread
//!   holds while it sends;
//! - memory is bounded: a full queue drops the spans of the request that comes, and counts them;
//! - a collector that is away costs the spans and one line in the log when it goes, one when it is back.
//!
//! Cost: a request that is not traced costs [`Traces::begin`], which is one random number. One that is traced is written
//! once, into one allocation, as the bytes that leave.
//!
//! Proof: `tests/otlp.rs` receives what a collector would, and is the collector that refuses, hangs and comes back.

mod attributes;
mod clock;
mod collector;
mod ended;
mod exporter;
mod health;
mod queue;
mod resource;
mod settings;
mod stats;
mod tree;
mod wire;

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use adit_trace::{Record, Sampler, Timeline, TraceContext, TraceId};
use tokio::sync::watch;

use self::{clock::Clock, ended::Ended, exporter::Exporter, queue::Queue, stats::Counters};
pub use self::{
    settings::{TracesSettings, TracesSettingsError},
    stats::TracesStats,
};

/// Why no spans will be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartTracesError {
    /// A setting cannot be used.
    #[error(transparent)]
    Settings(#[from] TracesSettingsError),
    /// The system gives no thread, or none of what a runtime needs.
    #[error(
        "cannot start the thread that sends traces: {0}; raise the limits of threads and open files, or turn tracing off"
    )]
    Thread(#[from] io::Error),
}

/// Decides what is traced and sends the spans of it. Dropping it sends what is queued, in the background.
pub struct Traces {
    sampler: Sampler,
    clock: Clock,
    queue: Queue,
    counters: Arc<Counters>,
    /// When the thread is to be done; `None`: it is to go on.
    closing: watch::Sender<Option<Instant>>,
    ended: Arc<Ended>,
}

/// Of the time that a shutdown has, what is kept for counting what could not be sent: one part of this many.
const KEPT: u32 = 10;

/// A shutdown that may take longer than this may take this long.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

impl Traces {
    /// Starts the thread. The collector need not be there, now or later.
    ///
    /// The thread logs to where the calling thread does.
    ///
    /// # Errors
    /// A setting that cannot be used; a system without threads or file descriptors to give.
    pub fn start(settings: TracesSettings) -> Result<Self, StartTracesError> {
        let (endpoint, sampler) = settings.parse()?;
        let counters = Arc::new(Counters::default());
        let (queue, waiting) = queue::queue(settings.max_queue, settings.max_batch);
        let (closing, closes) = watch::channel(None);
        let ended = Arc::new(Ended::default());
        let exporter = Exporter::new(settings, endpoint, waiting, Arc::clone(&counters));
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

    /// A request begins that came with this `traceparent`; empty, and anything that is none, means that it came with
    /// none. Gives its timeline if it is to be traced: what began elsewhere when it is traced there, of what begins
    /// here a share.
    pub fn begin(&self, traceparent: &str) -> Option<Box<Timeline>> {
        let parent: Option<TraceContext> = traceparent.parse().ok();
        let new = match parent {
            Some(parent) if parent.sampled => parent.trace_id,
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

    /// A request is over. Does nothing for one without a timeline. Never waits: what finds the queue full is dropped
    /// and counted.
    pub fn on_end(&self, record: &Record<'_>) {
        let Some(timeline) = record.timeline else {
            return;
        };
        let make = || {
            let scale = self.clock.scale(record.ended);
            tree::spans(record, timeline, scale, &mut rand::random)
        };
        if !self.queue.try_push(make) {
            let spans = tree::count(timeline);
            self.counters.dropped.fetch_add(spans, Ordering::Relaxed);
        }
    }

    /// What has become of the spans so far.
    pub fn stats(&self) -> TracesStats {
        self.counters.stats()
    }

    /// Sends what is queued, each batch once, and ends the thread. What comes later, or could not be sent by then, is
    /// dropped and counted.
    ///
    /// Blocks the calling thread for `within` at most. A second call waits for the end too, and changes nothing.
    pub fn shutdown(&self, within: Duration) -> TracesStats {
        let within = within.min(LONGEST);
        let now = Instant::now();
        self.closing.send_if_modified(|closing| {
            let first = closing.is_none();
            closing.get_or_insert(now + (within - within / KEPT));
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
