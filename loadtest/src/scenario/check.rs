//! Converts a scenario file to a checked scenario.

use std::time::Duration;

use super::file::{File, FileAllowed, FileEvent, FileHow, FileKind, FileLoad, FileSide, FileStep};
use super::{Allowed, Kind, Limits, Load, Mix, Scenario};
use crate::events::{Event, How, Side};
use crate::failure::Failure;
use crate::pattern::PIECE;
use crate::schedule::Step;
use crate::services::http::EVENT_LIMIT_BYTES;

/// The place of an error, and the problem.
type Wrong = (String, String);

/// A week: a longer time is a mistake.
const LONGEST_S: f64 = 7.0 * 86_400.0;

/// More connections than one machine can have.
const MOST_CONNECTIONS: usize = 100_000;

/// The range of the length of a datagram: it must fit into UDP over IPv4, and must contain the number at its beginning.
const DATAGRAM: std::ops::RangeInclusive<u64> = 8..=65_507;

/// The largest body.
const LARGEST: u64 = 1 << 40;

fn wrong(place: impl Into<String>, problem: impl Into<String>) -> Wrong {
    (place.into(), problem.into())
}

fn seconds(place: &str, value: f64, least: f64) -> Result<Duration, Wrong> {
    if !(least..=LONGEST_S).contains(&value) {
        let problem = format!("must be from {least} to {LONGEST_S} seconds, not {value}");
        return Err(wrong(place, problem));
    }
    Ok(Duration::from_secs_f64(value))
}

fn number(place: &str, value: f64) -> Result<f64, Wrong> {
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(wrong(
        place,
        format!("must be a number from 0 on, not {value}"),
    ))
}

fn percent(place: &str, value: f64) -> Result<f64, Wrong> {
    if (0.0..=100.0).contains(&value) {
        return Ok(value);
    }
    Err(wrong(place, format!("must be from 0 to 100, not {value}")))
}

impl File {
    pub(super) fn check(self) -> Result<Scenario, Wrong> {
        if self.loads.is_empty() {
            return Err(wrong("loads", "must hold at least one load"));
        }
        let loads = self.loads.into_iter().enumerate();
        let loads = loads.map(|(at, load)| load.check(&format!("loads[{at}]")));
        let loads: Vec<Load> = loads.collect::<Result<_, _>>()?;
        for (at, load) in loads.iter().enumerate() {
            if loads[..at].iter().any(|other| other.name == load.name) {
                let problem = format!("\"{}\" is the name of another load", load.name);
                return Err(wrong(format!("loads[{at}].name"), problem));
            }
        }
        let steps = steps(self.steps, self.duration_s)?;
        let duration: Duration = steps.iter().map(|step| step.length).sum();
        if !(1..=64).contains(&self.clients) {
            return Err(wrong("clients", "must be from 1 to 64"));
        }
        let events = self.events.iter().enumerate();
        let events =
            events.map(|(at, event)| event.check(&format!("events[{at}]"), self.clients, duration));
        let mut events: Vec<Event> = events.collect::<Result<_, _>>()?;
        events.sort_by_key(|event| event.at);
        Ok(Scenario {
            name: self.name,
            about: self.about,
            warm_up: seconds("warm_up_s", self.warm_up_s, 0.0)?,
            steps,
            timeout: seconds("timeout_s", self.timeout_s, 0.001)?,
            grace: seconds("grace_s", self.grace_s, 0.0)?,
            clients: self.clients,
            loads,
            events,
            allowed: self.allowed.check()?,
        })
    }
}

fn steps(steps: Option<Vec<FileStep>>, duration_s: Option<f64>) -> Result<Vec<Step>, Wrong> {
    match (steps, duration_s) {
        (None, None) => Err(wrong("duration_s", "is missing; give it, or steps")),
        (Some(_), Some(_)) => Err(wrong(
            "duration_s",
            "must be left out if steps set the duration",
        )),
        (None, Some(duration_s)) => Ok(vec![Step {
            length: seconds("duration_s", duration_s, 0.001)?,
            from: 1.0,
            to: 1.0,
        }]),
        (Some(steps), None) if steps.is_empty() => {
            Err(wrong("steps", "must hold at least one step"))
        }
        (Some(steps), None) => {
            let steps = steps.iter().enumerate().map(|(at, step)| {
                let place = |key: &str| format!("steps[{at}].{key}");
                let from = number(&place("rate_x"), step.rate_x)?;
                Ok(Step {
                    length: seconds(&place("for_s"), step.for_s, 0.001)?,
                    from,
                    to: match step.to_x {
                        Some(to) => number(&place("to_x"), to)?,
                        None => from,
                    },
                })
            });
            steps.collect()
        }
    }
}

