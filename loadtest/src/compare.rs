//! Runs every scenario against every target, side by side, over some rounds.
//!
//! Promises: within a round all targets run at the same time in front of one service, and are loaded one after the
//! other in an order that changes with the round and the scenario; each round starts the targets again. A ratio is
//! taken within a round, between runs that are close in time, and the median of the rounds' ratios is the result: a
//! machine that is slow for a while affects one round, but not the result.

pub(crate) mod report;
pub(crate) mod scenario;
mod strace;
pub(crate) mod tables;
pub(crate) mod targets;

use std::path::Path;
use std::time::Duration;

use crate::compare::report::{Calls, Cost, Run};
use crate::compare::scenario::{Judge, Scenario};
use crate::compare::strace::{Strace, StraceError};
use crate::compare::targets::{Programs, Running, Target};
use crate::failure::Failures;
use crate::generator::{self, Outcome, Plan, RunError};
use crate::latency::Latency;
use crate::process::ProcessError;
use crate::procfs::{self, Cpu, Memory};
use crate::services::Hosted;

/// The duration of a run under strace: long enough for thousands of requests. The speed of the run is not used.
const STRACE_WINDOW: Duration = Duration::from_secs(1);

/// The settings of a comparison.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    pub(crate) targets: Vec<Target>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) duration: Duration,
    pub(crate) strace: bool,
    pub(crate) programs: Programs,
}

/// The comparison could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompareError {
    /// A program did not start, or ended.
    #[error("{target}: {source}")]
    Program {
        /// The target of the program.
        target: &'static str,
        /// The error of the process.
        source: ProcessError,
    },
    /// The CPU time and memory of a measured process could not be read.
    #[error("{target}: cannot read its processes' CPU time and memory: {source}")]
    Observe {
        /// The target of the process.
        target: &'static str,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A scenario cannot be run.
    #[error("scenario \"{scenario}\": {source}")]
    Run {
        /// The scenario's name.
        scenario: String,
        /// Why the scenario cannot be run.
        source: RunError,
    },
}

/// All measurements.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    /// All runs, in the order they were made.
    pub(crate) runs: Vec<Run>,
    /// System calls, if `strace` was requested.
    pub(crate) calls: Vec<Calls>,
    /// The targets whose system calls could not be counted; their runs are valid without the counts.
    pub(crate) uncounted: Vec<(Target, StraceError)>,
}

/// Runs the comparison; `on_run` is called after each run.
///
/// # Errors
/// [`CompareError`]; requests that fail are part of a run instead.
///
/// # Cancel safety
/// Dropping the future kills every process it started.
pub(crate) async fn compare(
    comparison: &Comparison,
    dir: &Path,
    mut on_run: impl FnMut(&Run),
) -> Result<Measured, CompareError> {
    let mut measured = Measured::default();
    for round in 0..comparison.rounds {
        let mut bench = Bench::start(comparison, dir).await?;
        for (index, scenario) in comparison.scenarios.iter().enumerate() {
            for place in order(round, index, bench.targets.len()) {
                let run = bench.run(comparison, scenario, round, place).await?;
                on_run(&run);
                measured.runs.push(run);
            }
        }
        if comparison.strace && round + 1 == comparison.rounds {
            bench.count_all_calls(comparison, dir, &mut measured).await;
        }
        bench.stop().await;
    }
    Ok(measured)
}

/// The order in which `targets` targets are loaded: each round and scenario begins with another target, and every other
/// round has the reverse order, so that no contender always follows the same other contender.
fn order(round: usize, scenario: usize, targets: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order.rotate_left((round / 2 + scenario) % targets.max(1));
    order
}

/// The processes of one round.
struct Bench {
    service: Hosted,
    targets: Vec<Running>,
    /// The memory of each target before its first load.
    idle: Vec<Memory>,
}

struct Sample {
    tunnel: std::io::Result<Vec<Cpu>>,
    service: std::io::Result<Cpu>,
    generator: std::io::Result<Cpu>,
}

impl Bench {
    async fn start(comparison: &Comparison, dir: &Path) -> Result<Self, CompareError> {
        let program = |target| move |source| CompareError::Program { target, source };
        let service = Hosted::start(dir).await.map_err(program("service"))?;
        let mut targets = Vec::new();
        let mut idle = Vec::new();
        for target in &comparison.targets {
            let running =
                Running::start(*target, &comparison.programs, service.addresses.http, dir)
                    .await
                    .map_err(program(target.name()))?;
            idle.push(observe(target.name(), Memory::of(&running.pids()))?);
            targets.push(running);
        }
        Ok(Self {
            service,
            targets,
            idle,
        })
    }

