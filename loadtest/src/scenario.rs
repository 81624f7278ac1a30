//! What a load test does, as data: which loads at which rates, for how long, and what happens meanwhile.
//!
//! `file` is the file's form, `check` makes a [`Scenario`] of it or returns what is wrong and where. The units are in the
//! names of the keys. All keys are in `docs/loadtest.md`.

mod check;
mod file;

use std::time::Duration;

use serde::Serialize;

pub(crate) use self::file::{ScenarioError, list, read};
use crate::events::Event;
use crate::failure::Failure;
use crate::schedule::{Arrivals, Step};

/// A load test, checked: it can be run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) about: String,
    /// Sent and checked but not measured, before the window.
    pub(crate) warm_up: Duration,
    /// What the rates of all loads are multiplied by, one step after the other: the window.
    pub(crate) steps: Vec<Step>,
    /// An exchange that takes longer has failed.
    pub(crate) timeout: Duration,
    /// What is under way at the end may take so long to end.
    pub(crate) grace: Duration,
    /// Clients of one group, where the target is ours.
    pub(crate) clients: usize,
    pub(crate) loads: Vec<Load>,
    pub(crate) events: Vec<Event>,
    pub(crate) allowed: Allowed,
}

/// One kind of visitor.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Exchanges per second, before the steps' factors; of `sse` the events of each subscriber.
    pub(crate) rate: f64,
    /// Connections at once; of `grpc_*` those of HTTP/2, of `udp` flows, of `sse` subscribers.
    pub(crate) connections: usize,
    /// A connection (a call of `grpc_stream`) is ended after so many exchanges.
    pub(crate) per_connection: Option<u64>,
    /// Calls at once on each connection, of `grpc_*`.
    pub(crate) streams: usize,
    pub(crate) sizes: Mix,
    pub(crate) limits: Limits,
}

/// What a visitor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `GET`, and a response of some bytes.
    Http,
    /// `POST` of some bytes, and a response with their checksum.
    Upload,
    /// A message there and back.
    WebSocket,
    /// A call with one message each way.
    GrpcUnary,
    /// A message there and back within a call that goes on.
    GrpcStream,
    /// Some bytes there and back.
    TcpEcho,
    /// A connection that is sent some bytes.
    TcpDownload,
    /// A connection that sends some bytes.
    TcpUpload,
    /// A datagram there and back; lost when it has not come within this.
    Udp { response_within: Duration },
    /// Subscribers who are all sent the same events.
    Sse,
    /// Downloads that are read at this many bytes per second.
    SlowReaders { bytes_per_s: u64 },
}

impl Kind {
    /// Its name in scenarios and reports.
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

    /// Whether it is measured in bytes per second rather than exchanges per second.
    pub(crate) fn is_bulk(self) -> bool {
        matches!(
            self,
            Self::TcpDownload | Self::TcpUpload | Self::SlowReaders { .. }
        )
    }

    /// What its latency is counted from and to.
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

/// Sizes and how often each is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mix {
    /// Bytes, and the weights up to this one added up.
    sizes: Vec<(u64, u64)>,
}

impl Mix {
    /// Weights are at least 1, and there is at least one size.
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

    /// The size of exchange `number`: chosen by chance that is the same in every run.
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

/// Errors that are no reason to fail.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct Allowed {
    /// Of all exchanges of a load.
    pub(crate) percent: f64,
    /// Of these kinds only.
    #[serde(serialize_with = "names")]
    pub(crate) kinds: Vec<Failure>,
    /// Datagrams that do not come back, of those sent.
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

/// What the command line changes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Change {
    /// All loads together are due at this rate.
    pub(crate) rate: Option<f64>,
    /// The window is so long; steps and events keep their places in it.
    pub(crate) duration: Option<Duration>,
    /// Rates and connections times this.
    pub(crate) scale: Option<f64>,
}

impl Scenario {
    /// How long the window is.
    pub(crate) fn duration(&self) -> Duration {
        self.steps.iter().map(|step| step.length).sum()
    }

    /// Exchanges per second of all loads together, before the steps' factors.
    pub(crate) fn rate(&self) -> f64 {
        self.loads.iter().map(Load::offered).sum()
    }

    /// When the exchanges of a load are due: the warm-up at the rate that the window begins with, then the steps.
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

    /// The scenario as the command line wants it.
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
    /// Exchanges per second that its rate makes.
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