impl FileLoad {
    fn check(self, place: &str) -> Result<Load, Wrong> {
        let at = |key: &str| format!("{place}.{key}");
        let kind = self.kind(place)?;
        let name = self.name.clone().unwrap_or_else(|| kind.name().to_owned());
        let rate = match (self.rate, kind) {
            (Some(_), Kind::SlowReaders { .. }) => {
                let problem = "is not for slow_readers: they always read; give bytes_per_s";
                return Err(wrong(at("rate"), problem));
            }
            (None, Kind::SlowReaders { .. }) => 0.0,
            (Some(rate), _) if rate.is_finite() && rate > 0.0 && rate <= 1e7 => rate,
            (Some(rate), _) => {
                let problem = format!("must be above 0 and at most 10000000, not {rate}");
                return Err(wrong(at("rate"), problem));
            }
            (None, _) => {
                let problem = "is missing: how many exchanges are due in a second";
                return Err(wrong(at("rate"), problem));
            }
        };
        if !(1..=MOST_CONNECTIONS).contains(&self.connections) {
            let problem = format!("must be from 1 to {MOST_CONNECTIONS}");
            return Err(wrong(at("connections"), problem));
        }
        if self.sizes.is_empty() {
            return Err(wrong(at("sizes"), "must hold at least one size"));
        }
        for (index, size) in self.sizes.iter().enumerate() {
            let range = sizes(kind);
            if !range.contains(&size.bytes) {
                let (least, most) = (range.start(), range.end());
                let problem = format!(
                    "must be from {least} to {most} for {}, not {}",
                    kind.name(),
                    size.bytes
                );
                return Err(wrong(at(&format!("sizes[{index}].bytes")), problem));
            }
            if size.weight == 0 {
                let place = at(&format!("sizes[{index}].weight"));
                return Err(wrong(place, "must be at least 1"));
            }
        }
        let one_size = matches!(kind, Kind::Sse | Kind::SlowReaders { .. });
        if one_size && self.sizes.len() > 1 {
            let problem = format!("of {} must hold one size", kind.name());
            return Err(wrong(at("sizes"), problem));
        }
        let once = matches!(kind, Kind::TcpDownload | Kind::TcpUpload);
        let shared = matches!(kind, Kind::GrpcUnary);
        match self.requests_per_connection {
            Some(0) => {
                return Err(wrong(at("requests_per_connection"), "must be at least 1"));
            }
            Some(_) if once || shared || one_size => {
                let problem = format!("is not for {}", kind.name());
                return Err(wrong(at("requests_per_connection"), problem));
            }
            _ => {}
        }
        let streams = match (self.streams_per_connection, kind) {
            (None, _) => 1,
            (Some(streams @ 1..=10_000), Kind::GrpcUnary | Kind::GrpcStream) => streams,
            (Some(_), Kind::GrpcUnary | Kind::GrpcStream) => {
                let problem = "must be from 1 to 10000";
                return Err(wrong(at("streams_per_connection"), problem));
            }
            (Some(_), _) => {
                let problem = "is for grpc_unary and grpc_stream only";
                return Err(wrong(at("streams_per_connection"), problem));
            }
        };
        let limit = |key: &str, value: Option<f64>| {
            let place = at(&format!("limits.{key}"));
            value.map(|ms| seconds(&place, ms / 1e3, 0.0)).transpose()
        };
        let limits = Limits {
            p50: limit("p50_ms", self.limits.p50_ms)?,
            p99: limit("p99_ms", self.limits.p99_ms)?,
            p99_9: limit("p99_9_ms", self.limits.p99_9_ms)?,
            max: limit("max_ms", self.limits.max_ms)?,
        };
        Ok(Load {
            name,
            kind,
            rate,
            connections: self.connections,
            per_connection: self.requests_per_connection,
            streams,
            sizes: Mix::new(self.sizes.iter().map(|size| (size.bytes, size.weight))),
            limits,
        })
    }

