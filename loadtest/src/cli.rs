//! The command line.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, ExitCode};
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use crate::compare::{self, CompareError, Comparison};
use crate::download::{self, DownloadError};
use crate::generator::{self, Plan, RunError};
use crate::latency::{self, Latency};
use crate::procfs::Machine;
use crate::protocols::{self, Measurement, ProtocolsError};
use crate::report::{Report, Run, Setup};
use crate::scenario::{ScenarioError, ScenarioFile};
use crate::service;
use crate::tables;
use crate::targets::{Programs, Target};

/// Load test of adit beside no tunnel and beside its peers.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the private service that tunnels lead to.
    Service {
        /// Port on loopback; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
    /// Send HTTP requests; the result is JSON on stdout.
    Http(Http),
    /// Fetch one body and check every byte.
    Download {
        #[command(flatten)]
        entry: Entry,
        /// Length of the body.
        #[arg(long, default_value_t = 256 << 20)]
        bytes: u64,
    },
    /// Start the service and all targets, and measure them side by side.
    Compare(Compare),
    /// Run the private service of `protocols`.
    #[command(hide = true)]
    ProtocolService,
    /// Measure TCP, UDP, WebSocket and gRPC side by side through all targets.
    Protocols(Protocols),
    /// Measure whether stalled peers of every protocol delay the others.
    Isolation(Protocols),
}

/// Where requests go.
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
    /// A path whose answer is the service's pattern: /small or /bytes/N.
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
    /// Whom to measure.
    #[arg(long, value_delimiter = ',', default_value = "direct,rathole,adit")]
    targets: Vec<Target>,
    /// Whom the ratios are to.
    #[arg(long, default_value = "rathole")]
    reference: Target,
    /// A file of loadtest/scenarios, by name, or a path that ends in .json.
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
    /// Whom to measure.
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

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a number of seconds is needed, such as 5 or 0.5".to_owned())?;
    Duration::try_from_secs_f64(number).map_err(|error| error.to_string())
}

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The target is no place to send to.
    #[error("cannot use target {url}: {problem}")]
    Target {
        /// As given.
        url: String,
        /// What is wrong.
        problem: String,
    },
    /// Nothing to run.
    #[error("no scenario has \"{0}\" in its name")]
    NoScenario(String),
    /// The service could not listen.
    #[error("service: {0}")]
    Service(std::io::Error),
    /// A report could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A report could not be put into JSON.
    #[error("report: {0}")]
    Json(#[from] serde_json::Error),
    /// See there.
    #[error(transparent)]
    Run(#[from] RunError),
    /// See there.
    #[error("download: {0}")]
    Download(#[from] DownloadError),
    /// See there.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// See there.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// See there.
    #[error(transparent)]
    Protocols(#[from] ProtocolsError),
}

/// Runs a command.
///
/// # Errors
/// [`CliError`], for the user to read.
pub(crate) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Service { port } => {
            service::run(port).await.map_err(CliError::Service)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Http(options) => http(options).await,
        Command::Download { entry, bytes } => {
            let (target, host) = entry.resolve().await?;
            let download =
                download::fetch(target, &host, &format!("/bytes/{bytes}"), bytes).await?;
            anstream::println!("{}", serde_json::to_string_pretty(&download)?);
            Ok(ExitCode::SUCCESS)
        }
        Command::Compare(options) => compare(options).await,
        Command::ProtocolService => {
            protocols::serve().await.map_err(CliError::Service)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Protocols(options) => protocols(options, false).await,
        Command::Isolation(options) => protocols(options, true).await,
    }
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

async fn http(options: Http) -> Result<ExitCode, CliError> {
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

async fn compare(options: Compare) -> Result<ExitCode, CliError> {
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
        commit: commit(),
        machine: Machine::here(),
        scenarios: file.name,
        about: file.about,
        rounds: comparison.rounds,
        warm_up_s: comparison.warm_up.as_secs_f64(),
        duration_s: comparison.duration.as_secs_f64(),
        reference: options.reference,
    };

    let dir = scratch()?;
    let measured = compare::compare(&comparison, dir.path(), tell).await?;

    let report = Report::new(setup, &comparison.scenarios, measured.runs, &measured.calls);
    if let Some(path) = &options.json {
        write(path, &(serde_json::to_string_pretty(&report)? + "\n"))?;
    }
    if let Some(path) = &options.md {
        write(path, &tables::markdown(&report))?;
    }
    anstream::println!("{}", tables::terminal(&report));
    // Reports are written first: a failed request is a result too.
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

async fn protocols(options: Protocols, isolation: bool) -> Result<ExitCode, CliError> {
    let adit_dir = options.adit_dir.or_else(beside).unwrap_or_default();
    let measurement = Measurement {
        targets: options.targets,
        only: options.only,
        rounds: options.rounds.into(),
        warm_up: options.warm_up,
        duration: options.duration,
        programs: Programs {
            rathole: options.rathole,
            adit_server: adit_dir.join("adit-server"),
            adit: adit_dir.join("adit"),
        },
    };
    let dir = scratch()?;
    let machine = Machine::here();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    let commit = commit();
    let (table, json, holds) = if isolation {
        let verdicts = protocols::isolation(&measurement, dir.path()).await?;
        let holds = verdicts.iter().all(|verdict| verdict.holds);
        let table = protocols::verdicts_table(&verdicts);
        (table, serde_json::to_value(&verdicts)?, holds)
    } else {
        let rows = protocols::measure(&measurement, dir.path()).await?;
        let table = protocols::table(&rows, Target::Rathole);
        (table, serde_json::to_value(&rows)?, true)
    };
    let text = format!(
        "{date}, commit {commit}, {} ({} cores), Linux {}, {} rounds of {} s\n\n{table}",
        machine.cpu,
        machine.cores,
        machine.kernel,
        measurement.rounds,
        measurement.duration.as_secs_f64(),
    );
    if let Some(path) = &options.json {
        let whole = json!({ "setup": text.lines().next(), "measured": json });
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

/// The directory of this program.
fn beside() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.parent()?.to_owned())
}

fn scratch() -> Result<tempfile::TempDir, CliError> {
    let place = |source| CliError::Write {
        path: std::env::temp_dir(),
        source,
    };
    tempfile::Builder::new()
        .prefix("adit-loadtest-")
        .tempdir()
        .map_err(place)
}

fn tell(run: &Run) {
    let rate = run.requests as f64 / run.elapsed_s;
    let (round, scenario, target) = (run.round + 1, &run.scenario, run.target.name());
    let (p99, failures) = (run.latency.p99_us, &run.failures);
    anstream::eprintln!(
        "round {round}  {scenario:<22}  {target:<8} {rate:>9.0} requests/s  p99 {p99:>7} µs  failed: {failures}"
    );
}

/// The commit that is measured, marked where files differ from it.
fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Program::new("git").args(arguments).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "none".to_owned();
    };
    let clean = git(&["status", "--porcelain"]).is_some_and(|changed| changed.is_empty());
    if clean {
        commit
    } else {
        commit + " with uncommitted changes"
    }
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    parent
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(path, text))
        .map_err(|source| CliError::Write {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_target_is_a_plain_http_authority() {
        assert_eq!(authority("http://127.0.0.1:8080"), Ok("127.0.0.1:8080"));
        assert_eq!(authority("http://localhost/"), Ok("localhost"));
        assert!(authority("https://localhost").is_err());
        assert!(authority("http://").is_err());
        assert!(authority("http://localhost/small").is_err());
    }

    #[test]
    fn seconds_may_be_parts_and_never_negative() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
    }
}
