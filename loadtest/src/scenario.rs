//! A load test as data: the loads, their rates, the duration, and the events.
//!
//! `file` defines the format of the file; `check` converts a file to a [`Scenario`], or returns an error with its
//! place. The units are in the names of the keys. All keys are in `docs/loadtest.md`.

mod check;
mod file;

use std::time::Duration;

use serde::Serialize;

pub(crate) use self::file::{ScenarioError, list, read};
use crate::events::Event;
use crate::failure::Failure;
use crate::schedule::{Arrivals, Step};

/// A checked load test that can be run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) about: String,
    /// The time before the window, in which exchanges are made and checked but not measured.
    pub(crate) warm_up: Duration,
    /// The factors of the rates of all loads, one step after the other; together the steps are the window.
    pub(crate) steps: Vec<Step>,
    /// An exchange that takes longer has failed.
    pub(crate) timeout: Duration,
    /// The time that exchanges in progress at the end may take.
    pub(crate) grace: Duration,
    /// The number of clients of one group, if this program starts the target.
    pub(crate) clients: usize,
    pub(crate) loads: Vec<Load>,
    pub(crate) events: Vec<Event>,
    pub(crate) allowed: Allowed,
}

/// The visitors of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Exchanges per second, before the steps' factors; for `sse`, the events of each subscriber.
    pub(crate) rate: f64,
    /// Connections at once; for `grpc_*` HTTP/2 connections, for `udp` flows, for `sse` subscribers.
    pub(crate) connections: usize,
    /// The number of exchanges after which a connection (for `grpc_stream`, a call) is ended.
    pub(crate) per_connection: Option<u64>,
    /// Calls at once on each connection, for `grpc_*`.
    pub(crate) streams: usize,
    pub(crate) sizes: Mix,
    pub(crate) limits: Limits,
}

/// The exchange of a visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A `GET` request with a response of some bytes.
    Http,
    /// A `POST` request of some bytes with a response that contains their checksum.
    Upload,
    /// An echoed message.
    WebSocket,
    /// A call with one message in each direction.
    GrpcUnary,
    /// An echoed message in a long-lived call.
    GrpcStream,
    /// Some echoed bytes.
    TcpEcho,
    /// A connection on which the service sends some bytes.
    TcpDownload,
    /// A connection on which the visitor sends some bytes.
    TcpUpload,
    /// An echoed datagram; it is lost when it has not been received within this time.
    Udp { response_within: Duration },
    /// Subscribers that all receive the same events.
    Sse,
    /// Downloads that are read at this many bytes per second.
    SlowReaders { bytes_per_s: u64 },
}

impl Kind {
    /// The name in scenarios and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Upload => "upload",
            Self::WebSocket => "websocket",
            Self::GrpcUnary => "grpc_unary",
            Self::GrpcStream => "grpc_stream",
            Self::TcpEcho => "tcp_echo",
            Self::TcpDownload => "tcp_download",
            Self::TcpUpload => "tcp_upload",
            Self::Udp { .. } => "udp",
            Self::Sse => "sse",
            Self::SlowReaders { .. } => "slow_readers",
        }
    }

    /// Whether the kind is measured in bytes per second rather than exchanges per second.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::TcpDownload | Self::TcpUpload | Self::SlowReaders { .. }
        )
    }

    /// The start and the end of a latency of this kind.
    pub(crate) fn latency(self) -> &'static str {
        match self {
            Self::Sse => "from when an event was due at the service to its last byte",
            Self::SlowReaders { .. } => {
                "from when a reader's next portion (a fifth of a second of its rate) was due to its last byte"
            }
            _ => "from when it was due to its last byte",
        }
    }
}

/// Sizes with the weight of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mix {
    /// Each size in bytes with the sum of the weights up to this one.
    sizes: Vec<(u64, u64)>,
}

impl Mix {
    /// Creates a mix. Weights must be at least 1, and there must be at least one size.
    pub(crate) fn new(sizes: impl IntoIterator<Item = (u64, u32)>) -> Self {
        let mut sum = 0;
        let sizes = sizes.into_iter().map(|(bytes, weight)| {
            sum += u64::from(weight);
            (bytes, sum)
        });
        Self {
            sizes: sizes.collect(),
        }
    }

