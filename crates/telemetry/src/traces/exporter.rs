//! The thread that sends spans: batches, tries again, gives up.

use std::{
    error::Error,
    fmt::Write as _,
    future::pending,
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
    time::{error::Elapsed, sleep, timeout, timeout_at},
};
use tonic::{Code, Status, transport::Endpoint};
use tracing::{Dispatch, dispatcher, subscriber::NoSubscriber};

use super::{
    collector::{Answer, Collector},
    ended::Ended,
    health::{Health, Line},
    queue::Waiting,
    resource::Envelope,
    settings::TracesSettings,
    stats::Counters,
    tree::Tree,
};

/// A batch is sent this often before it is given up. With the pauses between, at the default interval, a collector may
/// be away for some fifteen seconds without loss; the newest spans beyond the queue are lost first.
const TRIES: u32 = 5;

/// Pauses double up to this many intervals.
const LONGEST_PAUSE: u32 = 16;

/// A batch that is larger is closed: collectors refuse messages of more than 4 MiB, as gRPC does unless told otherwise.
const FULL_BYTES: usize = 2 << 20;

/// Names that are looked up at once: a resolver that hangs must not gather threads, one for each try.
const LOOKUPS: usize = 2;

/// Of what the collector says, this much goes to the log.
const MAX_REASON_CHARS: usize = 200;

/// Batches and sends.
pub(super) struct Exporter {
    settings: TracesSettings,
    endpoint: Endpoint,
    collector: Option<Collector>,
    waiting: Waiting,
    /// What is sent next, or is being sent.
    batch: Batch,
    /// How long to rest after the next failure.
    pause: Duration,
    health: Health,
    counters: Arc<Counters>,
    envelope: Envelope,
}

#[derive(Default)]
struct Batch {
    /// Messages, one behind the other.
    bytes: Vec<u8>,
    spans: u64,
    requests: usize,
    /// How often it has been sent.
    tries: u32,
}

/// The collector did not take a batch.
struct Refused {
    /// It may take it another time.
    again: bool,
    why: String,
}

/// When the end is to be.
struct Closing {
    told: watch::Receiver<Option<Instant>>,
    /// What is left to whom nobody told before they went.
    otherwise: Duration,
}

impl Closing {
    /// Waits for the end to be announced, and says by when all must be done.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    async fn until(&mut self) -> Instant {
        let told = self.told.wait_for(Option::is_some).await;
        let until = told.ok().and_then(|until| *until);
        until.unwrap_or_else(|| Instant::now() + self.otherwise)
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
        told: closing,
        otherwise: exporter.settings.timeout,
    };
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(LOOKUPS)
        .build()?;
    let logs = dispatcher::get_default(Clone::clone);
    let _detached = thread::Builder::new()
        .name("adit-traces".to_owned())
        .spawn(move || {
            let _ended = EndedOnDrop(ended);
            run(runtime, &logs, exporter.run(closing));
        })?;
    Ok(())
}

