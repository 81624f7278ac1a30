//! The results of a run: for a terminal, as JSON, and as one HTML page.

mod html;
mod plots;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde::Serialize;

pub(crate) use self::html::{PageError, page};
pub(crate) use self::table::terminal;
use crate::failure::Failures;
use crate::kernel::Kernel;
use crate::procfs::Machine;
use crate::runner::{EventOutcome, LoadOutcome, Outcome};
use crate::scenario::{Allowed, Scenario};
use crate::series::Second;
use crate::tally::Recovery;

/// The date, machine and programs of a report: numbers without these are not kept.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Setup {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) target: String,
    /// The command line that made the report, so that the run can be repeated.
    pub(crate) command: String,
}

/// A complete report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) about: String,
    pub(crate) setup: Setup,
    pub(crate) warm_up_s: f64,
    /// The measured length of the window.
    pub(crate) window_s: f64,
    pub(crate) clients: usize,
    pub(crate) allowed: Allowed,
    pub(crate) loads: Vec<LoadReport>,
    pub(crate) events: Vec<EventReport>,
    /// The kernel's counters over the whole run.
    pub(crate) kernel: Kernel,
    /// Conditions that make this result unreliable.
    pub(crate) warnings: Vec<String>,
    /// Why the run failed; empty when it passed.
    pub(crate) problems: Vec<String>,
}

/// The result of one load.
#[derive(Debug, Serialize)]
pub(crate) struct LoadReport {
    pub(crate) name: String,
    pub(crate) kind: &'static str,
    pub(crate) is_bulk: bool,
    pub(crate) connections: usize,
    pub(crate) streams_per_connection: usize,
    pub(crate) requests_per_connection: Option<u64>,
    /// Exchanges that were completed in the window.
    pub(crate) completed: u64,
    pub(crate) completed_per_s: f64,
    pub(crate) bytes: u64,
    pub(crate) bytes_per_s: f64,
    /// The start and the end of a latency.
    pub(crate) latency_is: &'static str,
    pub(crate) latency: Latencies,
    /// All latencies in microseconds, as HdrHistogram V2 (deflate, base64): histograms of several runs can be merged.
    pub(crate) histogram_v2: String,
    /// Errors of the whole run by kind.
    pub(crate) errors: Failures,
    pub(crate) error_details: BTreeMap<String, u64>,
    /// Lost datagrams of the whole run.
    pub(crate) lost: u64,
    pub(crate) loss_percent: f64,
    pub(crate) doubled: u64,
    pub(crate) seconds: Vec<Second>,
    /// Exchanges that were due in each second.
    pub(crate) offered_per_s: Vec<f64>,
    /// Latencies by percentile: (percentile, microseconds).
    #[serde(skip)]
    pub(crate) percentiles: Vec<(f64, u64)>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: u64,
    pub(crate) p90_us: u64,
    pub(crate) p99_us: u64,
    pub(crate) p99_9_us: u64,
    pub(crate) p99_99_us: u64,
    pub(crate) max_us: u64,
}

/// The result of one event.
#[derive(Debug, Serialize)]
pub(crate) struct EventReport {
    pub(crate) at_s: f64,
    pub(crate) what: String,
    /// `None` if the side did not return.
    pub(crate) took_s: Option<f64>,
    /// For each load, milliseconds from the beginning of the event to the first good response after the first failure;
    /// `None` if there was no good response.
    pub(crate) recovered_ms: BTreeMap<String, Option<f64>>,
    /// Loads without a failure after the event.
    pub(crate) without_failure: Vec<String>,
}

impl Report {
    /// Creates the report from the outcome of a run.
    pub(crate) fn new(
        scenario: &Scenario,
        setup: Setup,
        outcome: &Outcome,
        kernel: Kernel,
    ) -> Self {
        let loads: Vec<LoadReport> = outcome.loads.iter().map(LoadReport::new).collect();
        let events: Vec<EventReport> = outcome
            .events
            .iter()
            .map(|event| EventReport::new(event, &outcome.loads))
            .collect();
        let of_loads = outcome.loads.iter();
        let problems = outcome
            .problems
            .iter()
            .cloned()
            .chain(of_loads.flat_map(|load| problems(load, &scenario.allowed)))
            .chain(
                outcome
                    .events
                    .iter()
                    .flat_map(|event| silent(event, &outcome.loads)),
            )
            .collect();
        Self {
            scenario: scenario.name.clone(),
            about: scenario.about.clone(),
            setup,
            warm_up_s: scenario.warm_up.as_secs_f64(),
            window_s: outcome.elapsed.as_secs_f64(),
            clients: scenario.clients,
            allowed: scenario.allowed.clone(),
            events,
            loads,
            warnings: kernel.warnings(),
            kernel,
            problems,
        }
    }