    /// The size of exchange `number`: it is pseudorandom and the same in every run.
    pub(crate) fn pick(&self, number: u64) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014).
        let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let total = self.sizes.last().map_or(1, |(_, sum)| *sum).max(1);
        let at = hash % total;
        let found = self.sizes.iter().find(|(_, sum)| at < *sum);
        found.map_or(0, |(bytes, _)| *bytes)
    }

    /// The largest one.
    pub(crate) fn largest(&self) -> u64 {
        self.sizes
            .iter()
            .map(|(bytes, _)| *bytes)
            .max()
            .unwrap_or(0)
    }
}

/// Errors that do not make a run fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Allowed {
    /// The allowed share of the exchanges of a load.
    pub(crate) percent: f64,
    /// The allowed kinds.
    #[serde(serialize_with = "names")]
    pub(crate) kinds: Vec<Failure>,
    /// The allowed share of lost datagrams.
    pub(crate) loss_percent: f64,
}

fn names<S: serde::Serializer>(kinds: &[Failure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(kinds.iter().map(|kind| kind.name()))
}

/// The limits that the scenario sets for a load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Limits {
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) p99_9: Option<Duration>,
    pub(crate) max: Option<Duration>,
}

/// Changes of a scenario on the command line.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change {
    /// The rate of all loads together.
    pub(crate) rate: Option<f64>,
    /// The length of the window; steps and events keep their relative places in it.
    pub(crate) duration: Option<Duration>,
    /// The factor of rates and connections.
    pub(crate) scale: Option<f64>,
}

impl Scenario {
    /// The length of the window.
    pub(crate) fn duration(&self) -> Duration {
        self.steps.iter().map(|step| step.length).sum()
    }

    /// Exchanges per second of all loads together, before the steps' factors.
    pub(crate) fn rate(&self) -> f64 {
        self.loads.iter().map(Load::offered).sum()
    }

    /// The times at which the exchanges of a load are due: the warm-up has the initial rate of the window, and the
    /// steps follow.
    pub(crate) fn arrivals(&self, load: &Load) -> Arrivals {
        let first = self.steps.first().map_or(1.0, |step| step.from);
        let warm_up = Step {
            length: self.warm_up,
            from: first,
            to: first,
        };
        let steps = std::iter::once(warm_up).chain(self.steps.iter().copied());
        Arrivals::new(steps.map(|step| Step {
            from: step.from * load.rate,
            to: step.to * load.rate,
            ..step
        }))
    }

    /// Applies the changes of the command line to the scenario.
    pub(crate) fn changed(mut self, change: Change) -> Self {
        if let Some(scale) = change.scale {
            for load in &mut self.loads {
                if load.kind != Kind::Sse {
                    load.rate *= scale;
                }
                load.connections = scaled(load.connections, scale);
            }
        }
        if let Some(rate) = change.rate {
            let factor = rate / self.rate();
            for load in &mut self.loads {
                load.rate *= factor;
            }
        }
        if let Some(duration) = change.duration {
            let factor = duration.as_secs_f64() / self.duration().as_secs_f64();
            for step in &mut self.steps {
                step.length = step.length.mul_f64(factor);
            }
            for event in &mut self.events {
                event.at = event.at.mul_f64(factor);
                event.down = event.down.mul_f64(factor.min(1.0));
            }
            self.warm_up = self.warm_up.min(duration);
        }
        self
    }
}

impl Load {
    /// Exchanges per second that result from the load's rate.
    pub(crate) fn offered(&self) -> f64 {
        match self.kind {
            Kind::Sse => self.rate * self.connections as f64,
            Kind::SlowReaders { .. } => 0.0,
            _ => self.rate,
        }
    }
}

fn scaled(count: usize, scale: f64) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count times a positive factor, rounded"
    )]
    let scaled = (count as f64 * scale).round() as usize;
    scaled.max(1)
}

#[cfg(test)]
#[path = "scenario/tests.rs"]
mod tests;
