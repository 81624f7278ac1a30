//! What the sending of spans is told.

use std::time::Duration;

use adit_trace::{RatioError, Sampler};
use tonic::transport::{Endpoint, Uri};

/// Where spans go, which and how many.
#[derive(Debug, Clone, PartialEq)]
pub struct TracesSettings {
    /// Where the collector takes OTLP over gRPC: `http://HOST:PORT`, mostly with port 4317.
    pub endpoint: String,
    /// The share of the traces beginning here that is recorded, from 0.0 to 1.0. What comes with a trace follows that.
    pub sample_ratio: f64,
    /// What this process is called among others in the trace: `service.name`.
    pub service_name: String,
    /// How long one export may take, the connecting included.
    pub timeout: Duration,
    /// Requests whose spans may wait to be sent; those of more are dropped.
    pub max_queue: usize,
    /// Requests whose spans leave in one export, at most.
    pub max_batch: usize,
    /// How long the first request of a batch waits for others. After a failure this is also the first pause, which
    /// doubles up to sixteen times of it.
    pub interval: Duration,
}

impl TracesSettings {
    /// Everything to this collector, with the defaults that stand in `docs/tracing.md`.
    pub fn new(endpoint: impl Into<String>, service_name: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            sample_ratio: 1.0,
            service_name: service_name.into(),
            timeout: Duration::from_secs(5),
            max_queue: 2_048,
            max_batch: 256,
            interval: Duration::from_secs(1),
        }
    }

    /// Whether [`Traces::start`](crate::Traces::start) would take these.
    ///
    /// # Errors
    /// The first setting that cannot be used, and what to write instead.
    pub fn check(&self) -> Result<(), TracesSettingsError> {
        self.parse().map(drop)
    }

    /// The collector, and the sampler.
    pub(super) fn parse(&self) -> Result<(Endpoint, Sampler), TracesSettingsError> {
        let endpoint = self.endpoint()?;
        let sampler = Sampler::ratio(self.sample_ratio)?;
        if self.service_name.trim().is_empty() {
            return Err(TracesSettingsError::ServiceName);
        }
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(TracesSettingsError::Timeout(self.timeout));
        }
        if !INTERVALS.contains(&self.interval) {
            return Err(TracesSettingsError::Interval(self.interval));
        }
        if !(1..=MAX_QUEUE).contains(&self.max_queue) {
            return Err(TracesSettingsError::MaxQueue(self.max_queue));
        }
        if !(1..=self.max_queue).contains(&self.max_batch) {
            return Err(TracesSettingsError::MaxBatch {
                max_batch: self.max_batch,
                max_queue: self.max_queue,
            });
        }
        Ok((endpoint, sampler))
    }

    fn endpoint(&self) -> Result<Endpoint, TracesSettingsError> {
        let refuse = |reason| TracesSettingsError::Endpoint {
            endpoint: self.endpoint.clone(),
            reason,
        };
        let uri: Uri = self.endpoint.parse().map_err(|_| refuse("it is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(refuse(HTTPS)),
            _ => return Err(refuse("it does not begin with http://")),
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(refuse("a user name has no place in it"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(refuse("it names no host"));
        }
        if uri.port_u16().is_none_or(|port| port == 0) {
            return Err(refuse("it names no port"));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(refuse(
                "a path belongs to OTLP over HTTP, and this is OTLP over gRPC",
            ));
        }
        Endpoint::from(uri)
            .connect_timeout(self.timeout)
            .user_agent(concat!("adit/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| refuse("it cannot be called with the name of this program"))
    }
}

const HTTPS: &str =
    "TLS to the collector is not supported; run a collector beside adit that forwards over TLS";

/// Below the least no collector answers; beyond the most a dead one would look like a slow one for too long.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(300);

const INTERVALS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(3_600);

/// At some kilobytes for each, this is some hundred megabytes.
const MAX_QUEUE: usize = 65_536;

/// A setting of the traces cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum TracesSettingsError {
    /// The collector's address is none.
    #[error("endpoint {endpoint:?} cannot be used: {reason}; write it like http://127.0.0.1:4317")]
    Endpoint {
        /// As it was given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The share is none.
    #[error("sample_ratio: {0}; 0.01 traces one request of a hundred")]
    SampleRatio(#[from] RatioError),
    /// The name is empty.
    #[error("service_name is empty; name this process, as in adit-server")]
    ServiceName,
    /// The time for one export.
    #[error("timeout is {0:?}; write a time from 1ms to 5m, such as 5s")]
    Timeout(Duration),
    /// The time between two exports.
    #[error("interval is {0:?}; write a time from 1ms to 1h, such as 1s")]
    Interval(Duration),
    /// The bound of the queue.
    #[error("max_queue is {0}; write a number from 1 to 65536, such as 2048")]
    MaxQueue(usize),
    /// The bound of a batch.
    #[error("max_batch is {max_batch}; write a number from 1 to max_queue, which is {max_queue}")]
    MaxBatch {
        /// As it was given.
        max_batch: usize,
        /// What it may be at most.
        max_queue: usize,
    },
}
