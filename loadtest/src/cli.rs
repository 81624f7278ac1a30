//! The command line.

mod compare;
mod run;
mod serve;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::compare::{CompareError, scenario as compare_file};
use crate::download::DownloadError;
use crate::generator;
use crate::protocols::ProtocolsError;
use crate::report::PageError;
use crate::runner::RunError;
use crate::scenario::ScenarioError;
use crate::targets::TargetError;

/// Load test of adit: scenarios against adit or any other tunnel, and comparisons side by side.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a scenario, and report on it.
    Run(Box<run::Options>),
    /// List the scenarios that ship.
    List,
    /// Run the services that tunnels lead to.
    Serve(serve::Options),
    /// Send HTTP requests; the result is JSON on stdout.
    Http(compare::Http),
    /// Fetch one body and check every byte.
    Download {
        #[command(flatten)]
        entry: compare::Entry,
        /// Length of the body.
        #[arg(long, default_value_t = 256 << 20)]
        bytes: u64,
    },
    /// Start the services and all targets, and measure them side by side over HTTP.
    Compare(compare::Compare),
    /// Measure TCP, UDP, WebSocket and gRPC side by side through all targets.
    Protocols(compare::Protocols),
    /// Measure whether peers that stall or flood delay the others.
    Isolation(compare::Protocols),
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
    /// The target is invalid.
    #[error("cannot use target {url}: {problem}")]
    Target {
        /// The URL as given by the user.
        url: String,
        /// What is wrong with the URL.
        problem: String,
    },
    /// No scenario has a matching name.
    #[error("no scenario has \"{0}\" in its name")]
    NoScenario(String),
    /// The services could not listen.
    #[error("{0}")]
    Service(std::io::Error),
    /// A report could not be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        source: std::io::Error,
    },
    /// A report could not be serialized to JSON.
    #[error("report: {0}")]
    Json(#[from] serde_json::Error),
    /// An error of the generator.
    #[error(transparent)]
    Generator(#[from] generator::RunError),
    /// An error of a download.
    #[error("download: {0}")]
    Download(#[from] DownloadError),
    /// An error of the scenarios of a comparison.
    #[error(transparent)]
    Comparison(#[from] compare_file::ScenarioError),
    /// An error of a scenario.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// An error of starting a target.
    #[error(transparent)]
    Started(#[from] TargetError),
    /// An error of a run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An error of writing the HTML page.
    #[error(transparent)]
    Page(#[from] PageError),
    /// A flag has an invalid value.
    #[error("{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong with the value of the option.
        problem: String,
    },
    /// An error of a comparison.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// An error of measuring protocols.
    #[error(transparent)]
    Protocols(#[from] ProtocolsError),
}

/// Runs a command.
///
/// # Errors
/// Returns a [`CliError`], whose text is for the user.
pub(crate) async fn run(command: Command) -> Result<ExitCode, CliError> {
    match command {
        Command::Run(options) => run::run(*options).await,
        Command::List => run::list(),
        Command::Serve(options) => serve::serve(&options).await,
        Command::Http(options) => compare::http(options).await,
        Command::Download { entry, bytes } => compare::download(&entry, bytes).await,
        Command::Compare(options) => compare::compare(options).await,
        Command::Protocols(options) => compare::protocols(options, false).await,
        Command::Isolation(options) => compare::protocols(options, true).await,
    }
}

/// Returns the directory of this program.
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
    fn seconds_may_be_parts_and_never_negative() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        assert!(seconds("-1").is_err() && seconds("soon").is_err());
    }
}
