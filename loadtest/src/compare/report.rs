//! The report of a comparison: figures per run, their medians, and ratios.

use serde::Serialize;

use crate::compare::scenario::{Judge, Scenario};
use crate::compare::targets::Target;
use crate::failure::Failures;
use crate::kernel::Kernel;
use crate::latency::Latency;
use crate::procfs::Machine;

/// A run of one scenario against one target.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Run {
    pub(crate) round: usize,
    pub(crate) scenario: String,
    pub(crate) target: Target,
    /// The length of the measured window.
    pub(crate) elapsed_s: f64,
    pub(crate) requests: u64,
    pub(crate) body_bytes: u64,
    pub(crate) failures: Failures,
    pub(crate) latency: Latency,
    pub(crate) cost: Cost,
    /// Resident memory of the tunnel's processes before any load.
    pub(crate) idle_kib: u64,
    /// The highest memory of the processes during this run.
    pub(crate) peak_kib: u64,
}

/// CPU seconds spent in the measured window.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Cost {
    /// The CPU time of each process of the tunnel.
    pub(crate) tunnel_s: Vec<(String, f64)>,
    pub(crate) service_s: f64,
    pub(crate) generator_s: f64,
}

impl Cost {
    /// The CPU time of all the tunnel's processes; `None` without a tunnel.
    fn tunnel(&self) -> f64 {
        if self.tunnel_s.is_empty() {
            return f64::NAN;
        }
        self.tunnel_s.iter().map(|(_, seconds)| seconds).sum()
    }
}

/// System calls per request, by process of the tunnel.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Calls {
    pub(crate) scenario: String,
    pub(crate) target: Target,
    pub(crate) per_request: Vec<(String, f64)>,
}

/// The figures by which runs are compared. They are figures of one run; the report contains their medians.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Requests per second, or Gbit per second.
    pub(crate) rate: f64,
    /// CPU of the tunnel's processes: microseconds per request, or
    /// milliseconds per GiB.
    pub(crate) tunnel_cpu: f64,
    /// CPU of all processes (tunnel, service and generator), in the unit of `tunnel_cpu`.
    pub(crate) all_cpu: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) peak_kib: f64,
}

impl Figures {
    fn of(run: &Run, judge: Judge) -> Self {
        let tunnel = run.cost.tunnel();
        let others = run.cost.service_s + run.cost.generator_s;
        let all = others + if tunnel.is_nan() { 0.0 } else { tunnel };
        let requests = run.requests as f64;
        let bytes = run.body_bytes as f64;
        let gib = bytes / f64::from(1 << 30);
        let (rate, tunnel_cpu, all_cpu) = match judge {
            Judge::Requests => (
                requests / run.elapsed_s,
                tunnel * 1e6 / requests,
                all * 1e6 / requests,
            ),
            Judge::Bytes => (
                bytes * 8.0 / 1e9 / run.elapsed_s,
                tunnel * 1e3 / gib,
                all * 1e3 / gib,
            ),
        };
        Self {
            rate,
            tunnel_cpu,
            all_cpu,
            p50_us: run.latency.p50_us as f64,
            p99_us: run.latency.p99_us as f64,
            peak_kib: if tunnel.is_nan() {
                f64::NAN
            } else {
                run.peak_kib as f64
            },
        }
    }

    fn combine(all: &[Self], by: impl Fn(&[f64]) -> f64) -> Self {
        let each = |field: fn(&Self) -> f64| by(&all.iter().map(field).collect::<Vec<_>>());
        Self {
            rate: each(|it| it.rate),
            tunnel_cpu: each(|it| it.tunnel_cpu),
            all_cpu: each(|it| it.all_cpu),
            p50_us: each(|it| it.p50_us),
            p99_us: each(|it| it.p99_us),
            peak_kib: each(|it| it.peak_kib),
        }
    }

    fn over(&self, other: &Self) -> Self {
        Self {
            rate: self.rate / other.rate,
            tunnel_cpu: self.tunnel_cpu / other.tunnel_cpu,
            all_cpu: self.all_cpu / other.all_cpu,
            p50_us: self.p50_us / other.p50_us,
            p99_us: self.p99_us / other.p99_us,
            peak_kib: self.peak_kib / other.peak_kib,
        }
    }
}