    fn kind(&self, place: &str) -> Result<Kind, Wrong> {
        let at = |key: &str| format!("{place}.{key}");
        let kind = match self.kind {
            FileKind::Http => Kind::Http,
            FileKind::Upload => Kind::Upload,
            FileKind::Websocket => Kind::WebSocket,
            FileKind::GrpcUnary => Kind::GrpcUnary,
            FileKind::GrpcStream => Kind::GrpcStream,
            FileKind::TcpEcho => Kind::TcpEcho,
            FileKind::TcpDownload => Kind::TcpDownload,
            FileKind::TcpUpload => Kind::TcpUpload,
            FileKind::Sse => Kind::Sse,
            FileKind::Udp => {
                let within = self.response_within_ms.unwrap_or(500);
                if !(1..=60_000).contains(&within) {
                    return Err(wrong(at("response_within_ms"), "must be from 1 to 60000"));
                }
                Kind::Udp {
                    response_within: Duration::from_millis(within),
                }
            }
            FileKind::SlowReaders => match self.bytes_per_s {
                Some(bytes_per_s @ 1..) => Kind::SlowReaders { bytes_per_s },
                _ => {
                    let problem = "is needed for slow_readers, and must be at least 1";
                    return Err(wrong(at("bytes_per_s"), problem));
                }
            },
        };
        if self.bytes_per_s.is_some() && !matches!(kind, Kind::SlowReaders { .. }) {
            return Err(wrong(at("bytes_per_s"), "is for slow_readers only"));
        }
        if self.response_within_ms.is_some() && !matches!(kind, Kind::Udp { .. }) {
            return Err(wrong(at("response_within_ms"), "is for udp only"));
        }
        Ok(kind)
    }
}

fn sizes(kind: Kind) -> std::ops::RangeInclusive<u64> {
    match kind {
        Kind::Udp { .. } => DATAGRAM,
        Kind::Sse => 0..=EVENT_LIMIT_BYTES,
        Kind::WebSocket | Kind::GrpcUnary | Kind::GrpcStream | Kind::TcpEcho => 1..=PIECE as u64,
        _ => 0..=LARGEST,
    }
}

impl FileEvent {
    fn check(&self, place: &str, clients: usize, duration: Duration) -> Result<Event, Wrong> {
        let at = |key: &str| format!("{place}.{key}");
        let when = seconds(&at("at_s"), self.at_s, 0.0)?;
        if when >= duration {
            let problem = format!("must be before the end, after {} s", duration.as_secs_f64());
            return Err(wrong(at("at_s"), problem));
        }
        let side = match (self.restart, self.client) {
            (FileSide::Server, None) => Side::Server,
            (FileSide::Server, Some(_)) => {
                return Err(wrong(at("client"), "is not for an event of the server"));
            }
            (FileSide::Client, client) => {
                let client = client.unwrap_or(0);
                if client >= clients {
                    let problem = format!("there are {clients} clients, counted from 0");
                    return Err(wrong(at("client"), problem));
                }
                Side::Client(client)
            }
        };
        Ok(Event {
            at: when,
            side,
            how: match self.how {
                FileHow::Kill => How::Kill,
                FileHow::Drain => How::Drain,
            },
            down: seconds(&at("down_s"), self.down_s, 0.0)?,
        })
    }
}

impl FileAllowed {
    fn check(&self) -> Result<Allowed, Wrong> {
        let kinds = self.kinds.iter().enumerate().map(|(at, name)| {
            let place = format!("allowed.kinds[{at}]");
            let kind = Failure::ALL.into_iter().find(|kind| kind.name() == name);
            match kind {
                // A tunnel that changes bytes is faulty in any case.
                Some(Failure::WrongBytes | Failure::Sequence) => {
                    Err(wrong(place, format!("{name} is never allowed")))
                }
                Some(kind) => Ok(kind),
                None => {
                    let known: Vec<_> = Failure::ALL.iter().map(|kind| kind.name()).collect();
                    let problem =
                        format!("unknown \"{name}\", expected one of {}", known.join(", "));
                    Err(wrong(place, problem))
                }
            }
        });
        Ok(Allowed {
            percent: percent("allowed.percent", self.percent)?,
            kinds: kinds.collect::<Result<_, _>>()?,
            loss_percent: percent("allowed.loss_percent", self.loss_percent)?,
        })
    }
}
