//! `compare`, `protocols`, `isolation`, and their parts as separate commands.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{CliError, beside, scratch, seconds, write};
use crate::commit;
use crate::compare::report::{Report, Run, Setup};
use crate::compare::scenario::ScenarioFile;
use crate::compare::targets::{Programs, Target};
use crate::compare::{self, Comparison, tables};
use crate::download;
use crate::generator::{self, Plan};
use crate::kernel::Counters;
use crate::latency::{self, Latency};
use crate::procfs::Machine;
use crate::protocols::{self, Measurement};

/// The entry that requests are sent to.
#[derive(Debug, Args)]
pub(crate) struct Entry {
    /// Public entry, such as http://127.0.0.1:8080.
    #[arg(long, value_name = "URL")]
    target: String,
    /// `Host` field; without it, that of the URL.
    #[arg(long)]
    host: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Http {
    #[command(flatten)]
    entry: Entry,
    /// A path whose response is the service's pattern: /small or /bytes/N.
    #[arg(long, default_value = "/small")]
    path: String,
    /// Connections at once.
    #[arg(long, short, default_value_t = 64)]
    connections: usize,
    /// Seconds to measure.
    #[arg(long, short, default_value = "5", value_parser = seconds)]
    duration: Duration,
    /// Seconds to send before measuring.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// A new connection for each request.
    #[arg(long)]
    new_connection: bool,
    /// Open loop at this many requests per second, timed from when each was
    /// due; without it, a closed loop.
    #[arg(long)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
pub(crate) struct Compare {
    /// The contenders.
    #[arg(long, value_delimiter = ',', default_value = "direct,rathole,adit")]
    targets: Vec<Target>,
    /// The contender that ratios refer to.
    #[arg(long, default_value = "rathole")]
    reference: Target,
    /// A file of loadtest/comparisons, by name, or a path that ends in .json.
    #[arg(long, default_value = "first")]
    scenarios: String,
    /// Run only the scenarios whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// How often everything is run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds to measure each scenario.
    #[arg(long, short, default_value = "4", value_parser = seconds)]
    duration: Duration,
    /// Seconds to send before measuring.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Count system calls per request in an extra run under strace.
    #[arg(long)]
    strace: bool,
    /// Write the whole report here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the tables here.
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// The program rathole.
    #[arg(long, value_name = "FILE", default_value = "target/peers/bin/rathole")]
    rathole: PathBuf,
    /// Where adit-server and adit are; without it, beside this program.
    #[arg(long, value_name = "DIRECTORY")]
    adit_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Protocols {
    /// The contenders.
    #[arg(long, value_delimiter = ',', default_value = "direct,rathole,adit")]
    targets: Vec<Target>,
    /// Run only the cases whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// How often everything is run.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Seconds to measure each case.
    #[arg(long, short, default_value = "3", value_parser = seconds)]
    duration: Duration,
    /// Seconds to send before measuring.
    #[arg(long, default_value = "0.5", value_parser = seconds)]
    warm_up: Duration,
    /// Isolation: messages of each protocol in a second.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Write everything that was measured here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here.
    #[arg(long, value_name = "FILE")]
    md: Option<PathBuf>,
    /// The program rathole.
    #[arg(long, value_name = "FILE", default_value = "target/peers/bin/rathole")]
    rathole: PathBuf,
    /// Where adit-server and adit are; without it, beside this program.
    #[arg(long, value_name = "DIRECTORY")]
    adit_dir: Option<PathBuf>,
}

impl Entry {
    async fn resolve(&self) -> Result<(SocketAddr, String), CliError> {
        let fail = |problem: String| CliError::Target {
            url: self.target.clone(),
            problem,
        };
        let authority = authority(&self.target).map_err(|problem| fail(problem.to_owned()))?;
        let with_port = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let address = tokio::net::lookup_host(&with_port)
            .await
            .map_err(|error| fail(error.to_string()))?
            .next()
            .ok_or_else(|| fail("the name has no address".to_owned()))?;
        Ok((
            address,
            self.host.clone().unwrap_or_else(|| authority.to_owned()),
        ))
    }
}

fn authority(url: &str) -> Result<&str, &'static str> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("it must begin with http://")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    match (authority, path) {
        ("", _) => Err("it names no host"),
        (_, "") => Ok(authority),
        _ => Err("give the path with --path"),
    }
}

pub(super) async fn http(options: Http) -> Result<ExitCode, CliError> {
    let (target, host) = options.entry.resolve().await?;
    let plan = Plan {
        target,
        host,
        path: options.path,
        connections: options.connections,
        new_connection: options.new_connection,
        rate: options.rate,
        warm_up: options.warm_up,
        duration: options.duration,
        read_bytes: 64 * 1024,
        progress: true,
    };
    let outcome = generator::run(plan, || ()).await?;
    let seconds = outcome.elapsed.as_secs_f64();
    let result = json!({
        "elapsed_s": seconds,
        "requests": outcome.requests,
        "requests_per_s": outcome.requests as f64 / seconds,
        "body_bytes": outcome.body_bytes,
        "failures": outcome.failures,
        "latency": Latency::of(&outcome.latency_us),
        "histogram_us": latency::buckets(&outcome.latency_us),
    });
    anstream::println!("{result}");
    Ok(if outcome.failures.total() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) async fn compare(options: Compare) -> Result<ExitCode, CliError> {
    let file = ScenarioFile::read(&options.scenarios)?;
    let mut scenarios = file.scenarios;
    if let Some(only) = &options.only {
        scenarios.retain(|scenario| scenario.name.contains(only));
        if scenarios.is_empty() {
            return Err(CliError::NoScenario(only.clone()));
        }
    }
    let adit_dir = options.adit_dir.or_else(beside).unwrap_or_default();
    let mut targets = options.targets;
    targets.sort_by_key(|target| *target as usize);
    targets.dedup();
    let comparison = Comparison {
        targets,
        scenarios,
        rounds: options.rounds.into(),
        warm_up: options.warm_up,
        duration: options.duration,
        strace: options.strace,
        programs: Programs {
            rathole: options.rathole,
            adit_server: adit_dir.join("adit-server"),
            adit: adit_dir.join("adit"),
        },
    };
    let setup = Setup {
        date: jiff::Timestamp::now()
            .strftime("%Y-%m-%d %H:%M UTC")
            .to_string(),
        commit: commit_of(&comparison.targets, &comparison.programs),
        machine: Machine::here(),
        scenarios: file.name,
        about: file.about,
        rounds: comparison.rounds,
        warm_up_s: comparison.warm_up.as_secs_f64(),
        duration_s: comparison.duration.as_secs_f64(),
        reference: options.reference,
    };

    let dir = scratch()?;
    let before = Counters::now();
    let measured = compare::compare(&comparison, dir.path(), report).await?;
    let kernel = Counters::now().since(&before);

    let report = Report::new(
        setup,
        &comparison.scenarios,
        measured.runs,
        &measured.calls,
        kernel,
    );
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &options.md {
        write(path, &tables::markdown(&report))?;
    }
    anstream::println!("{}", tables::terminal(&report));
    // Reports are written first, because a failed request is also a result.
    for (target, error) in &measured.uncounted {
        let target = target.name();
        anstream::eprintln!("system calls of {target} not counted: {error}");
    }
    let failures = compare::failures(&report.runs);
    for (run, failures) in &failures {
        let (scenario, target, round) = (&run.scenario, run.target.name(), run.round + 1);
        anstream::eprintln!("failed requests: {scenario}, {target}, round {round}: {failures}");
    }
    Ok(if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) async fn protocols(options: Protocols, isolation: bool) -> Result<ExitCode, CliError> {
    let adit_dir = options.adit_dir.or_else(beside).unwrap_or_default();
    let measurement = Measurement {
        targets: options.targets,
        only: options.only,
        rounds: options.rounds.into(),
        warm_up: options.warm_up,
        duration: options.duration,
        rate: options.rate,
        programs: Programs {
            rathole: options.rathole,
            adit_server: adit_dir.join("adit-server"),
            adit: adit_dir.join("adit"),
        },
    };
    let dir = scratch()?;
    let machine = Machine::here();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    let commit = commit_of(&measurement.targets, &measurement.programs);
    let before = Counters::now();
    let (table, json, holds) = if isolation {
        let isolation = protocols::isolation(&measurement, dir.path()).await?;
        let table = protocols::isolation_table(&isolation);
        (table, serde_json::to_value(&isolation)?, isolation.holds())
    } else {
        let rows = protocols::measure(&measurement, dir.path()).await?;
        let table = protocols::table(&rows, Target::Rathole);
        (table, serde_json::to_value(&rows)?, true)
    };
    let kernel = Counters::now().since(&before);
    let warnings = kernel.warnings().into_iter();
    let warnings: String = warnings
        .map(|warning| format!("WARNING: {warning}\n\n"))
        .collect();
    let text = format!(
        "{date}, commit {commit}, {} ({} cores), Linux {}, {} rounds of {} s; {}\n\n{warnings}{table}",
        machine.cpu,
        machine.cores,
        machine.kernel,
        measurement.rounds,
        measurement.duration.as_secs_f64(),
        kernel.text(),
    );
    if let Some(path) = &options.json {
        let whole = json!({ "setup": text.lines().next(), "kernel": kernel, "measured": json });
        write(path, &(serde_json::to_string_pretty(&whole)? + "\n"))?;
    }
    if let Some(path) = &options.md {
        write(path, &text)?;
    }
    anstream::println!("{text}");
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The commit of adit, if adit is one of the targets.
fn commit_of(targets: &[Target], programs: &Programs) -> String {
    if targets.contains(&Target::Adit) {
        commit::of(&[&programs.adit_server, &programs.adit])
    } else {
        commit::UNKNOWN.to_owned()
    }
}

fn report(run: &Run) {
    let rate = run.requests as f64 / run.elapsed_s;
    let (round, scenario, target) = (run.round + 1, &run.scenario, run.target.name());
    let (p99, failures) = (run.latency.p99_us, &run.failures);
    anstream::eprintln!(
        "round {round}  {scenario:<22}  {target:<8} {rate:>9.0} requests/s  p99 {p99:>7} µs  failed: {failures}"
    );
}

/// Fetches one body and checks it.
pub(super) async fn download(entry: &Entry, bytes: u64) -> Result<ExitCode, CliError> {
    let (target, host) = entry.resolve().await?;
    let download = download::fetch(target, &host, &format!("/bytes/{bytes}"), bytes).await?;
    anstream::println!("{}", serde_json::to_string_pretty(&download)?);
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_plain_http_authority() {
        assert_eq!(authority("http://127.0.0.1:8080"), Ok("127.0.0.1:8080"));
        assert_eq!(authority("http://localhost/"), Ok("localhost"));
        assert!(authority("https://localhost").is_err());
        assert!(authority("http://").is_err());
        assert!(authority("http://localhost/small").is_err());
    }
}
