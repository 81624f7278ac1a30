//! Sends requests and measures the responses.
//!
//! Promises: every byte of every body is compared with the pattern; latencies are those of requests that began in the
//! measured window, even if they ended after it; the counts of requests and bytes are of those that ended in the
//! window. They are counted at the same moment as the caller's samples (CPU time), so that one can be divided by the
//! other. A request that never ends is counted as an error.
//!
//! Two ways to send:
//! - closed loop: each connection sends its next request when it has its response. It finds the maximum throughput of
//!   the target, but it hides stalls: a stalled target gets fewer requests.
//! - open loop: requests are due at a fixed rate, independently of the responses, and each is timed from when it was
//!   due. This avoids coordinated omission (Gil Tene; wrk2). Due requests wait in one queue for any free connection, so
//!   a stall of one connection does not delay the requests of others.
//!
//! Cost: one thread, one task per connection, no allocation per request. Run
//! it on a current-thread runtime: its own CPU time is part of every result.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::drivers::http::Fetch;
use crate::failure::{Failure, Failures};
use crate::pool::Pool;
use crate::schedule::Schedule;
use crate::tally::{Begin, Tally};

/// How long requests that are in progress at the end of the window may take.
const GRACE: Duration = Duration::from_secs(5);

/// The load: what to send, to which target, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Where to connect to.
    pub(crate) target: SocketAddr,
    /// The `Host` field.
    pub(crate) host: String,
    /// A path whose response is the pattern.
    pub(crate) path: String,
    /// The number of concurrent connections.
    pub(crate) connections: usize,
    /// A new connection for each request.
    pub(crate) new_connection: bool,
    /// Requests per second of the open loop; `None` means the closed loop.
    pub(crate) rate: Option<f64>,
    /// The time before the window, in which requests are sent but not measured.
    pub(crate) warm_up: Duration,
    /// Length of the window.
    pub(crate) duration: Duration,
    /// The number of bytes to read at once.
    pub(crate) read_bytes: usize,
    /// Report progress on stderr each second.
    pub(crate) progress: bool,
}

impl Plan {
    fn request(&self) -> Vec<u8> {
        let (path, host) = (&self.path, &self.host);
        let close = if self.new_connection {
            "connection: close\r\n"
        } else {
            ""
        };
        format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n{close}\r\n").into_bytes()
    }
}

/// The measurements of a run.
#[derive(Debug, Clone)]
pub(crate) struct Outcome<T> {
    /// The actual length of the window.
    pub(crate) elapsed: Duration,
    /// Requests that ended in the window.
    pub(crate) requests: u64,
    /// Bytes of bodies that were received in the window.
    pub(crate) body_bytes: u64,
    /// Requests that failed in the whole run (warm-up included), by kind.
    pub(crate) failures: Failures,
    /// Microseconds to the last byte of requests that began in the window.
    pub(crate) latency_us: Histogram<u64>,
    /// The caller's sample at the beginning of the window.
    pub(crate) before: T,
    /// The caller's sample at the end of the window.
    pub(crate) after: T,
}

/// The plan cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Nothing would be sent.
    #[error("at least one connection is needed")]
    NoConnections,
    /// The rate is not above zero.
    #[error("the rate must be above zero, not {0}")]
    Rate(f64),
    /// The histogram could not be made.
    #[error("histogram: {0}")]
    Histogram(#[from] hdrhistogram::CreationError),
}

/// Runs the plan. `sample` is called at the beginning and at the end of the
/// measured window.
///
/// # Errors
/// Returns a [`RunError`] when the plan is invalid; failed requests are part of the outcome instead.
///
/// # Cancel safety
/// Dropping the future closes all its connections.
pub(crate) async fn run<T>(
    plan: Plan,
    mut sample: impl FnMut() -> T,
) -> Result<Outcome<T>, RunError> {
    if plan.connections == 0 {
        return Err(RunError::NoConnections);
    }
    if let Some(rate) = plan.rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
        return Err(RunError::Rate(rate));
    }
    let tally = Arc::new(Tally::new()?);
    let schedule = Schedule::new(plan.rate, plan.warm_up + plan.duration);
    let shared = Arc::new(Pool {
        driver: Fetch {
            target: plan.target,
            request: plan.request(),
            read_bytes: plan.read_bytes,
            tally: tally.clone(),
        },
        schedule: Arc::new(schedule),
        tally,
        per_session: plan.new_connection.then_some(1),
        timeout: None,
    });
    let plan = &plan;
    let mut visitors = JoinSet::new();
    shared.start(plan.connections, &mut visitors);

    // Without a warm-up, no visitor may start before the window, so there must be no await here.
    if !plan.warm_up.is_zero() {
        sleep_until(shared.schedule.begin() + plan.warm_up).await;
    }
    let before = sample();
    let begin = shared.tally.mark_begin();
    wait_for_the_end(plan, &shared.tally, begin).await;
    let after = sample();
    let window = shared.tally.mark_end(begin);
    shared.schedule.stop();

    let drained = timeout(GRACE, async {
        while visitors.join_next().await.is_some() {}
    })
    .await;
    let failures = &shared.tally.failures;
    if drained.is_err() {
        // A visitor that is still running has a request without a response.
        failures.add(Failure::Unfinished, visitors.len() as u64);
        visitors.shutdown().await;
    }
    failures.add(Failure::Unsent, shared.schedule.unsent());
    Ok(Outcome {
        elapsed: window.elapsed,
        requests: window.requests,
        body_bytes: window.body_bytes,
        failures: failures.clone(),
        latency_us: shared.tally.histogram(),
        before,
        after,
    })
}

async fn wait_for_the_end(plan: &Plan, tally: &Tally, begin: Begin) {
    let end = begin.at + plan.duration;
    let mut last = begin.requests;
    for second in 1_u32.. {
        let next = begin.at + Duration::from_secs(1) * second;
        if !plan.progress || next > end {
            break;
        }
        sleep_until(next).await;
        let requests = tally.requests.load(Relaxed);
        let (rate, failed) = (requests - last, tally.failures.total());
        anstream::eprintln!("{second:>4} s  {rate:>8} requests/s  {failed} failed");
        last = requests;
    }
    sleep_until(end).await;
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
