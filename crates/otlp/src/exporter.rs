//! The thread that exports spans: it gathers batches, retries, and drops batches that cannot be sent.

use std::{
    future::pending,
    io, mem,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::{Resource, error::OTelSdkResult, trace::SpanExporter as _};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::{error::Elapsed, sleep, timeout, timeout_at},
};
use tracing::{Dispatch, dispatcher};

use super::{
    collector::Collector,
    ended::Ended,
    finished::Finished,
    health::{Health, Line},
    queue::Receiver,
    refusal::{Refusal, cut},
    rejections::{ExporterLog, Rejections},
    resource::resource,
    settings::{Target, TracesSettings},
    spans,
    stats::Counters,
};

/// A batch is sent this often before it is dropped. With the pauses between, at the default interval, a collector may
/// be unreachable for some fifteen seconds without loss; when the queue is full, the newest spans are dropped.
const TRIES: u32 = 5;

/// Pauses double, up to this number of intervals.
const LONGEST_PAUSE: u32 = 16;

/// A batch that is larger is closed: collectors accept messages of 4 MiB by default, as gRPC does.
const FULL_BYTES: usize = 2 << 20;

/// The most concurrent look-ups of a name: with a resolver that hangs, each try would otherwise leave one more thread.
const LOOKUPS: usize = 2;

/// Gathers batches and sends them.
pub(super) struct Exporter {
    settings: TracesSettings,
    target: Target,
    resource: Resource,
    scope: InstrumentationScope,
    collector: Option<Collector>,
    rejections: Rejections,
    queue: Receiver,
    /// The batch that is sent next, or is being sent.
    batch: Batch,
    /// The pause after the next failure.
    pause: Duration,
    health: Health,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Batch {
    /// Each request with the seed of its spans' ids.
    requests: Vec<(Finished, u64)>,
    spans: u64,
    max_bytes: usize,
    /// How often the batch has been sent.
    tries: u32,
}

/// The end of the thread.
struct Closing {
    deadline: watch::Receiver<Option<Instant>>,
    /// The time that is left when the other end was dropped without a deadline.
    default: Duration,
}

impl Closing {
    /// Waits until the end is announced. Returns the deadline.
    ///
    /// # Cancel safety
    /// The announcement is not lost.
    async fn deadline(&mut self) -> Instant {
        let announced = self.deadline.wait_for(Option::is_some).await;
        let deadline = announced.ok().and_then(|deadline| *deadline);
        deadline.unwrap_or_else(|| Instant::now() + self.default)
    }
}

/// Starts the thread. It sets `ended` when it ends.
///
/// # Errors
/// The system has no thread or no file descriptor for it.
pub(super) fn spawn(
    exporter: Exporter,
    closing: watch::Receiver<Option<Instant>>,
    ended: Arc<Ended>,
) -> io::Result<()> {
    let closing = Closing {
        deadline: closing,
        default: exporter.settings.timeout,
    };
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(LOOKUPS)
        .build()?;
    let log = dispatcher::get_default(Clone::clone);
    let log = ExporterLog::new(log, exporter.rejections.clone());
    let _detached = thread::Builder::new()
        .name("adit-traces".to_owned())
        .spawn(move || {
            let _ended = EndedOnDrop(ended);
            run(runtime, &Dispatch::new(log), exporter.run(closing));
        })?;
    Ok(())
}

/// A look-up of a name that hangs would block the end of its runtime, so the runtime does not wait for it.
fn run(runtime: Runtime, log: &Dispatch, work: impl Future<Output = ()>) {
    dispatcher::with_default(log, || runtime.block_on(work));
    runtime.shutdown_background();
}

struct EndedOnDrop(Arc<Ended>);

impl Drop for EndedOnDrop {
    fn drop(&mut self) {
        self.0.set();
    }
}

impl Exporter {
    pub(super) fn new(
        settings: TracesSettings,
        target: Target,
        queue: Receiver,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            target,
            resource: resource(&settings.service_name),
            scope: InstrumentationScope::builder("adit")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
            collector: None,
            rejections: Rejections::default(),
            queue,
            batch: Batch::default(),
            pause: settings.interval,
            health: Health::default(),
            counters,
            settings,
        }
    }

