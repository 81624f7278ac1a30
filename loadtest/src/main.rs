//! Measures the shipped binaries `adit-server` and `adit` under load, and compares them with no tunnel and with their
//! peers (F48).
//!
//! `run` runs a scenario: `scenario` defines the load, `targets` the targets, and `runner` combines them; `drivers` are
//! the visitors and `services` the services behind the tunnels; `schedule` sets the times, `pool` distributes due
//! requests, `tally` and `series` count, `events` restart a side, `report` shows the results. `compare` and `protocols`
//! compare targets, with the same schedule, pool and services. Everything but the target runs on one thread: the cost
//! of this program is part of what it measures.
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::disallowed_macros)]

mod cli;
mod commit;
mod compare;
mod download;
mod drivers;
mod events;
mod failure;
mod generator;
mod kernel;
mod latency;
mod pattern;
mod pool;
mod process;
mod procfs;
mod protocols;
mod report;
mod response;
mod runner;
mod scenario;
mod schedule;
mod series;
mod services;
mod tally;
mod targets;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    tokio::select! {
        // The same signal ends `serve`, for which it is a success.
        biased;
        done = cli::run(command) => match done {
            Ok(code) => code,
            Err(error) => {
                anstream::eprintln!("adit-loadtest: {error}");
                ExitCode::FAILURE
            }
        },
        // Dropping the command above ends every process it started.
        () = asked_to_stop() => ExitCode::from(130),
    }
}

/// Waits for Ctrl-C or SIGTERM.
async fn asked_to_stop() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