/// The middle value; for an even number of values, the mean of the middle two. Values that are not numbers (nothing was
/// measured) are ignored.
fn median(values: &[f64]) -> f64 {
    let mut values: Vec<f64> = values.iter().copied().filter(|it| it.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// The row of one target for one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) target: Target,
    /// The median of the rounds.
    pub(crate) median: Figures,
    /// The median CPU cost of each process of the tunnel, in the scenario's unit.
    pub(crate) tunnel_cpu_by_process: Vec<(String, f64)>,
    /// The median of the rounds' ratios to the reference; `None` for the reference itself, or if the reference was not
    /// run.
    pub(crate) ratio: Option<Figures>,
    /// The median resident memory before any load.
    pub(crate) idle_kib: f64,
    pub(crate) failures: u64,
    /// System calls per request by process, if they were counted.
    pub(crate) calls: Option<Vec<(String, f64)>>,
}

/// The rows of one scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) scenario: Scenario,
    pub(crate) rows: Vec<Row>,
}

/// The date, machine and programs of a report: numbers without these are not kept.
#[derive(Debug, Serialize)]
pub(crate) struct Setup {
    pub(crate) date: String,
    pub(crate) commit: String,
    pub(crate) machine: Machine,
    pub(crate) scenarios: String,
    pub(crate) about: String,
    pub(crate) rounds: usize,
    pub(crate) warm_up_s: f64,
    pub(crate) duration_s: f64,
    /// The contender that ratios refer to.
    pub(crate) reference: Target,
}

/// A complete comparison.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) setup: Setup,
    /// The kernel's counters from the first run to the last.
    pub(crate) kernel: Kernel,
    /// Conditions that make the comparison unreliable.
    pub(crate) warnings: Vec<String>,
    pub(crate) sections: Vec<Section>,
    /// All runs from which the medians are computed.
    pub(crate) runs: Vec<Run>,
}

impl Report {
    /// Creates the report from the runs.
    pub(crate) fn new(
        setup: Setup,
        scenarios: &[Scenario],
        runs: Vec<Run>,
        calls: &[Calls],
        kernel: Kernel,
    ) -> Self {
        let sections = scenarios
            .iter()
            .map(|scenario| Section {
                scenario: scenario.clone(),
                rows: rows(scenario, setup.reference, &runs, calls),
            })
            .collect();
        Self {
            setup,
            warnings: kernel.warnings(),
            kernel,
            sections,
            runs,
        }
    }
}

fn rows(scenario: &Scenario, reference: Target, runs: &[Run], calls: &[Calls]) -> Vec<Row> {
    let runs: Vec<&Run> = runs
        .iter()
        .filter(|run| run.scenario == scenario.name)
        .collect();
    let mut targets: Vec<Target> = Vec::new();
    for run in &runs {
        if !targets.contains(&run.target) {
            targets.push(run.target);
        }
    }
    // The order is that of the enum, not that of the first round.
    targets.sort_by_key(|target| *target as usize);
    let of = |target| runs.iter().copied().filter(move |run| run.target == target);
    targets
        .iter()
        .map(|target| {
            let mine: Vec<&Run> = of(*target).collect();
            let figures: Vec<Figures> = mine
                .iter()
                .map(|run| Figures::of(run, scenario.judge))
                .collect();
            let ratios: Vec<Figures> = mine
                .iter()
                .zip(&figures)
                .filter_map(|(run, figures)| {
                    let beside = of(reference).find(|other| other.round == run.round)?;
                    Some(figures.over(&Figures::of(beside, scenario.judge)))
                })
                .collect();
            let compared = *target != reference && !ratios.is_empty();
            Row {
                target: *target,
                median: Figures::combine(&figures, median),
                tunnel_cpu_by_process: by_process(&mine, scenario.judge),
                ratio: compared.then(|| Figures::combine(&ratios, median)),
                idle_kib: median(
                    &mine
                        .iter()
                        .map(|run| run.idle_kib as f64)
                        .collect::<Vec<_>>(),
                ),
                failures: mine.iter().map(|run| run.failures.total()).sum(),
                calls: calls
                    .iter()
                    .find(|calls| calls.target == *target && calls.scenario == scenario.name)
                    .map(|calls| calls.per_request.clone()),
            }
        })
        .collect()
}

fn by_process(runs: &[&Run], judge: Judge) -> Vec<(String, f64)> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let per_unit = |run: &Run, seconds: f64| match judge {
        Judge::Requests => seconds * 1e6 / run.requests as f64,
        Judge::Bytes => seconds * 1e3 / (run.body_bytes as f64 / f64::from(1 << 30)),
    };
    let one = |place: usize| {
        let values = runs
            .iter()
            .filter_map(|run| Some(per_unit(run, run.cost.tunnel_s.get(place)?.1)));
        median(&values.collect::<Vec<_>>())
    };
    first
        .cost
        .tunnel_s
        .iter()
        .enumerate()
        .map(|(place, (name, _))| (name.clone(), one(place)))
        .collect()
}

#[cfg(test)]
#[path = "report_tests.rs"]
mod tests;