/// A host name that is being looked up would hold up the end of its runtime: nobody waits for it.
fn run(runtime: Runtime, logs: &Dispatch, work: impl Future<Output = ()>) {
    if logs.is::<NoSubscriber>() {
        runtime.block_on(work);
    } else {
        dispatcher::with_default(logs, || runtime.block_on(work));
    }
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
        endpoint: Endpoint,
        waiting: Waiting,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            endpoint,
            collector: None,
            waiting,
            batch: Batch::default(),
            pause: settings.interval,
            health: Health::default(),
            counters,
            envelope: Envelope::new(&settings.service_name),
            settings,
        }
    }

    /// Sends until it is told to close, then what is left. An export that is under way then is waited for.
    async fn run(mut self, mut closing: Closing) {
        'open: loop {
            tokio::select! {
                biased;
                _ = closing.until() => break 'open,
                () = self.fill() => {}
            }
            while self.batch.requests > 0 {
                let Err(refused) = self.attempt(&mut closing).await else {
                    continue;
                };
                if !refused.again || self.batch.tries >= TRIES {
                    self.give_up();
                }
                tokio::select! {
                    biased;
                    _ = closing.until() => break 'open,
                    () = self.rest() => {}
                }
            }
        }
        self.flush(closing).await;
    }

    /// Waits for a first request, and a little for others.
    ///
    /// # Cancel safety
    /// What it has taken is in the batch.
    async fn fill(&mut self) {
        let Some(tree) = self.waiting.pop().await else {
            return pending().await;
        };
        self.take(tree);
        if self.batch.requests + self.waiting.len() < self.settings.max_batch {
            tokio::select! {
                () = sleep(self.settings.interval) => {}
                () = self.waiting.batch_is_full() => {}
            }
        }
        self.gather();
    }

    /// Fills the batch with what is there.
    fn gather(&mut self) {
        while self.batch.requests < self.settings.max_batch && self.batch.bytes.len() < FULL_BYTES {
            let Some(tree) = self.waiting.try_pop() else {
                break;
            };
            self.take(tree);
        }
    }

    fn take(&mut self, tree: Tree) {
        self.batch.requests += 1;
        self.batch.spans += tree.spans;
        if self.batch.bytes.is_empty() {
            // Mostly there is one.
            self.batch.bytes = tree.bytes;
        } else {
            self.batch.bytes.extend_from_slice(&tree.bytes);
        }
    }

    /// Sends the batch once. It is there no longer when the collector has answered for it.
    async fn attempt(&mut self, closing: &mut Closing) -> Result<(), Refused> {
        self.batch.tries += 1;
        let answer = self.call(closing).await;
        let refused = match answer {
            Ok(Ok(answer)) => {
                self.on_answer(answer);
                return Ok(());
            }
            Ok(Err(status)) => Refused {
                again: may_be_retried(&status),
                why: describe(&status),
            },
            Err(_) => {
                // The connection may be dead, and TCP takes minutes to notice.
                self.collector = None;
                Refused {
                    again: true,
                    why: "the collector gave no answer in time".to_owned(),
                }
            }
        };
        self.on_failure(&refused.why);
        Err(refused)
    }

    /// What the collector answers, within the timeout and before the end.
    async fn call(&mut self, closing: &mut Closing) -> Result<Result<Answer, Status>, Elapsed> {
        let request = self.envelope.around(&self.batch.bytes);
        let endpoint = &self.endpoint;
        let collector = self
            .collector
            .get_or_insert_with(|| Collector::new(endpoint));
        let export = collector.export(request.into());
        let mut export = pin!(timeout(self.settings.timeout, export));
        tokio::select! {
            biased;
            answer = &mut export => answer,
            until = closing.until() => timeout_at(until.into(), export).await?,
        }
    }

    /// The collector has the batch, or all of it that it wants.
    fn on_answer(&mut self, answer: Answer) {
        let sent = std::mem::take(&mut self.batch).spans;
        self.pause = self.settings.interval;
        let partial = answer.partial_success.unwrap_or_default();
        let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0).min(sent);
        self.counters
            .exported
            .fetch_add(sent - rejected, Ordering::Relaxed);
        self.counters.failed.fetch_add(rejected, Ordering::Relaxed);
        if rejected > 0 {
            let reason = cut(&partial.error_message);
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

    fn on_failure(&mut self, why: &str) {
        if self.health.on_failure(self.counters.stats()).is_some() {
            tracing::warn!(
                endpoint = self.settings.endpoint,
                "spans cannot be exported and will be lost, requests are not affected: {why}"
            );
        }
    }

    /// Forgets the batch.
    fn give_up(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let count = if batch.tries > 0 {
            &self.counters.failed
        } else {
            &self.counters.dropped
        };
        count.fetch_add(batch.spans, Ordering::Relaxed);
    }

    /// Leaves the collector alone for a while. Not all senders come back at the same moment: by up to a half earlier.
    async fn rest(&mut self) {
        let pause = self.pause.mul_f64(1.0 - rand::random::<f64>() / 2.0);
        self.pause = (self.pause * 2).min(self.settings.interval * LONGEST_PAUSE);
        sleep(pause).await;
    }

    /// Sends what is left while there is time: each batch once, until the first that is refused. Counts the rest.
    async fn flush(mut self, mut closing: Closing) {
        let until = closing.until().await;
        while Instant::now() < until {
            self.gather();
            if self.batch.requests == 0 || self.attempt(&mut closing).await.is_err() {
                break;
            }
        }
        self.give_up();
        self.waiting.close();
        while let Some(tree) = self.waiting.pop().await {
            self.counters
                .dropped
                .fetch_add(tree.spans, Ordering::Relaxed);
        }
    }
}

/// What OTLP says may be sent again, and what never came to a collector that could say anything.
fn may_be_retried(status: &Status) -> bool {
    status.source().is_some()
        || matches!(
            status.code(),
            Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Aborted
                | Code::OutOfRange
                | Code::Unavailable
                | Code::DataLoss
        )
}

/// A status with what is under it: `transport error` alone helps nobody.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut source = status.source();
    while let Some(error) = source {
        let _infallible = write!(text, ": {error}");
        source = error.source();
    }
    cut(&text)
}

/// One line of bounded length.
fn cut(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    line.take(MAX_REASON_CHARS).collect()
}