    async fn run(
        &mut self,
        comparison: &Comparison,
        scenario: &Scenario,
        round: usize,
        place: usize,
    ) -> Result<Run, CompareError> {
        let service_pid = self.service.process.pid();
        let running = &mut self.targets[place];
        let (name, pids) = (running.target.name(), running.pids());
        procfs::reset_peak(&pids);
        let sample = || Sample {
            tunnel: pids.iter().map(|pid| Cpu::of(&[*pid])).collect(),
            service: Cpu::of(&[service_pid]),
            generator: Cpu::of(&[std::process::id()]),
        };
        let plan = plan(
            scenario,
            running,
            comparison.warm_up,
            scenario.duration(comparison.duration),
        );
        let outcome = generator::run(plan, sample)
            .await
            .map_err(|source| CompareError::Run {
                scenario: scenario.name.clone(),
                source,
            })?;
        running
            .check_running()
            .map_err(|source| CompareError::Program {
                target: name,
                source,
            })?;
        let memory = observe(name, Memory::of(&pids))?;
        let processes = running
            .processes
            .iter()
            .map(|process| process.name().to_owned())
            .collect();
        let cost = observe(name, cost(processes, &outcome))?;
        Ok(Run {
            round,
            scenario: scenario.name.clone(),
            target: running.target,
            elapsed_s: outcome.elapsed.as_secs_f64(),
            requests: outcome.requests,
            body_bytes: outcome.body_bytes,
            failures: outcome.failures,
            latency: Latency::of(&outcome.latency_us),
            cost,
            idle_kib: self.idle[place].resident_kib,
            peak_kib: memory.peak_kib,
        })
    }

    async fn count_all_calls(&self, comparison: &Comparison, dir: &Path, measured: &mut Measured) {
        let window = STRACE_WINDOW.min(comparison.duration);
        let small = |it: &&Scenario| it.judge == Judge::Requests;
        for scenario in comparison.scenarios.iter().filter(small) {
            // Direct has no tunnel processes to trace.
            let tunnels = self.targets.iter().filter(|it| !it.processes.is_empty());
            for running in tunnels {
                match count_calls(running, scenario, window, dir).await {
                    Ok(calls) => measured.calls.push(calls),
                    Err(error) => measured.uncounted.push((running.target, error)),
                }
            }
        }
    }

    async fn stop(self) {
        for running in self.targets {
            running.stop().await;
        }
        self.service.process.stop().await;
    }
}

/// Loads a tunnel while strace traces its processes.
async fn count_calls(
    running: &Running,
    scenario: &Scenario,
    window: Duration,
    dir: &Path,
) -> Result<Calls, StraceError> {
    let mut tracers = Vec::new();
    for process in &running.processes {
        let tracer = Strace::attach(process.pid(), dir).await?;
        tracers.push((process.name(), tracer));
    }
    // There is no warm-up: strace counts from the first connection on, and the requests must be counted from there,
    // too.
    let plan = plan(scenario, running, Duration::ZERO, window);
    let outcome = generator::run(plan, || ()).await?;
    let requests = outcome.latency_us.len().max(1);
    let mut per_request = Vec::new();
    for (process, tracer) in tracers {
        let calls = tracer.finish().await?;
        per_request.push((process.to_owned(), calls as f64 / requests as f64));
    }
    let (scenario, target) = (scenario.name.clone(), running.target);
    Ok(Calls {
        scenario,
        target,
        per_request,
    })
}

fn plan(scenario: &Scenario, running: &Running, warm_up: Duration, duration: Duration) -> Plan {
    Plan {
        target: running.entry,
        host: running.host.clone(),
        path: scenario.path.clone(),
        connections: scenario.connections,
        new_connection: scenario.new_connection,
        rate: scenario.rate,
        warm_up,
        duration,
        read_bytes: scenario.read_bytes(),
        progress: false,
    }
}

fn observe<T>(target: &'static str, read: std::io::Result<T>) -> Result<T, CompareError> {
    read.map_err(|source| CompareError::Observe { target, source })
}

/// The CPU time between the two samples of a run.
fn cost(processes: Vec<String>, outcome: &Outcome<Sample>) -> std::io::Result<Cost> {
    fn of<T>(sample: &std::io::Result<T>) -> std::io::Result<&T> {
        sample
            .as_ref()
            .map_err(|error| std::io::Error::new(error.kind(), error.to_string()))
    }
    let (before, after) = (&outcome.before, &outcome.after);
    let (tunnel_before, tunnel_after) = (of(&before.tunnel)?, of(&after.tunnel)?);
    let spent = tunnel_after
        .iter()
        .zip(tunnel_before)
        .map(|(now, then)| now.since(then).as_secs_f64());
    Ok(Cost {
        tunnel_s: processes.into_iter().zip(spent).collect(),
        service_s: of(&after.service)?
            .since(of(&before.service)?)
            .as_secs_f64(),
        generator_s: of(&after.generator)?
            .since(of(&before.generator)?)
            .as_secs_f64(),
    })
}

/// The runs that had failed requests, for the summary.
pub(crate) fn failures(runs: &[Run]) -> Vec<(&Run, &Failures)> {
    runs.iter()
        .map(|run| (run, &run.failures))
        .filter(|(_, failures)| failures.total() > 0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_runs_once_and_begins_once() {
        for targets in 1..=4 {
            let mut first = vec![false; targets];
            for round in 0..2 * targets {
                let mut order = order(round, 0, targets);
                first[order[0]] = true;
                order.sort_unstable();
                assert_eq!(order, (0..targets).collect::<Vec<_>>());
            }
            assert!(first.iter().all(|it| *it), "{targets} targets");
        }
    }

    #[test]
    fn neighbours_change_from_round_to_round() {
        assert_eq!(order(0, 0, 3), [0, 1, 2]);
        assert_eq!(order(1, 0, 3), [2, 1, 0]);
        assert_eq!(order(2, 0, 3), [1, 2, 0]);
        assert_eq!(order(0, 1, 3), [1, 2, 0]);
        assert!(order(0, 0, 0).is_empty());
    }
}