    /// Exports until the end is announced, and then the rest. An export that runs at that time is completed.
    async fn run(mut self, mut closing: Closing) {
        'open: loop {
            tokio::select! {
                biased;
                _ = closing.deadline() => break 'open,
                () = self.fill() => {}
            }
            while !self.batch.requests.is_empty() {
                let Err(refusal) = self.attempt(&mut closing).await else {
                    continue;
                };
                if !refusal.is_retryable || self.batch.tries >= TRIES {
                    self.give_up();
                }
                tokio::select! {
                    biased;
                    _ = closing.deadline() => break 'open,
                    () = self.rest() => {}
                }
            }
        }
        self.flush(closing).await;
    }

    /// Waits for a first request, and for an interval at most for others.
    ///
    /// # Cancel safety
    /// Requests that were taken from the queue are in the batch.
    async fn fill(&mut self) {
        let Some(finished) = self.queue.pop().await else {
            return pending().await;
        };
        self.add(finished);
        if self.batch.requests.len() + self.queue.len() < self.settings.max_batch {
            tokio::select! {
                () = sleep(self.settings.interval) => {}
                () = self.queue.batch_is_full() => {}
            }
        }
        self.gather();
    }

    /// Fills the batch from the queue.
    fn gather(&mut self) {
        while self.batch.requests.len() < self.settings.max_batch
            && self.batch.max_bytes < FULL_BYTES
        {
            let Some(finished) = self.queue.try_pop() else {
                break;
            };
            self.add(finished);
        }
    }

    fn add(&mut self, finished: Finished) {
        self.batch.spans += finished.spans();
        self.batch.max_bytes += finished.max_encoded_bytes();
        self.batch.requests.push((finished, rand::random()));
    }

    /// Sends the batch once. Empties it when the collector has accepted it.
    async fn attempt(&mut self, closing: &mut Closing) -> Result<(), Refusal> {
        self.batch.tries += 1;
        let refusal = match self.export(closing).await {
            Ok(Ok(Ok(()))) => {
                self.on_accepted();
                return Ok(());
            }
            Ok(Ok(Err(error))) => {
                let network = self
                    .collector
                    .as_ref()
                    .and_then(Collector::take_network_error);
                Refusal::new(&error, network)
            }
            Ok(Err(problem)) => Refusal::permanent(problem),
            Err(_) => {
                // The connection may be dead, and TCP takes minutes to detect that.
                self.collector = None;
                Refusal::timed_out()
            }
        };
        self.on_failure(&refusal.reason);
        Err(refusal)
    }

    /// The result of one export, within the timeout and before the end.
    async fn export(
        &mut self,
        closing: &mut Closing,
    ) -> Result<Result<OTelSdkResult, String>, Elapsed> {
        let collector = match &mut self.collector {
            Some(collector) => collector,
            none => match Collector::new(&self.target, &self.settings, &self.resource) {
                Ok(collector) => none.insert(collector),
                Err(problem) => return Ok(Err(problem)),
            },
        };
        let count = usize::try_from(self.batch.spans).unwrap_or_default();
        let mut batch = Vec::with_capacity(count);
        for (finished, seed) in &self.batch.requests {
            spans::build(finished, *seed, &self.scope, &mut batch);
        }
        let export = collector.exporter().export(batch);
        let mut export = pin!(timeout(self.settings.timeout, export));
        let exported = tokio::select! {
            biased;
            exported = &mut export => exported,
            deadline = closing.deadline() => timeout_at(deadline.into(), export).await?,
        };
        exported.map(Ok)
    }

    /// Called when the collector has accepted the batch, except the spans that it rejected.
    fn on_accepted(&mut self) {
        let sent = mem::take(&mut self.batch).spans;
        self.pause = self.settings.interval;
        let rejection = self.rejections.take();
        let rejected = u64::try_from(rejection.spans).unwrap_or(0).min(sent);
        self.counters
            .exported
            .fetch_add(sent - rejected, Ordering::Relaxed);
        self.counters.failed.fetch_add(rejected, Ordering::Relaxed);
        if rejected > 0 {
            let reason = cut(&rejection.reason);
            self.on_failure(&format!(
                "{rejected} of {sent} spans were rejected: {reason}"
            ));
            return;
        }
        match self.health.on_success(self.counters.stats()) {
            Some(Line::Recovered(lost)) => tracing::info!(lost, "spans are exported again"),
            Some(Line::Overflowing(dropped)) => tracing::warn!(
                dropped,
                "requests end faster than their spans are exported, and spans are dropped; lower sample_ratio"
            ),
            Some(Line::Failing) | None => {}
        }
    }

    fn on_failure(&mut self, reason: &str) {
        if self.health.on_failure(self.counters.stats()).is_some() {
            tracing::warn!(
                endpoint = self.settings.endpoint,
                "spans cannot be exported and will be lost, requests are not affected: {reason}"
            );
        }
    }

    /// Drops the batch and counts its spans.
    fn give_up(&mut self) {
        let batch = mem::take(&mut self.batch);
        let count = if batch.tries > 0 {
            &self.counters.failed
        } else {
            &self.counters.dropped
        };
        count.fetch_add(batch.spans, Ordering::Relaxed);
    }

    /// Pauses after a failure. Up to half of the pause is cut at random, so that senders do not retry at the same
    /// times.
    async fn rest(&mut self) {
        let pause = self.pause.mul_f64(1.0 - rand::random::<f64>() / 2.0);
        self.pause = (self.pause * 2).min(self.settings.interval * LONGEST_PAUSE);
        sleep(pause).await;
    }

    /// Sends the rest until the deadline: each batch once, until the first failure. Counts the remaining spans as
    /// dropped.
    async fn flush(mut self, mut closing: Closing) {
        let deadline = closing.deadline().await;
        while Instant::now() < deadline {
            self.gather();
            if self.batch.requests.is_empty() || self.attempt(&mut closing).await.is_err() {
                break;
            }
        }
        self.give_up();
        self.queue.close();
        while let Some(finished) = self.queue.pop().await {
            self.counters
                .dropped
                .fetch_add(finished.spans(), Ordering::Relaxed);
        }
    }
}
