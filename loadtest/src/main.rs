//! Measures the shipped binaries `adit-server` and `adit` under load, beside
//! no tunnel at all and beside their peers (F48).
//!
//! Rooms: `service` is what tunnels lead to, `generator` sends and times,
//! `targets` starts tunnels, `compare` runs scenarios side by side, `report`
//! and `tables` say what came out; `protocols` does the same for what is not HTTP. Everything runs on one thread: the cost of
//! this program is part of what it measures.

mod answer;
mod cli;
mod compare;
mod download;
mod failure;
mod generator;
mod latency;
mod pattern;
mod process;
mod procfs;
mod protocols;
mod report;
mod scenario;
mod schedule;
mod service;
mod strace;
mod tables;
mod tally;
mod targets;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    tokio::select! {
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