    /// Whether all limits of the scenario were met.
    pub(crate) fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

impl EventReport {
    fn new(event: &EventOutcome, loads: &[LoadOutcome]) -> Self {
        let (mut recovered_ms, mut without_failure) = (BTreeMap::new(), Vec::new());
        for (load, recovery) in loads.iter().zip(&event.recovered) {
            let name = load.load.name.clone();
            match recovery {
                Recovery::After(after) => {
                    recovered_ms.insert(name, Some(after.as_secs_f64() * 1e3));
                }
                Recovery::WithoutFailure => without_failure.push(name),
                Recovery::Missing | Recovery::NothingDue => {
                    recovered_ms.insert(name, None);
                }
            }
        }
        Self {
            at_s: event.began.as_secs_f64(),
            what: event.event.to_string(),
            took_s: event.took.map(|took| took.as_secs_f64()),
            recovered_ms,
            without_failure,
        }
    }
}

/// The loads that had no good response after an event, although something was due after it.
fn silent(event: &EventOutcome, loads: &[LoadOutcome]) -> Vec<String> {
    let at = event.began.as_secs_f64();
    let loads = loads.iter().zip(&event.recovered);
    let missing = loads.filter(|(_, recovery)| **recovery == Recovery::Missing);
    let problems = missing.map(|(load, _)| {
        let name = &load.load.name;
        format!(
            "{name}: no good response after the event at {at:.1} s ({})",
            event.event
        )
    });
    problems.collect()
}

impl LoadReport {
    fn new(outcome: &LoadOutcome) -> Self {
        let load = &outcome.load;
        let seconds = outcome.window.elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        Self {
            name: load.name.clone(),
            kind: load.kind.name(),
            is_bulk: load.kind.is_bulk(),
            connections: load.connections,
            streams_per_connection: load.streams,
            requests_per_connection: load.per_connection,
            completed: outcome.window.requests,
            completed_per_s: outcome.window.requests as f64 / seconds,
            bytes: outcome.window.body_bytes,
            bytes_per_s: outcome.window.body_bytes as f64 / seconds,
            latency_is: load.kind.latency(),
            latency: Latencies::of(&outcome.histogram),
            histogram_v2: encode(&outcome.histogram),
            errors: outcome.failures.clone(),
            error_details: outcome.details.clone(),
            lost: outcome.lost,
            loss_percent: share(outcome.lost, outcome.completed),
            doubled: outcome.doubled,
            seconds: outcome.seconds.clone(),
            offered_per_s: outcome.offered.clone(),
            percentiles: percentiles(&outcome.histogram),
        }
    }
}

/// `part` in percent of `part + rest`.
fn share(part: u64, rest: u64) -> f64 {
    100.0 * part as f64 / (part + rest).max(1) as f64
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Self {
            count: histogram.len(),
            mean_us: histogram.mean(),
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: histogram.max(),
        }
    }
}

/// The histogram as text; empty if it could not be encoded, which cannot happen with a `Vec`.
fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => STANDARD.encode(bytes),
        Err(_) => String::new(),
    }
}

/// Percentiles that are denser near the maximum, up to the point where a single value remains: the maximum.
fn percentiles(histogram: &Histogram<u64>) -> Vec<(f64, u64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let count = histogram.len() as f64;
    let mut points: Vec<(f64, u64)> = histogram
        .iter_quantiles(8)
        .map(|at| (at.quantile_iterated_to(), at.value_iterated_to()))
        .take_while(|(quantile, _)| (1.0 - quantile) * count >= 1.0)
        .map(|(quantile, micros)| (100.0 * quantile, micros))
        .collect();
    points.push((100.0 * (1.0 - 1.0 / count), histogram.max()));
    points
}

/// The failures of a load that the scenario does not allow.
fn problems(outcome: &LoadOutcome, allowed: &Allowed) -> Vec<String> {
    let mut problems = Vec::new();
    let (load, failures) = (&outcome.load, &outcome.failures);
    let name = &load.name;
    let tolerated: u64 = allowed.kinds.iter().map(|kind| failures.of(*kind)).sum();
    let strict = failures.total() - tolerated;
    if strict > 0 {
        let rest = failures.without(&allowed.kinds);
        problems.push(format!("{name}: {strict} errors: {rest}"));
    }
    let percent = share(tolerated, outcome.completed);
    if tolerated > 0 && percent > allowed.percent {
        problems.push(format!(
            "{name}: {percent:.3} % of errors, {} % are allowed: {failures}",
            allowed.percent
        ));
    }
    let loss = share(outcome.lost, outcome.completed);
    if loss > allowed.loss_percent {
        problems.push(format!(
            "{name}: {loss:.3} % of the datagrams lost, {} % are allowed",
            allowed.loss_percent
        ));
    }
    if outcome.completed == 0 {
        problems.push(format!("{name}: nothing was completed"));
    }
    let limits = [
        ("p50", 0.5, load.limits.p50),
        ("p99", 0.99, load.limits.p99),
        ("p99.9", 0.999, load.limits.p99_9),
        ("max", 1.0, load.limits.max),
    ];
    for (what, quantile, limit) in limits {
        let Some(limit) = limit else { continue };
        let measured = quantile_with_failures(&outcome.histogram, outcome.failed, quantile);
        if measured.is_none_or(|measured| measured > limit) {
            let measured = measured.map_or("a failure".to_owned(), |it| format!("{it:?}"));
            problems.push(format!(
                "{name}: {what} is {measured}, the limit is {limit:?}"
            ));
        }
    }
    problems
}

/// A quantile of all exchanges, where a failed exchange has an infinite latency (`None`).
fn quantile_with_failures(
    histogram: &Histogram<u64>,
    failed: u64,
    quantile: f64,
) -> Option<Duration> {
    let completed = histogram.len() as f64;
    let rank = quantile * (completed + failed as f64);
    if failed > 0 && rank > completed {
        return None;
    }
    let within = (rank / completed.max(1.0)).min(1.0);
    Some(Duration::from_micros(histogram.value_at_quantile(within)))
}

#[cfg(test)]
#[path = "report/tests.rs"]
mod tests;
